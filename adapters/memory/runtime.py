"""A clock that stands still until it is moved, and a bell that only takes notes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from application.ports.runtime import Clock, JobQueue


class MemoryClock(Clock):
    def __init__(self, now: datetime = datetime(2026, 1, 1, 12, tzinfo=UTC)) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def move(self, by: timedelta) -> None:
        self._now += by


class MemoryJobQueue(JobQueue):
    """Rings into a list; `broken` makes it a bell that cannot be rung."""

    def __init__(self) -> None:
        self.rung: list[UUID] = []
        self.broken = False

    async def ring(self, ids: Sequence[UUID]) -> bool:
        if not self.broken:
            self.rung += ids
        return not self.broken
