"""Limits without Redis: bounded in memory, and open to nobody."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Sequence
from datetime import timedelta

from adapters.memory.runtime import MemoryClock
from application.ports.runtime import Bucket, RateDecision, RateLimiter
from application.rate_limiting import SHARED_BUCKETS, FallbackRateLimiter, ProcessRateLimiter
from domain.errors import RedisUnavailable
from domain.rates import Rate

RATE = Rate(5, 3600)


def bucket(subject: object, rate: Rate = RATE) -> Bucket:
    return Bucket("signup", str(subject), rate)


async def allowed(limiter: RateLimiter, *buckets: Bucket, calls: int = 20) -> int:
    decisions = [await limiter.hit(buckets) for _ in range(calls)]
    return sum(decision.retry_after == 0 for decision in decisions)


class TestManySubjects:
    async def test_cannot_drop_the_counts_of_others(self) -> None:
        limiter = ProcessRateLimiter(MemoryClock(), limit=1_000)
        assert await allowed(limiter, bucket("known")) == 5
        for number in range(5_000):
            await limiter.hit([bucket(number)])
        assert await allowed(limiter, bucket("known")) == 0

    async def test_share_buckets_when_there_are_too_many(self) -> None:
        limiter = ProcessRateLimiter(MemoryClock(), limit=1_000)
        decisions = [await limiter.hit([bucket(number)]) for number in range(20_000)]
        through = sum(decision.retry_after == 0 for decision in decisions)
        assert 1_000 <= through <= 1_000 + SHARED_BUCKETS * 5
        assert len(limiter) <= 1_000 + SHARED_BUCKETS

    async def test_get_their_own_again_when_others_have_all_their_calls(self) -> None:
        clock = MemoryClock()
        limiter = ProcessRateLimiter(clock, limit=10)
        for number in range(100):
            await limiter.hit([bucket(number)])
        clock.move(timedelta(hours=2))
        for number in range(10):
            assert await allowed(limiter, bucket(f"new {number}")) == 5
        assert len(limiter) <= 11

    async def test_cost_little_memory(self) -> None:
        limiter = ProcessRateLimiter(MemoryClock(), limit=5_000)
        tracemalloc.start()
        try:
            for number in range(7_000):
                await limiter.hit([bucket(f"2001:db8:{number:x}::/64")])
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert size / len(limiter) < 200


class Shared(RateLimiter):
    """Of all processes; `broken`, it cannot be reached."""

    def __init__(self) -> None:
        self.broken = False
        self.calls = 0
        self.gate: asyncio.Event | None = None
        self._counts = ProcessRateLimiter(MemoryClock())

    async def hit(self, buckets: Sequence[Bucket]) -> RateDecision:
        self.calls += 1
        if self.gate:
            await self.gate.wait()
        if self.broken:
            raise RedisUnavailable
        return await self._counts.hit(buckets)


class TestFallback:
    async def test_counts_in_the_process_while_redis_is_unavailable(self) -> None:
        shared = Shared()
        limiter = FallbackRateLimiter(shared, ProcessRateLimiter(MemoryClock()))
        assert await allowed(limiter, bucket("a"), calls=3) == 3
        shared.broken = True
        assert await allowed(limiter, bucket("a")) == 5
        assert await allowed(limiter, bucket("b"), bucket("c", Rate(2, 60))) == 2

    async def test_a_flapping_redis_renews_nothing(self) -> None:
        shared = Shared()
        limiter = FallbackRateLimiter(shared, ProcessRateLimiter(MemoryClock()), retry_seconds=0)
        through = 0
        for number in range(100):
            shared.broken = number % 2 == 0
            through += await allowed(limiter, bucket("a"), calls=1)
        assert through == 10, "once by Redis, and once by the process"

    async def test_few_calls_try_redis_meanwhile(self) -> None:
        shared = Shared()
        limiter = FallbackRateLimiter(shared, ProcessRateLimiter(MemoryClock()), retry_seconds=60)
        shared.broken = True
        await allowed(limiter, bucket("a"), calls=100)
        assert shared.calls == 1

    async def test_only_one_call_waits_for_a_redis_that_hangs(self) -> None:
        shared = Shared()
        limiter = FallbackRateLimiter(shared, ProcessRateLimiter(MemoryClock()), retry_seconds=0.01)
        shared.broken = True
        await limiter.hit([bucket("a")])
        await asyncio.sleep(0.02)
        limiter._retry_seconds = 60  # noqa: SLF001 - a wait that no machine is too slow for
        shared.gate = asyncio.Event()
        waiting = asyncio.create_task(limiter.hit([bucket("a")]))
        await asyncio.sleep(0)
        assert await allowed(limiter, bucket("a"), calls=10) == 4
        shared.gate.set()
        await waiting
        assert shared.calls == 2
