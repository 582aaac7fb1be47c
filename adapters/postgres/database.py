"""The database as a resource and a dependency, and its units of work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg
from tortoise import Tortoise
from tortoise.backends.asyncpg.client import TransactionWrapper
from tortoise.connection import get_connections

from adapters.postgres.connection import ALIAS, IN_TRANSACTION, PostgresClient, database_errors, tortoise_config
from adapters.postgres.facts import facts
from adapters.postgres.statements import Statements
from application.ports.runtime import Dependency, Described, Fact, Resource, UnitOfWork

SQL = Statements("database")


class Postgres(Resource, Dependency, Described):
    name = "postgres"

    def __init__(
        self,
        url: str,
        *,
        pool: int,
        acquire_seconds: float,
        statement_seconds: float,
        pooler: bool | None = None,
    ) -> None:
        self._pool = pool
        self.config = tortoise_config(
            url,
            pool=pool,
            pooler=pooler,
            acquire_seconds=acquire_seconds,
            timeout=acquire_seconds,
            command_timeout=statement_seconds,
        )

    async def start(self) -> None:
        """Connects with the first statement, so the process starts without its database."""
        # Sanic and Taskiq run handlers in separate contexts, where Tortoise finds its connections by the fallback only.
        await Tortoise.init(config=self.config, _enable_global_fallback=True)

    async def close(self) -> None:
        await Tortoise.close_connections()

    async def check(self) -> None:
        with database_errors():
            async with asyncio.timeout(1):
                [found] = await SQL.find_tables()
            if found["is_read_only"]:
                await _replace_connections()
                raise asyncpg.ReadOnlySQLTransactionError

    async def describe(self) -> list[Fact]:
        client = get_connections().get(ALIAS)
        assert isinstance(client, PostgresClient)
        with database_errors():
            async with client.acquire_connection() as connection:
                return await facts(connection, pool=self._pool)


async def _replace_connections() -> None:
    client = get_connections().get(ALIAS)
    if isinstance(client, PostgresClient):
        await client.expire()


class PostgresUnitOfWork(UnitOfWork):
    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        # Tortoise's in_transaction() leaks its connection when the task is cancelled while the transaction begins,
        # and a client that disconnects cancels its request's task.
        client = get_connections().get(ALIAS)
        assert isinstance(client, PostgresClient), "units of work do not nest"
        with database_errors():
            async with client.acquire_connection() as connection, connection.transaction():
                wrapper = TransactionWrapper(client)
                wrapper._connection = connection  # noqa: SLF001 - as Tortoise's context does
                token, mark = get_connections().set(ALIAS, wrapper), IN_TRANSACTION.set(True)
                try:
                    yield
                finally:
                    IN_TRANSACTION.reset(mark)
                    get_connections().reset(token)

    def __call__(self) -> AbstractAsyncContextManager[None]:
        return self._transaction()
