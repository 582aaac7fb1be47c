"""Rate limits: one key a bucket, and one round trip for all calls that come while the last one is under way."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from contextvars import Context

from redis.exceptions import NoScriptError

from adapters.redis.connection import RedisConnection
from application.ports.runtime import Bucket, RateLimiter, Room, Verdict

# The generic cell rate algorithm: all that is kept of a bucket is when it will be whole again. A call moves that by
# `interval`, the time that one call has of the window, and has room if it then is at most a window away. Everything in
# whole microseconds of the server's clock; `%.0f`, because Lua would write so large a number with 14 digits only.
# A call's arguments are how many buckets it has, and then the interval and the window of each.
_HIT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answer, key, argument = {}, 0, 1
while argument <= #ARGV do
    local buckets, wait, found = tonumber(ARGV[argument]), 0, {}
    for i = 1, buckets do
        local interval, window = tonumber(ARGV[argument + 2 * i - 1]), tonumber(ARGV[argument + 2 * i])
        local whole = math.max(tonumber(redis.call('GET', KEYS[key + i]) or now), now)
        wait = math.max(wait, whole + interval - window - now)
        found[i] = {interval, window, whole}
    end
    answer[#answer + 1] = wait
    for i = 1, buckets do
        local interval, window, whole = unpack(found[i])
        if wait == 0 then
            whole = whole + interval
            redis.call('SET', KEYS[key + i], string.format('%.0f', whole), 'PX', math.ceil((whole - now) / 1000))
        end
        answer[#answer + 1] = math.floor((now + window - whole) / interval)
        answer[#answer + 1] = whole - now
    end
    key, argument = key + buckets, argument + 1 + 2 * buckets
end
return answer
"""
_HIT_SHA = hashlib.sha1(_HIT.encode(), usedforsecurity=False).hexdigest()
_MICROSECONDS = 1_000_000
_CALLS_AT_ONCE = 100

_Waiting = tuple[Sequence[Bucket], "asyncio.Future[Verdict]"]


class RedisRateLimiter(RateLimiter):
    def __init__(self, redis: RedisConnection, *, namespace: str, key: bytes) -> None:
        """`key`: what callers are made unrecognisable with; addresses and numbers are too few for a plain hash."""
        self._redis = redis
        self._prefix = f"{namespace}:rate:"
        self._key = key
        self._waiting: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None

    async def hit(self, buckets: Sequence[Bucket]) -> Verdict:
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._waiting.append((buckets, verdict))
        if self._task is None:  # in a context of its own: it works for others, too
            self._task = asyncio.get_running_loop().create_task(self._work(), context=Context())
        return await verdict

    async def _work(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # all that are ready now come along
                calls = self._waiting[:_CALLS_AT_ONCE]
                del self._waiting[:_CALLS_AT_ONCE]
                try:
                    verdicts = await self._ask([buckets for buckets, _ in calls])
                except Exception as error:  # noqa: BLE001 - whatever it is, nobody may be left waiting
                    calls += self._waiting  # they would meet the same
                    self._waiting = []
                    for _, future in calls:
                        if not future.done():
                            future.set_exception(error)
                else:
                    for (_, future), verdict in zip(calls, verdicts, strict=True):
                        if not future.done():
                            future.set_result(verdict)
        finally:
            self._task = None

    async def _ask(self, calls: Sequence[Sequence[Bucket]]) -> list[Verdict]:
        names = [self._name(bucket) for buckets in calls for bucket in buckets]
        arguments: list[int] = []
        for buckets in calls:
            arguments.append(len(buckets))
            for bucket in buckets:
                window = int(bucket.rate.seconds * _MICROSECONDS)
                arguments += (window // bucket.rate.calls, window)
        async with self._redis.bounded() as client:
            try:
                numbers = await client.evalsha(_HIT_SHA, len(names), *names, *arguments)
            except NoScriptError:  # a new server, or its scripts were flushed
                numbers = await client.eval(_HIT, len(names), *names, *arguments)
        answer = iter(numbers)
        return [
            Verdict(next(answer) / _MICROSECONDS, [Room(next(answer), next(answer) / _MICROSECONDS) for _ in buckets])
            for buckets in calls
        ]

    def _name(self, bucket: Bucket) -> str:
        digest = hmac.digest(self._key, f"{bucket.rule}\0{bucket.who}".encode(), "sha256")
        return self._prefix + urlsafe_b64encode(digest[:16]).decode().rstrip("=")
