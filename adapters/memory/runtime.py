"""A clock that stands still until it is moved, a queue that records its notifications, and limits of one process."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from application.ports.runtime import Bucket, Clock, JobQueue, RateDecision, RateLimiter, Remaining
from domain.rates import MICROSECONDS, CallRate


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


class MemoryRateLimiter(RateLimiter):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._full_at: dict[tuple[str, str], int] = {}

    async def hit(self, buckets: Sequence[Bucket]) -> RateDecision:
        now = int(self._clock.now().timestamp() * MICROSECONDS)
        names = [(bucket.rule, bucket.subject) for bucket in buckets]
        rates = [CallRate(bucket.rate, self._full_at.get(name, 0)) for name, bucket in zip(names, buckets, strict=True)]
        wait = max((rate.wait(now) for rate in rates), default=0)
        if wait == 0:
            rates = [rate.counted(now) for rate in rates]
            self._full_at |= {name: rate.full_at for name, rate in zip(names, rates, strict=True)}
        remaining = [Remaining(rate.calls_left(now), rate.resets_in(now) / MICROSECONDS) for rate in rates]
        return RateDecision(wait / MICROSECONDS, remaining)
