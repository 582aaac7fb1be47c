"""A clock that stands still until it is moved, a bell that only takes notes, and limits that end with the process."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from application.ports.runtime import Bucket, Clock, JobQueue, RateLimiter, Room, Verdict


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


class MemoryRateLimiter(RateLimiter):
    """Keeps of each bucket when it will be whole again, in whole microseconds, as the one in Redis does."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._whole: dict[tuple[str, str], int] = {}

    async def hit(self, buckets: Sequence[Bucket]) -> Verdict:
        now = int(self._clock.now().timestamp() * 1e6)
        self._whole = {name: whole for name, whole in self._whole.items() if whole > now}
        found = []
        for bucket in buckets:
            window = int(bucket.rate.seconds * 1e6)
            name = bucket.rule, bucket.who
            found.append((name, self._whole.get(name, now), window // bucket.rate.calls, window))
        wait = max(0, *(whole + interval - window - now for _, whole, interval, window in found))
        if wait == 0:
            self._whole |= {name: whole + interval for name, whole, interval, _ in found}
        rooms = []
        for name, _, interval, window in found:
            whole = self._whole.get(name, now)
            rooms.append(Room((now + window - whole) // interval, (whole - now) / 1e6))
        return Verdict(wait / 1e6, rooms)
