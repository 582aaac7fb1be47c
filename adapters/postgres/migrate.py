"""Applies migrations, which aerich writes, one at a time and without stopping the service."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import asyncpg
import structlog
from aerich import Command
from aerich.models import Aerich
from aerich.utils import decompress_dict, import_py_file
from tortoise import BaseDBAsyncClient
from tortoise.connection import get_connections
from tortoise.context import TortoiseContext
from tortoise.exceptions import OperationalError
from tortoise.transactions import in_transaction

from adapters.postgres.connection import ALIAS, connect, database_errors, tortoise_config
from adapters.postgres.dsn import read
from adapters.postgres.pooler import CONNECT_SECONDS
from adapters.postgres.statements import Statements
from adapters.postgres.steps import LIMITS, LOCK, MigrationRefused, Recorder, patience, retry_while_locked
from domain.errors import DatabaseUnavailable

log = structlog.get_logger(__name__)

SQL = Statements("migrations")

T = TypeVar("T")

LOCATION = str(Path(__file__).parent / "migrations")
PATIENCE_SECONDS = 600.0
_APP = "models"
_LEASE_SECONDS = 30
# A statement without a snapshot: CREATE INDEX CONCURRENTLY would wait for the end of this transaction if it had one.
_RENEW = f"SET LOCAL idle_in_transaction_session_timeout = '{_LEASE_SECONDS}s'"
_DOES_NOT_FIT = (
    asyncpg.DuplicateTableError,
    asyncpg.DuplicateColumnError,
    asyncpg.DuplicateObjectError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedObjectError,
)
_RESTORE = (
    "This looks like a backup that was restored over a newer database. Restore it into an empty one, as"
    " docs/operations.md describes, and run migrate there."
)


@dataclass(frozen=True)
class Version:
    """A migration: a file of `migrations/models`."""

    name: str
    module: ModuleType

    @property
    def in_transaction(self) -> bool:
        return bool(getattr(self.module, "RUN_IN_TRANSACTION", True))

    async def statements(self) -> list[str]:
        """What it runs, without a database; loops over rows appear once."""
        recorder = Recorder()
        await recorder.execute_script(await self.module.upgrade(recorder))
        return [statement.strip() for statement in recorder.statements if statement.strip()]


@dataclass(frozen=True)
class State:
    applied: list[str]
    pending: list[Version]

    @property
    def unknown(self) -> list[str]:
        """Applied by a later version of the product."""
        known = {version.name for version in versions()}
        return [name for name in self.applied if name not in known]


def versions(location: str = LOCATION) -> list[Version]:
    files = sorted(Path(location, "models").glob("[0-9]*_*.py"), key=lambda file: int(file.name.partition("_")[0]))
    return [Version(file.name, import_py_file(file)) for file in files]


@asynccontextmanager
async def aerich_command(url: str, *, location: str = LOCATION) -> AsyncIterator[Command]:
    """aerich for this database. It has a Tortoise context to itself, since it would use any that is active."""
    config = tortoise_config(url, own_errors=False)
    async with TortoiseContext() as tortoise:
        await tortoise.init(config=config)
        command = Command(config, location=location)
        await command.init()
        yield command


async def state(url: str) -> State:
    """Which migrations were applied, and which are pending. Raises DatabaseUnavailable."""
    with database_errors(read(url).hosts):
        connection = await _connect(url)
        try:
            return await _state(connection)
        finally:
            await connection.close()


async def migrate(url: str, *, location: str = LOCATION, wait_seconds: float = PATIENCE_SECONDS) -> list[str]:
    """Apply pending migrations and return their names. Concurrent callers wait for each other.

    What is locked by others is tried again for `wait_seconds`. Killed at any point, it is continued by the next run.
    Raises DatabaseUnavailable, and MigrationRefused where waiting longer does not help.
    """
    with database_errors(read(url).hosts), patience(wait_seconds):
        guard = await _connect(url)
        try:
            await _lock(guard, wait_seconds)
            return await _while_locked(guard, lambda: _upgrade(url, location))
        finally:
            guard.terminate()  # ends its transaction, and with it the lock


async def _connect(url: str) -> asyncpg.Connection:
    return await connect(read(url), seconds=CONNECT_SECONDS)


async def _lock(guard: asyncpg.Connection, wait_seconds: float) -> None:
    """Lock this database for migrations, in a transaction that stays open.

    The lock ends with the transaction: also when its owner is killed, behind a pooler too, where a lock of the session
    would stay on a shared connection; and when its owner hangs, after the lease.
    """
    give_up = time.monotonic() + wait_seconds
    while True:
        await guard.execute(f"BEGIN; {_RENEW}")
        if (await SQL.lock_migrations.on(guard, key=LOCK))[0]["is_locked"]:
            await guard.execute(_RENEW)  # also ends the snapshot of the last statement
            return
        await guard.execute("ROLLBACK")
        if time.monotonic() >= give_up:
            [holder] = await SQL.lock_holder.on(guard, key=LOCK) or [{"pid": "unknown"}]
            raise MigrationRefused(
                f"Another migrate has held its lock for {wait_seconds:.0f} s (pid {holder['pid']} of Postgres)."
                " Wait for it, or end it with pg_terminate_backend, and run this again."
            )
        await asyncio.sleep(0.2)


async def _while_locked(guard: asyncpg.Connection, work: Callable[[], Awaitable[T]]) -> T:
    """The result of the work, which is ended if the lock is lost: if this process hangs, another may go on."""

    async def hold() -> None:
        while True:
            await asyncio.sleep(_LEASE_SECONDS / 6)
            await guard.execute(_RENEW)

    async def run() -> T:
        return await work()

    working, holding = asyncio.create_task(run()), asyncio.create_task(hold())
    try:
        await asyncio.wait((working, holding), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise DatabaseUnavailable from holding.exception()
        return await working
    finally:
        for task in (working, holding):
            task.cancel()
        await asyncio.gather(working, holding, return_exceptions=True)


async def _upgrade(url: str, location: str) -> list[str]:
    connection = await _connect(url)
    try:
        pending = (await _state(connection, location)).pending
        if not pending:
            return []
        await _refuse_half_restored(connection, pending)
    finally:
        await connection.close()
    async with aerich_command(url, location=location):
        for version in pending:
            begun = time.monotonic()
            await _apply(version)
            log.info("migration_applied", version=version.name, seconds=round(time.monotonic() - begun, 1))
    return [version.name for version in pending]


async def _state(connection: asyncpg.Connection, location: str = LOCATION) -> State:
    applied = []
    if (await SQL.has_history.on(connection))[0]["has_history"]:
        applied = [row["version"] for row in await SQL.applied_migrations.on(connection)]
    return State(applied, [version for version in versions(location) if version.name not in applied])


async def _apply(version: Version) -> None:
    db = get_connections().get(ALIAS)

    async def in_one() -> None:
        async with in_transaction(ALIAS) as transaction:
            await transaction.execute_script(LIMITS)
            await _run(version, transaction)

    try:
        await (retry_while_locked(db, in_one) if version.in_transaction else _run(version, db))
    except OperationalError as error:
        cause = error.args[0] if error.args else error
        if isinstance(cause, _DOES_NOT_FIT):
            raise MigrationRefused(f"{version.name} does not fit this database: {cause}. {_RESTORE}") from error
        raise


async def _run(version: Version, db: BaseDBAsyncClient) -> None:
    """As aerich does, which does not take a script that is empty."""
    script = await version.module.upgrade(db)
    if script.strip():
        await db.execute_script(script)
    models = decompress_dict(version.module.MODELS_STATE)
    await Aerich.create(version=version.name, app=_APP, content=models, using_db=db)


_CREATED = re.compile(r'CREATE TABLE (?:IF NOT EXISTS )?"?(\w+)', re.IGNORECASE)


async def _refuse_half_restored(connection: asyncpg.Connection, pending: list[Version]) -> None:
    """A table that exists before its migration: pg_restore --clean leaves those that the backup does not know."""
    tables = {row["tablename"] for row in await SQL.tables.on(connection)} - {"aerich"}
    for version in pending:
        if not version.in_transaction and version is pending[0]:
            continue  # it may have been interrupted
        for statement in await version.statements():
            if found := sorted(tables.intersection(_CREATED.findall(statement))):
                raise MigrationRefused(
                    f"The table {found[0]} exists, but {version.name}, which creates it, was not applied. {_RESTORE}"
                )
