"""Connections that stay out of their pool between two uses."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, NamedTuple

import asyncpg
import structlog

log = structlog.get_logger(__name__)

#: How long a connection stays out of the pool, which limits their age and closes those that are not needed.
KEPT_SECONDS = 60.0
#: A server that hangs does not answer a cancellation either. Then the connection is dropped.
_RELEASE_SECONDS = 0.5


class Kept(NamedTuple):
    connection: asyncpg.Connection
    until: float


class KeptConnections:
    """Hands the connection that was used last to the caller that has waited longest, or else to the next caller.

    Taking it from asyncpg's pool and returning it there costs a timer, two tasks and several turns of the event loop,
    more than a short statement. The pool still makes the connections, limits their number, and cleans up those whose
    use has failed.
    """

    def __init__(self, pool: Any, *, seconds: float = KEPT_SECONDS) -> None:
        self._pool = pool
        self._seconds = seconds
        self._free: deque[Kept] = deque()
        """The last used one is the last."""
        self._waiting: deque[asyncio.Future[Kept | None]] = deque()
        #: What is to be kept until then at the latest was taken before `clear`.
        self._stale_until = 0.0
        self._taken = 0  # out of the pool, free or in use
        self._closed = False

    @property
    def free(self) -> int:
        return len(self._free)

    async def acquire(self, *, seconds: float) -> Kept:
        """Raises TimeoutError after `seconds`."""
        if self._free and _is_open(self._free[-1].connection):
            return self._free.pop()
        async with asyncio.timeout(seconds):
            has_waited = False
            while True:
                while self._free:
                    kept = self._free.pop()
                    if _is_open(kept.connection):
                        return kept
                    await self._return(kept)
                if self._taken < self._pool.get_max_size():
                    return await self._take()
                if handed := await self._wait(first=has_waited):
                    return handed
                has_waited = True

    async def release(self, kept: Kept, *, failed: bool) -> None:
        """`failed`: its last use has raised, so a statement or a transaction may still have to be ended."""
        now = asyncio.get_running_loop().time()
        is_stale = now >= kept.until or kept.until <= self._stale_until
        if failed or self._closed or is_stale or not _is_open(kept.connection):
            await self._return(kept)
        elif not self._hand_over(kept):
            self._free.append(kept)
        while self._free and now >= self._free[0].until:
            await self._return(self._free.popleft())

    async def close(self) -> None:
        """Return all to the pool, which is about to close."""
        self._closed = True
        await self.clear()

    async def clear(self) -> None:
        """Return all, also those that are in use now, after their use."""
        self._stale_until = asyncio.get_running_loop().time() + self._seconds
        while self._free:
            await self._return(self._free.pop())

    async def _take(self) -> Kept:
        self._taken += 1
        try:
            connection = await self._pool.acquire()
        except BaseException:
            self._taken -= 1
            self._hand_over(None)
            raise
        return Kept(connection, asyncio.get_running_loop().time() + self._seconds)

    async def _return(self, kept: Kept) -> None:
        try:
            await self._pool.release(kept.connection, timeout=_RELEASE_SECONDS)
        except Exception as error:  # noqa: BLE001 - the pool has dropped it; what it was used for is done
            log.info("connection_dropped", error=type(error).__name__)
        finally:
            self._taken -= 1
            self._hand_over(None)

    async def _wait(self, *, first: bool) -> Kept | None:
        """None means that one can be taken from the pool now. `first`: this one has waited before."""
        handed: asyncio.Future[Kept | None] = asyncio.get_running_loop().create_future()
        (self._waiting.appendleft if first else self._waiting.append)(handed)
        try:
            return await handed
        except asyncio.CancelledError:
            if handed.done() and not handed.cancelled() and not self._hand_over(kept := handed.result()) and kept:
                self._free.append(kept)
            raise

    def _hand_over(self, kept: Kept | None) -> bool:
        """False if nobody waits."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(kept)
                return True
        return False


def _is_open(connection: asyncpg.Connection) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:  # it was lost, and the pool has taken it back
        return False
