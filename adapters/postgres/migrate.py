"""Bringing the schema up to date with aerich."""

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
_LOCK = 7_243_392_105  # any number that nobody else locks in this database


@asynccontextmanager
async def aerich_command(url: str, *, location: str = LOCATION) -> AsyncIterator[Command]:
    """aerich on this database, whatever this process is connected to: it would take over any Tortoise it finds."""
    # With Tortoise's own client: aerich needs to see the error of a table that is not there yet.
    config = tortoise_config(url, engine="tortoise.backends.asyncpg")
    async with TortoiseContext() as tortoise:
        await tortoise.init(config=config)
        command = Command(config, location=location)
        await command.init()
        yield command


async def _connect(url: str) -> asyncpg.Connection:
    """By the same reading of the URL as the pool's; asyncpg's own wants a file of certificates for verify-full."""
    read = tortoise_config(url, engine="")["connections"][ALIAS]["credentials"]
    return await asyncpg.connect(
        **{name: read[name] for name in ("host", "port", "user", "password", "database", "ssl")}, timeout=10
    )


async def migrate(url: str) -> list[str]:
    """Apply what is missing and return its names. Callers at the same time wait for each other.

    Raises DatabaseUnavailable.
    """
    with database_errors():
        # aerich crashes when two of it run at once, so a connection of its own holds a lock meanwhile.
        guard = await _connect(url)
        try:
            while not (await SQL.lock_migrations.on(guard, key=_LOCK))[0]["is_locked"]:  # noqa: ASYNC110 - Postgres notifies nobody
                await asyncio.sleep(0.2)
            async with aerich_command(url) as command:
                return await command.upgrade()
        finally:
            await guard.close()
