"""Clients of Redis or Valkey: the one place that makes them, so that all have the same timeouts and the same retry."""

from __future__ import annotations

from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


def connection_options(*, command_seconds: float, block_seconds: float = 0) -> dict[str, Any]:
    """What every pool is made with; `block_seconds` is how long a command may wait in the server by itself."""
    return {
        "timeout": command_seconds,  # for a connection out of the pool
        "socket_connect_timeout": command_seconds,
        "socket_timeout": block_seconds + command_seconds,
        # Managed services drop idle connections, and servers restart: a pooled connection may be dead, so a command
        # is repeated once, at once, on a new one. A pool made by hand does not retry by default (redis-py#4252).
        "retry": Retry(NoBackoff(), 1),
    }


def redis_client(url: str, *, command_seconds: float, max_connections: int, **options: Any) -> Redis:
    """A client with its own pool; it connects at the first command."""
    return Redis(
        connection_pool=BlockingConnectionPool.from_url(
            url, max_connections=max_connections, **connection_options(command_seconds=command_seconds), **options
        )
    )
