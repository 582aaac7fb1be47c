"""What a message leaves behind: row versions by table, write-ahead log, bytes at rest, and operations of Redis."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio import Redis

from tests.benchmarks.figures import Figure, Figures
from tests.benchmarks.model_stub import CHUNKS
from tests.benchmarks.replies import USERS, send_all
from tests.benchmarks.stage import Scale, Stage, staged

#: Partitions count as their table.
_TABLES = """
    SELECT coalesce(pg_partition_root(relid), relid)::regclass::text AS name, sum(n_tup_ins) AS inserted,
        sum(n_tup_upd) AS updated, sum(n_tup_hot_upd) AS hot, sum(n_tup_del) AS deleted
    FROM pg_stat_user_tables GROUP BY 1
"""
_LOG = "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"
_SIZES = "SELECT sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables WHERE relname LIKE 'messages%'"


async def measure(scale: Scale) -> Figures:
    count = scale.replies
    pause = scale.reply_seconds / CHUNKS
    async with staged(scale, first=pause, pause=pause) as stage:
        f, people = await stage.f(), await stage.world.people(USERS)
        rooms = [(person, person.room) for person in people]
        stage.world.start_worker()
        await stage.world.workers_ready()
        await send_all(stage, rooms, USERS, wait=True)
        before = await _state(stage)
        await send_all(stage, rooms, count, wait=True)
        after = await _state(stage)
        await stage.database.execute("VACUUM messages")
        size = int(await stage.database.fetchval(_SIZES))
    found = {
        "f": Figure.once(f * 1e6, "µs"),
        "messages": Figure.once(count, "messages"),
        "wal": Figure.once((after["wal"] - before["wal"]) / count, "bytes"),
        "stored": Figure.once(size / (count + USERS), "bytes"),
        "redis.operations": Figure.once((after["operations"] - before["operations"]) / count, "operations"),
        "redis.memory": Figure.once((after["memory"] - before["memory"]) / count, "bytes"),
    }
    for name, was in before["tables"].items():
        more = {kind: after["tables"][name][kind] - was[kind] for kind in was}
        written = sum(more[kind] for kind in ("inserted", "updated", "deleted"))
        if written >= count / 100:
            found[f"{name}.versions"] = Figure.once((more["inserted"] + more["updated"]) / count, "rows")
            found[f"{name}.deleted"] = Figure.once(more["deleted"] / count, "rows")
            if more["updated"]:
                found[f"{name}.hot"] = Figure.once(100 * more["hot"] / more["updated"], "%")
    return found


async def _state(stage: Stage) -> dict[str, Any]:
    await asyncio.sleep(stage.scale.settle_seconds)
    rows = [dict(row) for row in await stage.database.fetch(_TABLES)]
    async with Redis.from_url(stage.world.valkey.url) as redis:
        facts: dict[str, Any] = await redis.info()
    return {
        "tables": {row.pop("name"): {kind: int(count) for kind, count in row.items()} for row in rows},
        "wal": int(await stage.database.fetchval(_LOG)),
        "operations": facts["total_commands_processed"],
        "memory": facts["used_memory"],
    }
