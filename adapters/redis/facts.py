"""What an operator should know about Redis or Valkey: for `gemini-backend check`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from adapters.clocks import clock_fact
from application.ports.runtime import Fact

_OLDEST = (6, 2)


async def facts(client: Redis, *, has_tls: bool) -> list[Fact]:
    """Raises the library's errors. Some managed servers do not tell about themselves, which is not an error."""
    tls = Fact("tls", "on" if has_tls else "off")
    try:
        info: Mapping[str, Any] = await client.info()
    except ResponseError:  # refused by an ACL, or not offered
        return [Fact("version", "unknown: INFO is not permitted"), tls]
    return [_version(info), tls, _role(info), _eviction(info), _memory(info), _clients(info), await _clock(client)]


def _version(info: Mapping[str, Any]) -> Fact:
    product = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version") or "unknown")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    is_old = product == "Redis" and bool(numbers) and numbers < _OLDEST
    return Fact("version", f"{product} {version}", "Versions before 6.2 are not supported." if is_old else "")


def _role(info: Mapping[str, Any]) -> Fact:
    if info.get("loading"):
        return Fact("role", "loading its data", "It refuses commands until it has loaded.", is_fatal=True)
    if info.get("role") in ("slave", "replica"):
        advice = "Name the primary in REDIS_URL: a replica refuses to be written to."
        return Fact("role", "replica", advice, is_fatal=True)
    return Fact("role", "primary")


def _eviction(info: Mapping[str, Any]) -> Fact:
    policy = str(info.get("maxmemory_policy") or "unknown")
    evicts = policy not in ("noeviction", "unknown")
    return Fact("eviction", policy, "Set noeviction: lost notifications delay replies." if evicts else "")


def _memory(info: Mapping[str, Any]) -> Fact:
    used, most = int(info.get("used_memory") or 0), int(info.get("maxmemory") or 0)
    if not most:
        return Fact("memory", f"{_megabytes(used)} used, no limit")
    warning = "It is nearly full." if used > most * 0.9 else ""
    return Fact("memory", f"{_megabytes(used)} of {_megabytes(most)} used", warning)


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.0f} MB"


def _clients(info: Mapping[str, Any]) -> Fact:
    used, most = int(info.get("connected_clients") or 0), int(info.get("maxclients") or 0)
    if not most:
        return Fact("connections", f"{used} used")
    warning = "Few are left: raise maxclients." if most - used < 50 else ""
    return Fact("connections", f"{most - used} of {most} free", warning)


async def _clock(client: Redis) -> Fact:
    asked = datetime.now(UTC)
    seconds, microseconds = await client.time()
    answered = datetime.now(UTC)
    theirs = datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)
    return clock_fact(theirs, asked=asked, answered=answered)
