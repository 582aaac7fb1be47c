"""What an operator should know about the database: for `gemini-backend check`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
from tortoise.models import Model

from adapters.clocks import clock_fact
from adapters.postgres import tables
from adapters.postgres.connection import SETTINGS
from adapters.postgres.statements import Statements
from application.ports.runtime import Fact

SQL, MIGRATIONS = Statements("facts"), Statements("migrations")

_MIGRATIONS = Path(__file__).parent / "migrations" / "models"
_OLDEST = 14


async def facts(connection: asyncpg.Connection, *, pool: int) -> list[Fact]:
    """Raises the driver's errors. `pool` is how many connections each process may hold."""
    asked = datetime.now(UTC)
    [server] = await SQL.server.on(connection)
    answered = datetime.now(UTC)
    is_pooled = connection.get_server_pid() != server["pid"]  # a pooler makes up its own
    return [
        _version(server["version"]),
        Fact("tls", _tls(connection)),
        await _pooler(connection) if is_pooled else Fact("pooler", "none"),
        await _schema(connection),
        _role(server),
        await _privileges(connection),
        _writes(server),
        _encoding(server["encoding"]),
        _connections(server, pool),
        clock_fact(server["now"], asked=asked, answered=answered),
    ]


def _version(version: str) -> Fact:
    is_old = int(version.partition(".")[0]) < _OLDEST
    return Fact("version", version, f"Versions before {_OLDEST} are not supported." if is_old else "")


def _tls(connection: asyncpg.Connection) -> str:
    transport = connection._transport  # noqa: SLF001 - the driver tells it nowhere else
    encryption = transport.get_extra_info("ssl_object")
    return str(encryption.version()) if encryption else "off"


async def _pooler(connection: asyncpg.Connection) -> Fact:
    """It takes no settings, so `migrate` gives them to the role. Without them long rooms are read slowly."""
    found = {row["name"]: row["setting"] for row in await SQL.settings.on(connection, names=list(SETTINGS))}
    lacking = ", ".join(f"{name}={value}" for name, value in SETTINGS.items() if found.get(name) != value)
    advice = f"New connections should have {lacking}: gemini-backend migrate gives these to the role."
    return Fact("pooler", "yes: connections are shared", advice if lacking else "")


async def _schema(connection: asyncpg.Connection) -> Fact:
    try:
        applied = {row["version"] for row in await MIGRATIONS.applied_migrations.on(connection)}
    except asyncpg.UndefinedTableError:
        return Fact("schema", "not migrated", "Run: gemini-backend migrate", is_fatal=True)
    ours = {path.name for path in _MIGRATIONS.glob("[0-9]*_*.py")}
    if behind := len(ours - applied):
        return Fact("schema", f"behind by {behind} migrations", "Run: gemini-backend migrate", is_fatal=True)
    if ahead := len(applied - ours):
        return Fact("schema", f"ahead by {ahead} migrations: of a newer version, on which this one runs")
    return Fact("schema", "up to date")


def _role(server: Mapping[str, Any]) -> Fact:
    warning = "The product needs no superuser: use a role that only owns its tables." if server["is_superuser"] else ""
    return Fact("role", f"{server['role']}{', a superuser' if warning else ''}", warning)


async def _privileges(connection: asyncpg.Connection) -> Fact:
    names = [kind._meta.db_table for _, kind in inspect.getmembers(tables, _is_table)]  # noqa: SLF001 - Tortoise's way
    missing = await SQL.missing_privileges.on(connection, tables=names)
    if not missing:
        return Fact("privileges", "complete")
    listed = "; ".join(f"{row['missing']} on {row['name']}" for row in missing)
    return Fact("privileges", f"missing: {listed}", "Grant them, or connect as the owner of the tables.", is_fatal=True)


def _is_table(member: object) -> bool:
    return inspect.isclass(member) and issubclass(member, Model) and member.__module__ == tables.__name__


def _writes(server: Mapping[str, Any]) -> Fact:
    if server["is_standby"]:
        advice = "Name the primary in DATABASE_URL, or promote this server."
        return Fact("writes", "refused: a standby", advice, is_fatal=True)
    if server["is_read_only"]:
        advice = "default_transaction_read_only is on: set by somebody, or by the host because the disk is full."
        return Fact("writes", "refused: read-only", advice, is_fatal=True)
    return Fact("writes", "accepted")


def _encoding(encoding: str) -> Fact:
    warning = "" if encoding == "UTF8" else "Messages are Unicode: create the database with the encoding UTF8."
    return Fact("encoding", encoding, warning)


def _connections(server: Mapping[str, Any], pool: int) -> Fact:
    most, free = server["our_connections"], server["our_connections"] - server["used_connections"]
    for limit, used in ((server["role_limit"], server["used_by_role"]), (server["database_limit"], 0)):
        if limit >= 0:
            most, free = min(most, limit), min(free, limit - used)
    processes = max(0, free) // pool
    value = f"{max(0, free)} of {most} free, enough for {processes} more processes with POSTGRES_POOL {pool}"
    warning = "" if processes else "Lower POSTGRES_POOL, raise max_connections, or put a pooler in front."
    return Fact("connections", value, warning)
