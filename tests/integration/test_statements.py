"""The SQL files: how they are read, and that Postgres takes every statement in them."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg
import pytest

from adapters.postgres import statements
from adapters.postgres.statements import Statement, Statements

AREAS = sorted(path.stem for path in Path(statements.__file__).with_name("sql").glob("*.sql"))
WHOLE = re.compile(r"(WITH|SELECT|INSERT|UPDATE|DELETE)\b")  # others are parts, and tried with what includes them
NAMES = [(area, name) for area in AREAS for name, text in Statements(area).texts.items() if WHOLE.match(text)]


def test_named_parameters_become_positions_once_each() -> None:
    statement = Statement("SELECT :b::int, :a, x[1:2] FROM t WHERE b = :b AND c = '12:30'::time")
    assert statement.sql == "SELECT $1::int, $2, x[1:2] FROM t WHERE b = $1 AND c = '12:30'::time"
    assert statement.arguments({"a": 1, "b": 2}) == [2, 1]


@pytest.mark.parametrize("given", [{}, {"a": 1}, {"a": 1, "b": 2, "c": 3}])
def test_values_that_are_missing_or_too_many_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        Statement("SELECT :a, :b").arguments(given)


@pytest.mark.parametrize("area", AREAS)
def test_each_statement_says_what_it_is_for_in_its_first_line(area: str) -> None:
    text = Path(statements.__file__).with_name("sql").joinpath(f"{area}.sql").read_text()
    described = re.findall(r"(?m)^-- (\w+) --\n-- [A-Z].{10,}", text)
    assert described == list(Statements(area).texts)


@pytest.mark.parametrize("area", AREAS)
def test_no_statement_is_unused(area: str) -> None:
    code = "\n".join(path.read_text() for path in Path(statements.__file__).parent.glob("*.py"))
    sql = Path(statements.__file__).with_name("sql").joinpath(f"{area}.sql").read_text()
    for name in Statements(area).texts:
        assert re.search(rf"\bSQL\.{name}\b|\"{name}\"", code) or f"-- include {name} --" in sql, name


@pytest.mark.parametrize(("area", "name"), NAMES)
async def test_postgres_takes_it(database_url: str, area: str, name: str) -> None:
    statement: Statement = getattr(Statements(area), name)
    connection = await asyncpg.connect(database_url)
    try:
        prepared = await connection.prepare(statement.sql)
        assert len(prepared.get_parameters()) == len(statement.parameters)
    finally:
        await connection.close()
