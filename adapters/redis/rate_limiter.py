"""Rate limits: one key a bucket, one round trip a call."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence

from redis.exceptions import NoScriptError

from adapters.redis.connection import RedisConnection
from application.ports.runtime import Bucket, RateLimiter, Room, Verdict

# The generic cell rate algorithm: all that is kept of a bucket is when it will be whole again. A call moves that by
# `interval`, the time that one call has of the window, and has room if it then is at most a window away. Everything in
# whole microseconds of the server's clock; `%.0f`, because Lua would write so large a number with 14 digits only.
_HIT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local wait, whole = 0, {}
for i, key in ipairs(KEYS) do
    local interval, window = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    whole[i] = math.max(tonumber(redis.call('GET', key) or now), now)
    wait = math.max(wait, whole[i] + interval - window - now)
end
local answer = {wait}
for i, key in ipairs(KEYS) do
    local interval, window = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    if wait == 0 then
        whole[i] = whole[i] + interval
        redis.call('SET', key, string.format('%.0f', whole[i]), 'PX', math.ceil((whole[i] - now) / 1000))
    end
    answer[2 * i] = math.floor((now + window - whole[i]) / interval)
    answer[2 * i + 1] = whole[i] - now
end
return answer
"""
_HIT_SHA = hashlib.sha1(_HIT.encode(), usedforsecurity=False).hexdigest()
_MICROSECONDS = 1_000_000


class RedisRateLimiter(RateLimiter):
    def __init__(self, redis: RedisConnection, *, namespace: str, key: bytes) -> None:
        """`key`: what callers are made unrecognisable with; addresses and numbers are too few for a plain hash."""
        self._redis = redis
        self._prefix = f"{namespace}:rate:"
        self._key = key

    async def hit(self, buckets: Sequence[Bucket]) -> Verdict:
        arguments: list[str | int] = [self._name(bucket) for bucket in buckets]
        for bucket in buckets:
            window = int(bucket.rate.seconds * _MICROSECONDS)
            arguments += (window // bucket.rate.calls, window)
        async with self._redis.bounded() as client:
            try:
                answer = await client.evalsha(_HIT_SHA, len(buckets), *arguments)
            except NoScriptError:  # a new server, or its scripts were flushed
                answer = await client.eval(_HIT, len(buckets), *arguments)
        wait, *rooms = answer
        return Verdict(
            wait / _MICROSECONDS,
            [Room(left, whole / _MICROSECONDS) for left, whole in zip(rooms[::2], rooms[1::2], strict=True)],
        )

    def _name(self, bucket: Bucket) -> str:
        digest = hmac.digest(self._key, f"{bucket.rule}\0{bucket.who}".encode(), "sha256")
        return self._prefix + urlsafe_b64encode(digest[:16]).decode().rstrip("=")
