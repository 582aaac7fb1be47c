"""The connection pool to Redis or Valkey."""

from __future__ import annotations

import asyncio

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from application.ports.runtime import Dependency, Resource
from domain.errors import RedisUnavailable


class RedisConnection(Resource, Dependency):
    name = "redis"

    def __init__(self, url: str, *, command_seconds: float, max_connections: int = 20) -> None:
        self.client = Redis(
            connection_pool=BlockingConnectionPool.from_url(
                url,
                max_connections=max_connections,
                timeout=command_seconds,
                socket_timeout=command_seconds,
                socket_connect_timeout=command_seconds,
                # Once more, at once: a pooled connection may have died with a server that is back.
                retry=Retry(NoBackoff(), 1),
            )
        )

    async def start(self) -> None:
        """Connects at the first command, so a Redis that is away does not stop the start."""

    async def close(self) -> None:
        await self.client.aclose(close_connection_pool=True)

    async def check(self) -> None:
        try:
            async with asyncio.timeout(1):
                await self.client.ping()
        except (RedisError, OSError) as error:
            raise RedisUnavailable from error
