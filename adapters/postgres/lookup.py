"""Lookups by key, of which every request makes some. Those that arrive together share one statement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from adapters.batching import Batched
from adapters.postgres.connection import IN_TRANSACTION
from adapters.postgres.statements import Statement

Key = TypeVar("Key")
Found = TypeVar("Found")


class Lookup(Generic[Key, Found]):
    """Finds an entity by its key, as stored at the time of the call or later, or None.

    `statement` takes `keys` and returns a row for each that it knows, with the key in its column `key`. In a
    transaction it runs for the one key alone, on the connection of the transaction.
    """

    def __init__(self, statement: Statement, read: Callable[[Mapping[str, Any]], Found]) -> None:
        self._statement = statement
        self._read = read
        # A copy of a caller's context, which knows the connections.
        self._together: Batched[Key, Found | None] = Batched(self._ask, context=copy_context)

    async def __call__(self, key: Key) -> Found | None:
        if IN_TRANSACTION.get():
            return (await self._ask([key]))[0]
        return await self._together(key)

    async def _ask(self, keys: Sequence[Key]) -> list[Found | None]:
        rows = await self._statement(keys=list(dict.fromkeys(keys)))
        found = {row["key"]: self._read(row) for row in rows}
        return [found.get(key) for key in keys]
