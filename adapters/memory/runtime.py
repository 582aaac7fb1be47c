"""A clock that stands still until it is moved, and a queue that records its notifications."""

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
    """Keeps what it notifies of in a list; with `broken` it cannot notify anybody."""

    def __init__(self) -> None:
        self.notified: list[UUID] = []
        self.broken = False

    async def notify(self, ids: Sequence[UUID]) -> bool:
        if not self.broken:
            self.notified += ids
        return not self.broken
