"""The SQL files: how they are read, that Postgres takes every statement, and that the code uses them as they are."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from adapters.postgres import statements
from adapters.postgres.statements import Statement, Statements

HERE = Path(statements.__file__).parent
PRODUCT = [HERE.parents[1] / name for name in ("domain", "application", "adapters", "entrypoints", "local")]
AREAS = sorted(path.stem for path in HERE.joinpath("sql").glob("*.sql"))
WHOLE = re.compile(r"(WITH \w+ AS|SELECT|INSERT|UPDATE|DELETE)\b")  # others are parts
NAMES = [(area, name) for area in AREAS for name, text in Statements(area).texts.items() if WHOLE.match(text)]
MODULES = [path for path in HERE.glob("*.py") if "Statements(" in path.read_text() and path.stem != "statements"]
SQL = re.compile(r"\b(SELECT|INSERT\s+INTO|DELETE\s+FROM|UPDATE\s+\w+\s+SET|TRUNCATE|WITH\s+\w+\s+AS)\b")


def source(area: str) -> str:
    return HERE.joinpath("sql", f"{area}.sql").read_text()


def uses(module: Path) -> Iterator[tuple[str, str, ast.Call | None]]:
    """Area and name of each statement that a module names, with the call if it is called there."""
    imported = importlib.import_module(f"adapters.postgres.{module.stem}")
    area_of = {name: value.area for name, value in vars(imported).items() if isinstance(value, Statements)}
    tree = ast.parse(module.read_text())
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    parents = {id(child): node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=statement) if name in area_of and statement != "area":
                above = parents[id(node)]
                called = above if isinstance(above, ast.Attribute) and above.attr == "on" else node
                yield area_of[name], statement, calls.get(id(called))


def test_named_parameters_become_positions_once_each() -> None:
    statement = Statement("SELECT :b::int, :a, x[1:2], x[1 : :a] FROM t WHERE b = :b AND c = '12:30'::time")
    assert statement.sql == "SELECT $1::int, $2, x[1:2], x[1 : $2] FROM t WHERE b = $1 AND c = '12:30'::time"
    assert statement.arguments({"a": 1, "b": 2}) == [2, 1]


@pytest.mark.parametrize("given", [{}, {"a": 1}, {"a": 1, "b": 2, "c": 3}])
def test_values_that_are_missing_or_too_many_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        Statement("SELECT :a, :b").arguments(given)


@pytest.mark.parametrize("area", AREAS)
def test_each_statement_says_what_it_is_for_in_its_first_line(area: str) -> None:
    assert re.findall(r"(?m)^-- (\w+) --\n-- [A-Z].{10,}", source(area)) == list(Statements(area).texts)


def test_every_statement_is_used_and_exists() -> None:
    used = {(area, name) for module in MODULES for area, name, _ in uses(module)}
    included = {(area, name) for area in AREAS for name in re.findall(r"-- include (\w+) --", source(area))}
    assert used | included == {(area, name) for area in AREAS for name in Statements(area).texts}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)
def test_every_call_gives_the_parameters_of_its_statement(module: Path) -> None:
    found = list(uses(module))
    assert found
    for area, name, call in found:
        if call is None:
            continue
        statement: Statement = getattr(Statements(area), name)
        given = {keyword.arg for keyword in call.keywords}
        if None in given:  # **values, which are refused when it is called
            assert given - {None} <= set(statement.parameters), f"{area}.{name}"
        else:
            assert given == set(statement.parameters), f"{area}.{name}"


@pytest.mark.parametrize("folder", PRODUCT, ids=lambda folder: folder.name)
def test_no_sql_is_written_in_the_code(folder: Path) -> None:
    for path in folder.rglob("*.py"):
        if "migrations" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not SQL.search(node.value), f"{path}:{node.lineno}"


@pytest.mark.parametrize("area", AREAS)
def test_columns_are_named(area: str) -> None:
    """What a caller does not show is not read, and a new column reaches nobody who does not expect it."""
    assert not re.search(r"(SELECT|RETURNING)\s+(\w+\.)?\*|,\s*\w+\.\*", source(area))


@pytest.mark.parametrize(("area", "name"), NAMES)
def test_what_is_limited_and_locked_is_read_once(area: str, name: str) -> None:
    """In `IN (SELECT … LIMIT … FOR UPDATE SKIP LOCKED)` a plan may read it again for each row, and take more."""
    text = Statements(area).texts[name]
    assert not re.search(r"\bIN\s*\((?:(?!\)\s*RETURNING)[\s\S])*?LIMIT[^()]*FOR UPDATE", text)


@pytest.mark.parametrize(("area", "name"), NAMES)
async def test_postgres_takes_it(database_url: str, area: str, name: str) -> None:
    statement: Statement = getattr(Statements(area), name)
    connection = await asyncpg.connect(database_url)
    try:
        prepared = await connection.prepare(statement.sql)
        assert len(prepared.get_parameters()) == len(statement.parameters)
    finally:
        await connection.close()
