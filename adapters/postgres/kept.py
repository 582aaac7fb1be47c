"""Connections that stay out of their pool between two uses."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, NamedTuple

import asyncpg

#: How long a connection stays out of the pool, which limits their age and closes those that are not needed.
KEPT_SECONDS = 60.0
#: A server that hangs does not answer a cancellation either. Then the connection is dropped.
_RELEASE_SECONDS = 0.5


class Kept(NamedTuple):
    connection: asyncpg.Connection
    until: float


class KeptConnections:
    """Hands out the connection that was used last. Taking it from asyncpg's pool and returning it there costs a timer,
    two tasks and several turns of the event loop, more than a short statement.

    The pool still decides how many there are: as soon as somebody waits for it, connections go back there.
    """

    def __init__(self, pool: Any, *, seconds: float = KEPT_SECONDS) -> None:
        self._pool = pool
        self._seconds = seconds
        self._free: deque[Kept] = deque()
        """The last used one is the last."""
        self._waiting = 0
        self._closed = False

    @property
    def free(self) -> int:
        return len(self._free)

    async def acquire(self, *, seconds: float) -> Kept:
        while self._free:
            kept = self._free.pop()
            if _is_open(kept.connection):
                return kept
            await self._pool.release(kept.connection)
        self._waiting += 1
        try:
            connection = await self._pool.acquire(timeout=seconds)
        finally:
            self._waiting -= 1
        return Kept(connection, asyncio.get_running_loop().time() + self._seconds)

    async def release(self, kept: Kept, *, failed: bool) -> None:
        """`failed`: its last use has raised, so a statement or a transaction may still have to be ended."""
        now = asyncio.get_running_loop().time()
        if failed or self._waiting or self._closed or now >= kept.until:
            await self._pool.release(kept.connection, timeout=_RELEASE_SECONDS)
        else:
            self._free.append(kept)
        while self._free and now >= self._free[0].until:
            await self._pool.release(self._free.popleft().connection)

    async def close(self) -> None:
        """Return all to the pool, which is about to close."""
        self._closed = True
        await self.clear()

    async def clear(self) -> None:
        while self._free:
            await self._pool.release(self._free.pop().connection)


def _is_open(connection: asyncpg.Connection) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:  # it was lost, and the pool has taken it back
        return False
