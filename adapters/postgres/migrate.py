"""Applies migrations, by aerich."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from aerich import Command
from tortoise.context import TortoiseContext

from adapters.postgres.connection import ALIAS, database_errors, tortoise_config
from adapters.postgres.statements import Statements

SQL = Statements("database")

LOCATION = str(Path(__file__).parent / "migrations")
_LOCK = 7_243_392_105  # arbitrary, and not used by anything else in this database


@asynccontextmanager
async def aerich_command(url: str, *, location: str = LOCATION) -> AsyncIterator[Command]:
    """aerich for this database. It has a Tortoise context to itself, since it would use any that is active."""
    # With Tortoise's client, not ours: aerich expects its error for a table that does not exist yet.
    config = tortoise_config(url, engine="tortoise.backends.asyncpg")
    async with TortoiseContext() as tortoise:
        await tortoise.init(config=config)
        command = Command(config, location=location)
        await command.init()
        yield command


async def _connect(url: str) -> asyncpg.Connection:
    """Reads the URL as the pool does; asyncpg's own parser requires a certificate file for verify-full."""
    read = tortoise_config(url, engine="")["connections"][ALIAS]["credentials"]
    return await asyncpg.connect(
        **{name: read[name] for name in ("host", "port", "user", "password", "database", "ssl")}, timeout=10
    )


async def migrate(url: str) -> list[str]:
    """Apply pending migrations and return their names. Concurrent callers wait for each other.

    Raises DatabaseUnavailable.
    """
    with database_errors():
        # aerich fails when it runs twice at once, so a separate connection holds a lock meanwhile.
        guard = await _connect(url)
        try:
            while not (await SQL.lock_migrations.on(guard, key=_LOCK))[0]["is_locked"]:  # noqa: ASYNC110 - Postgres notifies nobody
                await asyncio.sleep(0.2)
            async with aerich_command(url) as command:
                return await command.upgrade()
        finally:
            await guard.close()
