"""Behind poolers in transaction mode: our strict stand-in always, and PgBouncer where it can be had."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack

import asyncpg
import pytest

from adapters.postgres.connection import rows, transaction
from adapters.postgres.database import PostgresUnitOfWork
from adapters.postgres.dsn import read
from adapters.postgres.migrate import migrate, versions
from adapters.postgres.pooler import has_pooler, set_role_settings
from domain.errors import DatabaseUnavailable
from tests.support.database import client, connected, connections_out, execute, new_database
from tests.support.patience import HANG
from tests.support.pgbouncer import pgbouncer, pgbouncer_server
from tests.support.pooler import transaction_pooler

BINARY = pgbouncer()
POOLERS = ["stand-in", *(["pgbouncer"] if BINARY else [])]


@pytest.fixture(scope="module", params=POOLERS)
def pooled_server(postgres_url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    with ExitStack() as stack:
        if request.param == "stand-in":
            url, _ = stack.enter_context(transaction_pooler(postgres_url))
        else:
            assert BINARY is not None
            url = stack.enter_context(pgbouncer_server(BINARY, postgres_url))
        yield url


@pytest.fixture
def pooled(pooled_server: str, postgres_url: str) -> Iterator[str]:
    """A new database, through the pooler."""
    with new_database(postgres_url, migrated=False) as url:
        yield pooled_server.rpartition("/")[0] + "/" + url.rpartition("/")[2]


@pytest.fixture
def direct(pooled: str, postgres_url: str) -> str:
    return postgres_url.rpartition("/")[0] + "/" + pooled.rpartition("/")[2]


async def test_it_is_found(pooled: str, direct: str) -> None:
    assert await has_pooler(read(pooled), seconds=HANG)
    assert not await has_pooler(read(direct), seconds=HANG)


async def test_it_is_as_forgetful_as_the_real_ones(pooled: str) -> None:
    """Else the other tests could not fail: it refuses settings, and loses prepared statements."""
    with pytest.raises(asyncpg.PostgresError, match="unsupported startup parameter: jit"):
        await asyncpg.connect(pooled, server_settings={"jit": "off"})
    async with AsyncExitStack() as stack:

        async def connect() -> asyncpg.Connection:
            connection = await asyncpg.connect(pooled)
            stack.callback(connection.terminate)
            return connection

        async def go_apart() -> None:
            prepared = await (await connect()).prepare("SELECT pg_backend_pid()")
            where = await prepared.fetchval()
            for _ in range(20):  # until another client has the server's connection on which it was prepared
                other = await connect()
                await other.execute("BEGIN")
                if await other.fetchval("SELECT pg_backend_pid()") == where:
                    break
            await prepared.fetchval()

        with pytest.raises(asyncpg.InvalidSQLStatementNameError):
            await go_apart()


async def test_a_pooler_that_is_denied_is_named(pooled: str) -> None:
    """DATABASE_POOLER=off in front of one."""
    async with connected(pooled, pooler=False):
        with pytest.raises(DatabaseUnavailable, match="set DATABASE_POOLER=on"):
            await rows("SELECT 1")


@pytest.mark.parametrize("pooler", [None, True])
async def test_statements_and_transactions(pooled: str, pooler: bool | None) -> None:
    async with connected(pooled, pool=4, pooler=pooler):
        found = await asyncio.gather(*(rows("SELECT $1::int AS n, pg_sleep(0.001)", n) for n in range(100)))
        assert [row["n"] for (row,) in found] == list(range(100))
        assert client().pooler is True

        async def whole(connection: asyncpg.Connection) -> None:
            pids = {await connection.fetchval("SELECT pg_backend_pid()") for _ in range(5)}
            assert len(pids) == 1

        await asyncio.gather(*(transaction(whole) for _ in range(20)))
        async with PostgresUnitOfWork()():
            [first], [second] = await rows("SELECT txid_current() AS id"), await rows("SELECT txid_current() AS id")
            assert first == second
        assert await connections_out() == 0


async def test_a_statement_that_takes_too_long_is_cancelled_on_its_server(pooled: str) -> None:
    async with connected(pooled, pool=1, statement_seconds=0.3):
        with pytest.raises(DatabaseUnavailable):
            await rows("SELECT pg_sleep(162)")
        running = "SELECT count(*) AS n FROM pg_stat_activity WHERE query LIKE '%sleep(162)%' AND state = 'active'"
        async with asyncio.timeout(HANG):
            while (await rows(f"{running} AND pid <> pg_backend_pid()"))[0]["n"]:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)


async def test_migrations_pass_through_it(pooled: str, direct: str) -> None:
    """With indexes built concurrently, and without a lock that stays behind."""
    assert await migrate(pooled) == [version.name for version in versions()]
    assert await execute(direct, "SELECT FROM pg_locks WHERE locktype = 'advisory'") == []
    assert await migrate(pooled, wait_seconds=0) == []
    assert await migrate(direct, wait_seconds=0) == []


async def test_the_role_has_the_settings_that_it_takes_from_nobody_else(pooled: str, direct: str) -> None:
    assert await set_role_settings(direct) is None, "no pooler"
    role = await set_role_settings(pooled)
    assert role is not None
    assert await set_role_settings(pooled) is None, "set already"
    shown = await execute(direct, "SELECT current_setting('jit') AS jit, current_setting('enable_bitmapscan') AS scan")
    assert [tuple(row) for row in shown] == [("off", "off")]
