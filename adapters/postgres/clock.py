"""The database's clock."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime

import structlog

from adapters.postgres.statements import Statements
from application.ports.runtime import Clock, Resource
from domain.errors import Unavailable

log = structlog.get_logger(__name__)

SQL = Statements("database")

_EVERY_SECONDS = 10.0
_RETRY_SECONDS = 1.0
#: Of several readings the quickest counts, since a slow answer says less: the first one has to connect.
_READINGS = 4
#: How fast a machine's clock may be wrong, in seconds per second.
_DRIFT = 0.0005


class PostgresClock(Clock, Resource):
    """The time of Postgres, which is the same for all hosts whatever their own clocks show.

    It is read every ten seconds, and the monotonic clock counts on from there: stamps cost no round trip, and setting
    the host's clock has no effect. Before the first reading it is the host's time.
    """

    def __init__(self, host: Clock) -> None:
        self._host = host
        #: Seconds from the monotonic clock to the database's, how wrong they may be, and when they were read.
        self._offset = 0.0
        self._error = 0.0
        self._read_at: float | None = None
        self._following: asyncio.Task[None] | None = None

    def now(self) -> datetime:
        if self._read_at is None:
            return self._host.now()
        now = datetime.fromtimestamp(time.monotonic() + self._offset, UTC)
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    async def start(self) -> None:
        first = asyncio.Event()
        self._following = asyncio.create_task(self._follow(first))
        with suppress(TimeoutError):  # the process starts without its database
            async with asyncio.timeout(_RETRY_SECONDS):
                await first.wait()

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following

    async def _follow(self, first: asyncio.Event) -> None:
        while True:
            try:
                for _ in range(_READINGS):
                    await self.read()
            except Unavailable:
                pass  # logged where it was raised; the time goes on
            except Exception:
                log.exception("clock_not_read")
            first.set()
            await asyncio.sleep(_RETRY_SECONDS if self._read_at is None else _EVERY_SECONDS)

    async def read(self) -> None:
        """Raises DatabaseUnavailable."""
        asked = time.monotonic()
        [row] = await SQL.time()
        answered = time.monotonic()
        error = (answered - asked) / 2
        offset = row["now"].timestamp() - (asked + answered) / 2
        if self._read_at is not None:
            possible = self._error + (answered - self._read_at) * _DRIFT
            if error > possible and abs(offset - self._offset) <= error + possible:
                return  # a slow answer, which tells nothing new
        self._offset, self._error, self._read_at = offset, error, answered
