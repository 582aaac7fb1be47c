"""Named SQL statements. `sql/<area>.sql` holds those of one area, where psql, EXPLAIN and reviewers find them too.

A statement begins with a line `-- name --` and a comment on what it is for. Its parameters are named, `:user_id`.
A line `-- include name --` is replaced by the text of an earlier statement of the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

from adapters.postgres.connection import rows

_FOLDER = Path(__file__).with_name("sql")
_NAME = re.compile(r"^-- (\w+) --$", re.MULTILINE)
_INCLUDE = re.compile(r"^[ \t]*-- include (\w+) --$", re.MULTILINE)
_COMMENT = re.compile(r"--.*$", re.MULTILINE)
_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]\w*)")


class Statement:
    """One statement, with the positional parameters that the driver expects."""

    def __init__(self, text: str) -> None:
        self.parameters = tuple(dict.fromkeys(_PARAMETER.findall(text)))
        self.sql = _PARAMETER.sub(lambda found: f"${self.parameters.index(found[1]) + 1}", text)
        self._names = frozenset(self.parameters)

    async def __call__(self, **values: object) -> list[Mapping[str, Any]]:
        """Run it as `connection.rows` does."""
        return await rows(self.sql, *self.arguments(values))

    async def on(self, connection: asyncpg.Connection, **values: object) -> list[Mapping[str, Any]]:
        """Run it as a step of `connection.transaction`."""
        result: list[Mapping[str, Any]] = await connection.fetch(self.sql, *self.arguments(values))
        return result

    def arguments(self, values: Mapping[str, object]) -> list[object]:
        """The values in the order of the parameters. Raises TypeError if any is missing or unknown."""
        if values.keys() != self._names:
            raise TypeError(f"the statement takes {', '.join(self.parameters)}; not {', '.join(values)}")
        return [values[name] for name in self.parameters]


class Statements:
    """The statements of a file, as attributes."""

    def __init__(self, area: str, *, folder: Path = _FOLDER) -> None:
        self.area = area
        _, *parts = _NAME.split((folder / f"{area}.sql").read_text())
        self.texts: dict[str, str] = {}
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            whole = _INCLUDE.sub(lambda found: self.texts[found[1]], text)
            self.texts[name] = _COMMENT.sub("", whole).strip().removesuffix(";")
            setattr(self, name, Statement(self.texts[name]))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Statement: ...
