"""The connection pool to Redis or Valkey."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from adapters.redis.facts import facts
from adapters.redis_causes import Cause, cause_of, cause_of_all, cause_of_greeting, looked_at
from adapters.redis_clients import redis_client
from adapters.redis_url import parse_redis_url
from application.ports.runtime import Dependency, Described, Fact, Resource, Verified
from domain.errors import RedisMisconfigured, RedisUnavailable

log = structlog.get_logger(__name__)

#: Two keys, which no Cluster accepts; and a write, which fails where PING does not: full, read-only, unable to save.
_WRITE = "redis.call('SET', KEYS[1], '1', 'PX', 10000) return redis.call('GET', KEYS[2])"
_PROBE_MS = 10_000


class RedisConnection(Resource, Dependency, Described, Verified):
    name = "redis"

    def __init__(
        self, url: str, *, command_seconds: float, namespace: str = "gemini-backend", max_connections: int = 20
    ) -> None:
        self._url = parse_redis_url(url)
        self._namespace = namespace
        self._command_seconds = command_seconds
        self.client = redis_client(url, command_seconds=command_seconds, max_connections=max_connections)

    async def start(self) -> None:
        """Connects at the first command, so an unavailable Redis does not stop the start."""

    async def close(self) -> None:
        await self.client.aclose(close_connection_pool=True)

    async def check(self) -> None:
        async with self.bounded() as client:
            await client.eval(_WRITE, 2, f"{self._namespace}:ready:1", f"{self._namespace}:ready:2")

    async def describe(self) -> list[Fact]:
        async with self.bounded() as client:
            return await facts(client, has_tls=self._url.tls is not None)

    async def verify(self) -> None:
        """Use each command that the product uses, on keys and channels that expire or end by themselves."""
        try:
            async with asyncio.timeout(self._command_seconds):
                cause = await self._probe()
        except (RedisError, OSError) as error:
            cause = await looked_at(self._url, cause_of(error), seconds=self._command_seconds)
        if cause:
            raise self._unavailable(cause)

    async def _probe(self) -> Cause | None:
        try:
            hello: Any = await self.client.execute_command("HELLO")  # type: ignore[no-untyped-call]
            if cause := cause_of_greeting(dict(zip(hello[::2], hello[1::2], strict=False))):
                return cause
        except ResponseError as error:  # a proxy need not know it, and what does refuse us refuses more
            if "unknown command" not in str(error).lower():
                raise
        await self.check()
        errors = [reply for reply in await self._use_all() if isinstance(reply, Exception)]
        try:
            async with self.client.pubsub() as pubsub:
                await pubsub.subscribe(f"{self._namespace}:reply:check")
                await pubsub.parse_response(timeout=self._command_seconds)
                await pubsub.unsubscribe()
        except NoPermissionError as error:
            errors.append(error)
        return cause_of_all(errors)

    async def _use_all(self) -> Sequence[Any]:
        key = f"{self._namespace}:check:{secrets.token_hex(8)}"
        stream = f"{key}:stream"
        pipeline = self.client.pipeline(transaction=False)
        pipeline.set(key, "1", px=_PROBE_MS)
        pipeline.get(key)
        pipeline.time()
        pipeline.xgroup_create(stream, "check", id="0", mkstream=True)
        pipeline.pexpire(stream, _PROBE_MS)
        pipeline.xadd(stream, {"t": "1"})
        pipeline.xadd(stream, {"t": "2"}, minid="0", approximate=False)
        pipeline.xrange(stream)
        pipeline.xrevrange(stream)
        pipeline.xreadgroup("check", "check", {stream: ">"})
        pipeline.xack(stream, "check", "0-1")
        pipeline.xdel(stream, "0-1")
        pipeline.xgroup_delconsumer(stream, "check", "check")
        pipeline.publish(f"{self._namespace}:reply:check", "")
        pipeline.script_load(_WRITE)
        pipeline.ping()
        replies: Sequence[Any] = await pipeline.execute(raise_on_error=False)
        return replies

    @asynccontextmanager
    async def bounded(self) -> AsyncIterator[Redis]:
        """The client, for as long as a command may take, retries included. Raises RedisUnavailable."""
        try:
            async with asyncio.timeout(self._command_seconds):
                yield self.client
        except (RedisError, OSError) as error:
            unavailable = self._unavailable(cause_of(error))
            log.warning("redis_unavailable", error=type(error).__name__, cause=unavailable.cause)
            raise unavailable from error

    def _unavailable(self, cause: Cause) -> RedisUnavailable:
        kind = RedisMisconfigured if cause.is_permanent else RedisUnavailable
        return kind(cause=f"REDIS_URL, {self._url.place}: {cause.words}.", state=cause.state)
