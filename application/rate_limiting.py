"""Rate limits that hold without Redis: each process then counts by itself."""

from __future__ import annotations

import time
from collections.abc import Sequence

from application.ports.runtime import Bucket, Clock, RateDecision, RateLimiter, Remaining
from domain.errors import RedisUnavailable
from domain.rates import MICROSECONDS, CallRate

#: Buckets of one process, at about 100 bytes each.
MAX_BUCKETS = 50_000
#: What further subjects share, of each rule, until others have all their calls again.
SHARED_BUCKETS = 1_024
_PURGE_SECONDS = 1.0
#: After a failure of Redis, calls are counted here for this time. Then one call tries Redis again.
RETRY_SECONDS = 5.0


class ProcessRateLimiter(RateLimiter):
    """Counts in this process, within a bound of memory.

    Nothing is dropped to make room, since callers could then drop their own counts: those for whom there is no bucket
    share one with others. Only hashes are kept, with a key that each process draws for itself.
    """

    def __init__(self, clock: Clock, *, limit: int = MAX_BUCKETS) -> None:
        self._clock = clock
        self._limit = limit
        self._full_at: dict[int, int] = {}
        self._purge_at = 0

    async def hit(self, buckets: Sequence[Bucket]) -> RateDecision:
        now = int(self._clock.now().timestamp() * MICROSECONDS)
        names = [self._name(bucket, now) for bucket in buckets]
        rates = [CallRate(bucket.rate, self._full_at.get(name, 0)) for name, bucket in zip(names, buckets, strict=True)]
        wait = max((rate.wait(now) for rate in rates), default=0)
        if wait == 0:
            rates = [rate.counted(now) for rate in rates]
            self._full_at |= {name: rate.full_at for name, rate in zip(names, rates, strict=True)}
        remaining = [Remaining(rate.calls_left(now), rate.resets_in(now) / MICROSECONDS) for rate in rates]
        return RateDecision(wait / MICROSECONDS, remaining, is_shared=False)

    def __len__(self) -> int:
        return len(self._full_at)

    def _name(self, bucket: Bucket, now: int) -> int:
        name = hash((bucket.rule, bucket.subject))
        if name in self._full_at or len(self._full_at) < self._limit:
            return name
        if now >= self._purge_at:
            self._purge_at = now + int(_PURGE_SECONDS * MICROSECONDS)
            self._full_at = {name: full_at for name, full_at in self._full_at.items() if full_at > now}
            if len(self._full_at) < self._limit:
                return name
        return hash((bucket.rule, name % SHARED_BUCKETS))


class FallbackRateLimiter(RateLimiter):
    """Counts for all processes together, and while that is impossible in this process: never not at all.

    The bound of a caller is then that of a healthy Redis for each process, and starts afresh once per outage.
    """

    def __init__(self, shared: RateLimiter, own: RateLimiter, *, retry_seconds: float = RETRY_SECONDS) -> None:
        self._shared = shared
        self._own = own
        self._retry_seconds = retry_seconds
        self._retry_at = 0.0

    async def hit(self, buckets: Sequence[Bucket]) -> RateDecision:
        now = time.monotonic()
        if now >= self._retry_at:
            if self._retry_at:  # only this call tries; the others do not wait for it
                self._retry_at = now + self._retry_seconds
            try:
                decision = await self._shared.hit(buckets)
            except RedisUnavailable:
                self._retry_at = time.monotonic() + self._retry_seconds
            else:
                self._retry_at = 0.0
                return decision
        return await self._own.hit(buckets)
