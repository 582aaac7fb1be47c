"""Poolers in transaction mode, which give every transaction another connection to the server.

They forget what a session has: settings, prepared statements, locks.
"""

from __future__ import annotations

import structlog

from adapters.postgres.connection import SETTINGS, connect, database_errors
from adapters.postgres.dsn import Dsn, read
from adapters.postgres.statements import Statements

log = structlog.get_logger(__name__)

SQL = Statements("database")

CONNECT_SECONDS = 10.0


async def has_pooler(dsn: Dsn, *, seconds: float) -> bool:
    """Whether the server's process is another than the one that the connection was promised."""
    connection = await connect(dsn, seconds=seconds)
    try:
        [row] = await SQL.server_process.on(connection)
        found: bool = row["pid"] != connection.get_server_pid()
    finally:
        connection.terminate()
    if found:
        log.info("pooler_found", hosts=dsn.hosts)
    return found


async def set_role_settings(url: str) -> str | None:
    """Behind a pooler, which takes no settings: give them to the role in this database, for new connections.

    Returns its name, or None if there is no pooler or they are set. Raises DatabaseUnavailable.
    """
    dsn = read(url)
    with database_errors(dsn.hosts):
        if not (dsn.pooled or await has_pooler(dsn, seconds=CONNECT_SECONDS)):
            return None
        connection = await connect(dsn, seconds=CONNECT_SECONDS)
        try:
            [role] = await SQL.role_settings.on(connection)
            if {f"{name}={value}" for name, value in SETTINGS.items()} <= set(role["settings"]):
                return None
            for name, value in SETTINGS.items():
                await connection.execute(f"ALTER ROLE CURRENT_USER IN DATABASE {role['database']} SET {name} = {value}")
            return str(role["name"])
        finally:
            connection.terminate()
