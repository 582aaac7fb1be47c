"""Rate limits: exactly as many get through as have room, and nothing tells who they were."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from adapters.memory.runtime import MemoryClock
from adapters.redis.connection import RedisConnection
from adapters.redis.rate_limiter import RedisRateLimiter
from application.ports.runtime import Bucket, RateLimiter
from application.rate_limiting import ProcessRateLimiter
from domain.errors import RedisUnavailable
from domain.rates import Rate
from entrypoints.container import Container
from tests.support.ports import free_port

HOUR = 3600


@dataclass
class World(ABC):
    limiter: RateLimiter

    @abstractmethod
    async def wait(self, seconds: float) -> None: ...


@dataclass
class InProcess(World):
    clock: MemoryClock

    async def wait(self, seconds: float) -> None:
        self.clock.move(timedelta(seconds=seconds))


@dataclass
class InRedis(World):
    url: str
    namespace: str

    async def wait(self, seconds: float) -> None:
        """The clock is the server's, so what is kept is moved instead: the moment at which each bucket is whole."""
        async with Redis.from_url(self.url) as redis:
            for name in await redis.keys(f"{self.namespace}:rate:*"):
                whole, left = int(await redis.get(name) or 0), await redis.pttl(name) - int(seconds * 1_000)
                if left > 0:
                    await redis.set(name, whole - int(seconds * 1_000_000), px=left)
                else:
                    await redis.delete(name)


@pytest.fixture(params=["process", "redis"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "process":
        clock = MemoryClock()
        return InProcess(ProcessRateLimiter(clock), clock)
    container: Container = request.getfixturevalue("container")
    settings = container.settings()
    return InRedis(container.rate_limiter(), settings.redis.url.get_secret_value(), settings.redis.namespace)


def bucket(calls: int, seconds: float = HOUR, *, rule: str = "login", subject: str = "") -> Bucket:
    return Bucket(rule, subject or secrets.token_hex(4), Rate(calls, seconds))


@pytest.mark.parametrize("calls", [1, 2, 3, 5, 7, 30, 150])
async def test_so_many_and_no_more(world: World, calls: int) -> None:
    one = bucket(calls)
    for left in reversed(range(calls)):
        decision = await world.limiter.hit([one])
        assert decision.retry_after == 0
        assert [remaining.calls for remaining in decision.remaining] == [left]
    refused = await world.limiter.hit([one])
    assert HOUR / calls * 0.9 < refused.retry_after <= HOUR / calls
    assert refused.remaining[0].calls == 0
    assert HOUR * 0.9 < refused.remaining[0].resets_in <= HOUR


async def test_of_many_at_once_exactly_those_with_room(world: World) -> None:
    one, wide = bucket(10), bucket(1_000)
    decisions = await asyncio.gather(*(world.limiter.hit([one, wide]) for _ in range(200)))
    assert sorted(decision.remaining[0].calls for decision in decisions if not decision.retry_after) == list(range(10))
    assert sum(decision.retry_after > 0 for decision in decisions) == 190


async def test_a_refused_call_is_counted_nowhere(world: World) -> None:
    narrow, wide = bucket(1), bucket(10)
    await world.limiter.hit([narrow, wide])
    for _ in range(5):
        refused = await world.limiter.hit([wide, narrow])
        assert refused.retry_after > 0
        assert [remaining.calls for remaining in refused.remaining] == [9, 0]
    assert (await world.limiter.hit([wide])).remaining[0].calls == 8


async def test_room_comes_back_evenly(world: World) -> None:
    one = bucket(4, 200)
    for _ in range(4):
        assert not (await world.limiter.hit([one])).retry_after
    refused = await world.limiter.hit([one])
    assert 0 < refused.retry_after <= 50
    await world.wait(refused.retry_after)
    assert not (await world.limiter.hit([one])).retry_after
    assert (await world.limiter.hit([one])).retry_after
    await world.wait(201)
    assert (await world.limiter.hit([one])).remaining[0].calls == 3


async def test_rules_and_callers_are_apart(world: World) -> None:
    one = bucket(1, subject="192.0.2.1")
    await world.limiter.hit([one])
    assert (await world.limiter.hit([one])).retry_after
    assert not (await world.limiter.hit([bucket(1, subject="192.0.2.2")])).retry_after
    assert not (await world.limiter.hit([bucket(1, subject="192.0.2.1", rule="signup")])).retry_after


async def test_what_is_kept_tells_nobody_who_called(container: Container) -> None:
    redis: Any = container.redis()
    subject = "2001:db8:1234:5678::/64"
    before = set(await redis.client.keys("*:rate:*"))
    await container.rate_limiter().hit([bucket(5, subject=subject)])
    (key,) = set(await redis.client.keys("*:rate:*")) - before
    plain = f"login\0{subject}".encode()
    assert subject not in key.decode()
    assert hashlib.sha256(plain).hexdigest()[:16] not in key.decode()
    assert (await redis.client.get(key)).isdigit()
    assert 0 < await redis.client.pttl(key) <= HOUR / 5 * 1000
    other = RedisRateLimiter(redis, namespace="test", key=b"another key")
    assert other._name(bucket(5, subject=subject)).rsplit(":")[-1] != key.decode().rsplit(":")[-1]  # noqa: SLF001


async def test_it_survives_that_the_server_forgets_its_scripts(container: Container) -> None:
    one = bucket(3)
    await container.rate_limiter().hit([one])
    await container.redis().client.script_flush()
    assert (await container.rate_limiter().hit([one])).remaining[0].calls == 1


async def test_without_redis_it_says_so() -> None:
    away = RedisConnection(f"redis://127.0.0.1:{free_port()}/0", command_seconds=0.5)
    with pytest.raises(RedisUnavailable):
        await RedisRateLimiter(away, namespace="test", key=b"key").hit([bucket(1)])
    await away.close()
