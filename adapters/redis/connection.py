"""The connection pool to Redis or Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from adapters.redis.facts import facts
from adapters.redis_clients import redis_client
from application.ports.runtime import Dependency, Described, Fact, Resource
from domain.errors import RedisUnavailable

log = structlog.get_logger(__name__)


class RedisConnection(Resource, Dependency, Described):
    name = "redis"

    def __init__(self, url: str, *, command_seconds: float, max_connections: int = 20) -> None:
        self._has_tls = url.startswith("rediss")
        self._command_seconds = command_seconds
        self.client = redis_client(url, command_seconds=command_seconds, max_connections=max_connections)

    async def start(self) -> None:
        """Connects at the first command, so an unavailable Redis does not stop the start."""

    async def close(self) -> None:
        await self.client.aclose(close_connection_pool=True)

    async def check(self) -> None:
        async with self.bounded() as client:
            await client.ping()

    async def describe(self) -> list[Fact]:
        async with self.bounded() as client:
            return await facts(client, has_tls=self._has_tls)

    @asynccontextmanager
    async def bounded(self) -> AsyncIterator[Redis]:
        """The client, for as long as a command may take, retries included. Raises RedisUnavailable."""
        try:
            async with asyncio.timeout(self._command_seconds):
                yield self.client
        except (RedisError, OSError) as error:
            log.warning("redis_unavailable", error=type(error).__name__)
            raise RedisUnavailable from error
