"""What migrations are made of, so that none of them stops the service.

A statement that needs a strong lock waits behind every transaction on its table, and all later statements wait behind
it. So it gives up after LOCK_SECONDS, lets them pass, and tries again.

A migration with RUN_IN_TRANSACTION = True is run by `migrate` like that, as a whole. One with False runs outside of a
transaction and is made of the functions below. It may be interrupted after each of them and is then repeated from its
beginning, so each must be harmless when it is done already.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import asyncpg
import structlog
from tortoise import BaseDBAsyncClient
from tortoise.transactions import in_transaction

from adapters.postgres.statements import Statements
from application.patience import Backoff
from domain.errors import DatabaseUnavailable

log = structlog.get_logger(__name__)

SQL = Statements("migrations")

T = TypeVar("T")

LOCK = 7_243_392_105  # of `migrate`: arbitrary, and not used by anything else in this database
#: More than Postgres's deadlock_timeout of 1 s: an autovacuum is ended for us only after that.
LOCK_SECONDS = 1.2
#: In a transaction alone, since a session may be shared behind a pooler.
LIMITS = f"SET LOCAL lock_timeout = '{LOCK_SECONDS * 1000:.0f}ms'; SET LOCAL statement_timeout = 0;"

_patience: ContextVar[float] = ContextVar("patience", default=600.0)


class MigrationRefused(DatabaseUnavailable):
    """The database was left as it was before the migration that could not be applied."""


class Recorder(BaseDBAsyncClient):
    """Stands in for the connection: keeps the statements of a migration instead of running them."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self.statements: list[str] = []

    async def execute_script(self, query: str) -> None:
        self.statements.append(query)

    async def execute_query(self, query: str, values: list[Any] | None = None) -> tuple[int, list[dict[str, Any]]]:
        self.statements.append(query)
        return 0, []

    async def execute_query_dict(self, query: str, values: list[Any] | None = None) -> list[dict[str, Any]]:
        return []


async def locked(db: BaseDBAsyncClient, script: str) -> None:
    """Run statements in a transaction that waits for its locks only briefly, again until it had them all."""

    async def run() -> None:
        async with in_transaction(db.connection_name) as transaction:
            await transaction.execute_script(LIMITS + script)

    await (db.execute_script(script) if isinstance(db, Recorder) else retry_while_locked(db, run))


async def build_index(db: BaseDBAsyncClient, name: str, definition: str, *, unique: bool = False) -> None:
    """Build an index while its table is written to: `definition` is what follows ON, beginning with the table.

    One that an interrupted run has left invalid is dropped first. It has no lock_timeout, which would end it while it
    waits for long transactions: nothing waits behind it. Of a partitioned table each partition is indexed like that.
    """
    found = await db.execute_query_dict(SQL.find_index.sql, [f'"{name}"'])
    if found and found[0]["is_valid"]:
        return
    kind = "UNIQUE INDEX" if unique else "INDEX"
    table, columns = definition.split(" ", 1)
    partitions = await db.execute_query_dict(SQL.partitions.sql, [table])
    if partitions:
        # Partitions that are made from now on have the index.
        await locked(db, f'CREATE {kind} IF NOT EXISTS "{name}" ON ONLY {definition}')
        for row in partitions:
            part = f"{row['name']}_{name}"
            await build_index(db, part, f'"{row["name"]}" {columns}', unique=unique)
            await locked(db, f'ALTER INDEX "{name}" ATTACH PARTITION "{part}"')
        return
    if found:
        await drop_index(db, name)
    await db.execute_script(f'CREATE {kind.replace("INDEX", "INDEX CONCURRENTLY")} "{name}" ON {definition}')


async def drop_index(db: BaseDBAsyncClient, name: str) -> None:
    """Drop an index, if it exists, of a table that is not partitioned."""
    await db.execute_script(f'DROP INDEX CONCURRENTLY IF EXISTS "{name}"')


async def in_batches(db: BaseDBAsyncClient, statement: str, *, pause: float = 0.02) -> None:
    """Repeat an UPDATE, DELETE or INSERT that changes a bounded number of rows until it changes none."""

    async def run() -> int:
        changed, _ = await db.execute_query(statement)
        await asyncio.sleep(pause)
        return changed

    while await retry_while_locked(db, run):
        pass


async def retry_while_locked(db: BaseDBAsyncClient, run: Callable[[], Awaitable[T]]) -> T:
    """The result of a transaction, which is repeated as long as others hold its locks. Raises MigrationRefused."""
    backoff, begun = Backoff(0.5, 10.0), time.monotonic()
    while True:
        try:
            return await run()
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            if (waited := time.monotonic() - begun) >= _patience.get():
                raise MigrationRefused(
                    f"Nothing was changed: for {waited:.0f} s other transactions held the locks that the migration"
                    f" needs ({await _holders(db)}). Let them end, or end them, and run it again."
                ) from error
            log.info("migration_waits", seconds=round(waited, 1), for_transactions=await _holders(db))
            await asyncio.sleep(backoff.jittered())


async def _holders(db: BaseDBAsyncClient) -> str:
    found = await db.execute_query_dict(SQL.long_transactions.sql, [LOCK])
    return ", ".join(f"pid {row['pid']}: {row['name']}, {row['seconds']} s" for row in found) or "short ones"


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """How long migrations repeat what waits for locks."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)
