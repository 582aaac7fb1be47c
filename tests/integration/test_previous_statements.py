"""The previous release runs on today's schema while it is replaced: Postgres still takes each of its statements.

`previous/` has its SQL files as they were released. With the next release they are replaced by the
files of this one.
"""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg
import pytest

from adapters.postgres.statements import Statement, Statements

FOLDER = Path(__file__).with_name("previous")
WHOLE = re.compile(r"(WITH \w+ AS|SELECT|INSERT|UPDATE|DELETE)\b")  # others are parts
AREAS = {path.stem: Statements(path.stem, folder=FOLDER) for path in sorted(FOLDER.glob("*.sql"))}
NAMES = [(area, name) for area, found in AREAS.items() for name, text in found.texts.items() if WHOLE.match(text)]


@pytest.mark.parametrize(("area", "name"), NAMES)
async def test_its_statements_are_still_valid(database_url: str, area: str, name: str) -> None:
    statement: Statement = getattr(AREAS[area], name)
    connection = await asyncpg.connect(database_url)
    try:
        await connection.prepare(statement.sql)
    finally:
        await connection.close()
