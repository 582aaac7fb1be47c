"""Rate limits: one key a bucket, and one round trip for all calls that come while the last one is under way."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from functools import lru_cache

from redis.exceptions import NoScriptError

from adapters.batching import Batched
from adapters.redis.connection import RedisConnection
from application.ports.runtime import Bucket, RateDecision, RateLimiter, Remaining
from domain.rates import MICROSECONDS

# The rule of domain.rates.CallRate, by the server's clock. `%.0f`, because Lua would write so large a number with 14
# digits only. The arguments of a call are the number of its buckets, and then the interval and the window of each.
_HIT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answer, key, argument = {}, 0, 1
while argument <= #ARGV do
    local buckets, wait, found = tonumber(ARGV[argument]), 0, {}
    for i = 1, buckets do
        local interval, window = tonumber(ARGV[argument + 2 * i - 1]), tonumber(ARGV[argument + 2 * i])
        local full_at = math.max(tonumber(redis.call('GET', KEYS[key + i]) or now), now)
        wait = math.max(wait, full_at + interval - window - now)
        found[i] = {interval, window, full_at}
    end
    answer[#answer + 1] = wait
    for i = 1, buckets do
        local interval, window, full_at = unpack(found[i])
        if wait == 0 then
            full_at = full_at + interval
            redis.call('SET', KEYS[key + i], string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
        end
        answer[#answer + 1] = math.floor((now + window - full_at) / interval)
        answer[#answer + 1] = full_at - now
    end
    key, argument = key + buckets, argument + 1 + 2 * buckets
end
return answer
"""
#: At about 500 bytes each.
_REMEMBERED = 4_096
_HIT_SHA = hashlib.sha1(_HIT.encode(), usedforsecurity=False).hexdigest()


class RedisRateLimiter(RateLimiter):
    def __init__(self, redis: RedisConnection, *, namespace: str, key: bytes) -> None:
        """`key`: what callers are made unrecognisable with; addresses and numbers are too few for a plain hash."""
        self._redis = redis
        self._prefix = f"{namespace}:rate:"
        self._key = key
        #: Callers come again, and each name takes a hash.
        self._described = lru_cache(_REMEMBERED)(self._describe)
        self._hit: Batched[Sequence[Bucket], RateDecision] = Batched(self._ask)

    async def hit(self, buckets: Sequence[Bucket]) -> RateDecision:
        return await self._hit(buckets)

    async def _ask(self, calls: Sequence[Sequence[Bucket]]) -> list[RateDecision]:
        names: list[str] = []
        arguments: list[int] = []
        for buckets in calls:
            arguments.append(len(buckets))
            for bucket in buckets:
                name, interval, window = self._described(bucket)
                names.append(name)
                arguments += (interval, window)
        async with self._redis.bounded() as client:
            try:
                numbers = await client.evalsha(_HIT_SHA, len(names), *names, *arguments)
            except NoScriptError:  # a new server, or its scripts were flushed
                numbers = await client.eval(_HIT, len(names), *names, *arguments)
        answer = iter(numbers)
        return [
            RateDecision(
                next(answer) / MICROSECONDS, [Remaining(next(answer), next(answer) / MICROSECONDS) for _ in buckets]
            )
            for buckets in calls
        ]

    def _describe(self, bucket: Bucket) -> tuple[str, int, int]:
        """Its key, its interval and its window."""
        return self._name(bucket), bucket.rate.interval, bucket.rate.window

    def _name(self, bucket: Bucket) -> str:
        digest = hmac.digest(self._key, f"{bucket.rule}\0{bucket.subject}".encode(), "sha256")
        return self._prefix + urlsafe_b64encode(digest[:16]).decode().rstrip("=")
