"""The connection pool, transactions, and the translation of database errors."""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import structlog
from tortoise.backends.asyncpg.client import AsyncpgDBClient, TransactionWrapper
from tortoise.connection import get_connections
from tortoise.exceptions import DBConnectionError, OperationalError, TransactionManagementError

from adapters.postgres.kept import KeptConnections
from domain.errors import DatabaseUnavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")

_TRIES = 5

ALIAS = "default"
APPS = {
    "models": {"models": ["adapters.postgres.tables", "aerich.models"], "default_connection": ALIAS},
}
_UNAVAILABLE = (
    OSError,  # refused, reset, no such host, and TimeoutError
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,  # the connection was lost between two packets of a statement
    asyncpg.InterfaceError,  # the pool is closing, the connection is closed
    asyncpg.OperatorInterventionError,  # shutting down, starting up, statement timed out
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.ReadOnlySQLTransactionError,  # a primary that was demoted
    asyncpg.TransactionRollbackError,  # a deadlock or a conflict: a retry may succeed
    DBConnectionError,
)
_WRAPPED = (OperationalError, TransactionManagementError)  # Tortoise's, around asyncpg's
_MISCONFIGURED = {
    asyncpg.UndefinedTableError: "The database is not migrated. Run: gemini-backend migrate",
    asyncpg.InvalidAuthorizationSpecificationError: "The database refused the user or the password.",
}


class database_errors:  # noqa: N801 - used like a function; as a generator it would cost a microsecond a statement
    """Raise DatabaseUnavailable for errors that mean it: asyncpg's, also when Tortoise has wrapped them."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if not isinstance(error, (*_UNAVAILABLE, *_MISCONFIGURED, *_WRAPPED)):
            return
        cause = error.args[0] if isinstance(error, _WRAPPED) and error.args else error
        detail = next((text for kind, text in _MISCONFIGURED.items() if isinstance(cause, kind)), None)
        if detail is None and not isinstance(cause, _UNAVAILABLE):
            return
        log.warning("database_unavailable", error=type(cause).__name__)
        raise DatabaseUnavailable(detail) from error


async def _reset(connection: Any) -> None:
    """Called on each release. asyncpg's default costs a round trip, which only an open transaction needs."""
    if connection.is_in_transaction():
        await connection.reset()


class _PooledConnection(AbstractAsyncContextManager[asyncpg.Connection]):
    """A pooled connection: acquired within `acquire_seconds`, and always released."""

    def __init__(self, client: PostgresClient) -> None:
        self._client = client

    async def __aenter__(self) -> asyncpg.Connection:
        connections = self._client.kept
        self._connections = await self._client.open_connections() if connections is None else connections
        self._kept = await self._connections.acquire(seconds=self._client.acquire_seconds)
        return self._kept.connection

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self._connections.release(self._kept, failed=kind is not None)


class PostgresClient(AsyncpgDBClient):
    """Tortoise's client, with a timeout for acquiring a connection, and with our errors."""

    def __init__(self, *, acquire_seconds: float = 2.0, **settings: Any) -> None:
        super().__init__(**settings)
        self.acquire_seconds = acquire_seconds
        self.kept: KeptConnections | None = None

    async def open_connections(self) -> KeptConnections:
        async with self._pool_init_lock:
            if self._pool is None:
                await self.create_connection(with_db=True)
            if self.kept is None:
                self.kept = KeptConnections(self._pool)
        return self.kept

    async def _close(self) -> None:
        if self.kept is not None:
            kept, self.kept = self.kept, None
            await kept.close()
        await super()._close()

    async def create_pool(self, **settings: Any) -> Any:
        return await asyncpg.create_pool(None, reset=_reset, **settings)

    def acquire_connection(self) -> Any:
        return _PooledConnection(self)

    async def _translate_exceptions(self, func: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        with database_errors():
            return await super()._translate_exceptions(func, *args, **kwargs)


client_class = PostgresClient  # the name that Tortoise looks up in the engine module


def tortoise_config(url: str, *, engine: str, **credentials: Any) -> dict[str, Any]:
    """Tortoise's configuration for a database; `credentials` go to its client as they are."""
    parts = urlsplit(url)
    mode = parse_qs(parts.query).get("sslmode", ["prefer"])[0]
    return {
        "connections": {
            ALIAS: {
                "engine": engine,
                "credentials": {
                    "host": parts.hostname,
                    "port": parts.port or 5432,
                    "user": unquote(parts.username or "postgres"),
                    "password": unquote(parts.password or ""),
                    "database": parts.path.lstrip("/") or "postgres",
                    "ssl": ssl.create_default_context() if mode == "verify-full" else mode,
                    # Identifies the process in pg_stat_activity.
                    "server_settings": {
                        "application_name": f"gemini-backend {os.getpid()}",
                        "jit": "off",
                        # Postgres estimates every room by the average. For a longer one it would fetch and sort all
                        # messages instead of reading the newest in the order of the index.
                        "enable_bitmapscan": "off",
                    },
                    **credentials,
                },
            }
        },
        "apps": APPS,
        "use_tz": True,
        "timezone": "UTC",
    }


#: For aerich's command line, which derives a migration from the last one, without a connection.
MIGRATION_CONFIG = tortoise_config("postgres://localhost", engine="tortoise.backends.asyncpg")


#: Whether the current task is in a unit of work. Each look-up asks; to find Tortoise's connection takes 2 µs.
IN_TRANSACTION: ContextVar[bool] = ContextVar("in_transaction", default=False)


async def rows(sql: str, *values: object) -> list[Mapping[str, Any]]:
    """Run one statement, in the current transaction if there is one.

    Uses the pool directly: going through Tortoise costs 40 µs more, and every request comes here.
    Raises DatabaseUnavailable, or asyncpg's errors unchanged.
    """
    client = get_connections().get(ALIAS)
    assert isinstance(client, AsyncpgDBClient)

    async def run() -> list[Mapping[str, Any]]:
        async with client.acquire_connection() as connection:
            result: list[Mapping[str, Any]] = await connection.fetch(sql, *values)
            return result

    with database_errors():
        return await (run() if isinstance(client, TransactionWrapper) else retry_on_deadlock(run))


async def retry_on_deadlock(run: Callable[[], Awaitable[T]]) -> T:
    """Run it again when Postgres ended it to resolve a deadlock, which one order of locks does not rule out entirely.

    It had no effect then, provided it is a whole transaction, or a statement outside of one.
    """
    for _ in range(_TRIES - 1):
        try:
            return await run()
        except asyncpg.DeadlockDetectedError:
            log.info("deadlock_retried")
    return await run()


async def transaction(run: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
    """Run several statements in a transaction, or in a savepoint of the current one."""
    client = get_connections().get(ALIAS)
    assert isinstance(client, AsyncpgDBClient)

    async def attempt() -> T:
        async with client.acquire_connection() as connection, connection.transaction():
            return await run(connection)

    with database_errors():
        return await (attempt() if isinstance(client, TransactionWrapper) else retry_on_deadlock(attempt))
