"""The connection pool, transactions, and the translation of database errors."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import asyncpg
import structlog
from tortoise.backends.asyncpg.client import AsyncpgDBClient, TransactionWrapper
from tortoise.connection import get_connections

from adapters.postgres.dsn import Dsn, read
from adapters.postgres.faults import WRAPPED, SettingRefused, is_read_only, translated
from adapters.postgres.hosts import Hosts
from adapters.postgres.kept import KeptConnections
from domain.errors import DatabaseUnavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")

_TRIES = 5

ALIAS = "default"
APPS = {
    "models": {"models": ["adapters.postgres.tables", "aerich.models"], "default_connection": ALIAS},
}


class database_errors:  # noqa: N801 - used like a function; as a generator it would cost a microsecond a statement
    """Raise DatabaseUnavailable for errors that mean it: asyncpg's, also when Tortoise has wrapped them.

    `hosts` names the database where none is connected yet.
    """

    __slots__ = ("_hosts",)

    def __init__(self, hosts: str = "") -> None:
        self._hosts = hosts

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, DatabaseUnavailable):
            return
        if unavailable := translated(error, self._hosts or _current_hosts()):
            cause = error.args[0] if isinstance(error, WRAPPED) and error.args else error
            log.warning("database_unavailable", error=type(cause).__name__, cause=unavailable.cause)
            raise unavailable from error


def _current_hosts() -> str:
    client = get_connections().get(ALIAS)
    if isinstance(client, TransactionWrapper):
        client = client._parent  # noqa: SLF001 - it has no address itself
    return client.dsn.hosts if isinstance(client, PostgresClient) else ""


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

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        try:
            if error is not None and is_read_only(error):
                await self._client.expire()
        finally:
            await self._connections.release(self._kept, failed=kind is not None)


class PostgresClient(AsyncpgDBClient):
    """Tortoise's client on any DSN, with a timeout for acquiring a connection, and with our errors.

    `pooler`: whether there is one that shares sessions among clients; if None, the first connection finds it out.
    Without `own_errors` asyncpg's and Tortoise's are raised, as aerich expects.
    """

    def __init__(
        self,
        *,
        dsn: Dsn,
        pooler: bool | None = None,
        acquire_seconds: float = 2.0,
        own_errors: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.dsn = dsn
        self._hosts = Hosts(dsn)
        self.pooler = pooler
        self.acquire_seconds = acquire_seconds
        self.kept: KeptConnections | None = None
        self._own_errors = own_errors

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
        for name in ("host", "port", "user", "password", "database", "server_settings"):
            settings.pop(name, None)  # they are in the DSN
        if self.pooler is None:
            from adapters.postgres.pooler import has_pooler  # imported here: its statement is run by this module

            self.pooler = await has_pooler(self.dsn, seconds=self.acquire_seconds)
        with _connecting():
            return await asyncpg.create_pool(
                self.dsn.url,
                connect=self._hosts.connect,
                reset=_reset,
                **self.dsn.arguments,
                **_session(self.dsn, self.pooler),
                **settings,
            )

    async def expire(self) -> None:
        """Replace all connections: their server has become read-only, and another host may have taken over."""
        if self._pool is not None:
            await self._pool.expire_connections()
        if self.kept is not None:
            await self.kept.clear()

    def acquire_connection(self) -> Any:
        return _PooledConnection(self)

    async def _translate_exceptions(self, func: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        if not self._own_errors:
            return await super()._translate_exceptions(func, *args, **kwargs)
        with database_errors():
            return await super()._translate_exceptions(func, *args, **kwargs)


client_class = PostgresClient  # the name that Tortoise looks up in the engine module


async def connect(dsn: Dsn, *, seconds: float, **settings: str) -> asyncpg.Connection:
    """A connection outside of the pool, which works behind a pooler too."""
    with _connecting():
        return await Hosts(dsn).connect(
            dsn.url,
            **dsn.arguments,
            server_settings={**dsn.settings, **settings},
            statement_cache_size=0,
            timeout=dsn.connect_seconds or seconds,
        )


@contextmanager
def _connecting() -> Iterator[None]:
    """In a statement these would be a defect; of a connection they concern the settings in its URL."""
    try:
        yield
    except (asyncpg.UndefinedObjectError, asyncpg.InvalidParameterValueError, asyncpg.CantChangeRuntimeParamError):
        raise SettingRefused from None


def _session(dsn: Dsn, pooler: bool) -> dict[str, Any]:
    """A pooler in transaction mode refuses or forgets settings, and loses prepared statements."""
    if pooler:
        return {"server_settings": dict(dsn.settings), "statement_cache_size": 0}
    # The name identifies the process in pg_stat_activity.
    return {"server_settings": {"application_name": f"gemini-backend {os.getpid()}", **SETTINGS, **dsn.settings}}


#: For sessions. Behind a pooler `migrate` sets them for the role.
SETTINGS = {
    "jit": "off",
    # Postgres estimates every room by the average. For a longer one it would fetch and sort all messages instead of
    # reading the newest in the order of the index.
    "enable_bitmapscan": "off",
    # An empty month costs nothing to read, so that it would read and sort all of a long room.
    "enable_seqscan": "off",
}


def tortoise_config(url: str, *, pool: int = 5, **credentials: Any) -> dict[str, Any]:
    """Tortoise's configuration for a database; `credentials` go to its client as they are. Raises DsnError."""
    dsn = read(url)
    seconds = {"timeout": dsn.connect_seconds} if dsn.connect_seconds else {}
    credentials.setdefault("pooler", None)
    if credentials["pooler"] is None:
        credentials["pooler"] = dsn.pooled
    return {
        "connections": {
            ALIAS: {
                "engine": __name__,
                "credentials": {"dsn": dsn, "maxsize": min(pool, dsn.pool or pool), **credentials, **seconds},
            }
        },
        "apps": APPS,
        "use_tz": True,
        "timezone": "UTC",
    }


#: For aerich's command line, which derives a migration from the last one, without a connection. With a user: without
#: one the driver asks the system, where a container's user has no name.
MIGRATION_CONFIG = tortoise_config("postgres://nobody@localhost/nothing")


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
