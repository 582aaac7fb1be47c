"""Below the ORM: the state of connections, and new databases for tests."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import Context
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
from tortoise.connection import get_connections
from tortoise.context import TortoiseContext

from adapters.postgres.connection import ALIAS, PostgresClient, rows
from adapters.postgres.database import Postgres
from adapters.postgres.migrate import migrate
from tests.support.patience import HANG

T = TypeVar("T")


def client() -> PostgresClient:
    found = get_connections().get(ALIAS)
    assert isinstance(found, PostgresClient)
    return found


async def open_pool() -> Any:
    """asyncpg's pool under the current connection."""
    await client().open_connections()
    return client()._pool  # noqa: SLF001 - Tortoise's


async def connections_in_use() -> int:
    """Those that are neither in the pool nor kept for the next use."""
    pool, kept = await open_pool(), await client().open_connections()
    return int(pool.get_size() - pool.get_idle_size()) - kept.free


async def connections_out(*, seconds: float = HANG) -> int:
    """The number of connections in use, once it is 0 or the time is over: a cancelled task returns its connection a
    moment later."""
    give_up = time.monotonic() + seconds
    while (out := await connections_in_use()) and time.monotonic() < give_up:  # noqa: ASYNC110 - no event to wait on
        await asyncio.sleep(0.01)
    return out


async def open_transactions(*, seconds: float = HANG) -> list[str]:
    """Transactions that other clients of this database still run, once there are none or the time is over: the server
    notices a moment later that a client has left. The server's own workers, such as autovacuum, do not count."""
    give_up = time.monotonic() + seconds
    while (open_ones := await rows(OPEN_TRANSACTIONS)) and time.monotonic() < give_up:  # noqa: ASYNC110 - no event to wait on
        await asyncio.sleep(0.01)
    return [f"{row['state']}: {row['query']}" for row in open_ones]


OPEN_TRANSACTIONS = (
    "SELECT state, query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend' AND xact_start IS NOT NULL"
)


@asynccontextmanager
async def connected(
    url: str, *, pool: int = 5, acquire_seconds: float = 2, statement_seconds: float = HANG, pooler: bool | None = None
) -> AsyncIterator[Postgres]:
    """The Postgres adapter on another database, beside the container's."""
    postgres = Postgres(
        url, pool=pool, acquire_seconds=acquire_seconds, statement_seconds=statement_seconds, pooler=pooler
    )
    # Not start(): Tortoise has at most one global context, and that is the container's.
    async with TortoiseContext() as tortoise:
        await tortoise.init(config=postgres.config)
        yield postgres


def pooled(url: str) -> str:
    """The same database through the pooler that the tests are run behind, if they are: see test_behind_a_pooler.py."""
    through = os.environ.get("TEST_POOLED_URL")
    return f"{through.rpartition('/')[0]}/{url.rpartition('/')[2]}" if through else url


@contextmanager
def new_database(server_url: str, *, migrated: bool = True) -> Iterator[str]:
    """A new database on a server, dropped afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    url = urlsplit(server_url)._replace(path=f"/{name}").geturl()
    asyncio.run(execute(server_url, f'CREATE DATABASE "{name}"'))
    try:
        if migrated:
            asyncio.run(migrate(url))
        yield url
    finally:
        asyncio.run(execute(server_url, f'DROP DATABASE "{name}" WITH (FORCE)'))


def run_apart(coroutine: Coroutine[Any, Any, T]) -> T:
    """In a separate loop and context, for code that leaves something in its context."""
    return Context().run(asyncio.run, coroutine)


async def execute(url: str, sql: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(sql))
    finally:
        await connection.close()
