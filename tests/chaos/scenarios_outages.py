"""Redis and Postgres go down under load, and come back with or without their data."""

from __future__ import annotations

import asyncio
import json
import random
import time

from redis.asyncio import Redis

from tests.chaos.client import Answer, Client, Failed
from tests.chaos.ledger import Ledger
from tests.chaos.load import Load, percentile
from tests.chaos.scenarios_delivery import MANY
from tests.chaos.world import World, world
from tests.support.patience import PROCESS_HANG
from tests.support.scenarios import Row, Scale


async def redis_outage(scale: Scale, seed: int) -> Row:
    away, per_second = scale.of(3.0, 60.0), scale.of(10, 40)
    async with world(apis=1, workers=2, **MANY, **scale.impatient) as w:
        ledger = await Ledger(w).open()
        w.gemini.pace(first_chunk_seconds=0.2, chunk_seconds=0.2)
        client = w.client()
        load = Load(client, ledger, await w.people(20), random.Random(seed))
        async with load.running(per_second=per_second, unended=scale.unended):
            await asyncio.sleep(scale.of(1, 5))
            running = (await w.gemini.until(lambda log: log["open"] > 0))["open"]
            await asyncio.to_thread(w.valkey.kill)
            await asyncio.sleep(away)
            await asyncio.to_thread(w.valkey.start)
            async with Redis.from_url(w.valkey.url) as redis:
                await redis.flushall()
            back = time.time()
            await asyncio.sleep(scale.of(2, 20))
        # Of those sent before it returned; the load has continued since.
        settled = await ledger.settled(seconds=scale.bound(60))
        waited = await w.fetch(
            "SELECT max(extract(epoch FROM completed_at))::float8 - $1 AS seconds FROM messages"
            " WHERE created_at <= to_timestamp($1)",
            back,
        )
        report, log = await ledger.report(), await w.model_log()
        alive = _all_alive(w)
    answered = waited[0]["seconds"] or 0.0
    p99 = percentile(load.seconds, 99)
    return Row(
        f"Redis SIGKILLed for {away:.0f} s, then FLUSHALL, at {per_second} messages/s",
        "every send 202, p99 ≤ 500 ms; all answered ≤ 60 s after its return; running calls are not cut",
        f"{dict(load.statuses)}, p50 {percentile(load.seconds, 50) * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms,"
        f" {len(load.complaints)} complaints {load.complaints[:2] or ''}; all answered {answered:.1f} s after;"
        f" {running} calls running, {log['counts']['client_left']} cut; {report}",
        report.kept
        and settled is not None
        and not load.complaints
        and p99 <= scale.bound(0.5)
        and answered <= scale.bound(60)
        and log["counts"]["client_left"] == 0
        and running > 0
        and alive
        and set(report.statuses) == {"completed"},
    )


async def postgres_restarts(scale: Scale, seed: int) -> Row:
    away, per_second = scale.of(1.0, 10.0), scale.of(10, 40)
    ready: list[float] = []
    async with world(apis=1, workers=2, **MANY, **scale.impatient) as w:
        ledger = await Ledger(w).open()
        w.gemini.pace(first_chunk_seconds=0.2, chunk_seconds=0.05)
        client = w.client()
        load = Load(client, ledger, await w.people(20), random.Random(seed), also=frozenset({503}))
        async with (
            load.running(per_second=per_second, unended=scale.unended),
            load.reading(4, pause=scale.of(0.2, 0.05)),
        ):
            for end in (w.postgres.stop, w.postgres.kill, w.postgres.stop):
                await asyncio.sleep(scale.of(1, 10))
                await asyncio.to_thread(end)
                await asyncio.sleep(away)
                await asyncio.to_thread(w.postgres.start)
                ready.append(await _seconds_until_ready(client))
            await asyncio.sleep(scale.of(1, 10))
        settled = await ledger.settled(seconds=scale.bound(60))
        report = await ledger.report()
        alive = _all_alive(w)
    return Row(
        f"Postgres restarted 3 times, once by kill -9, away {away:.0f} s each, at {per_second} messages/s",
        "ready ≤ 5 s after it accepts; only 503 problem+json with Retry-After; no process exits; nothing lost",
        f"ready after {', '.join(f'{seconds:.2f}' for seconds in ready)} s; {dict(load.statuses)},"
        f" {len(load.complaints)} complaints {load.complaints[:3] or ''}; processes alive: {alive}; {report}",
        report.kept
        and settled is not None
        and not load.complaints
        and load.statuses[503] > 0
        and max(ready) <= scale.bound(5)
        and alive
        and set(report.statuses) == {"completed"},
    )


def _all_alive(w: World) -> bool:
    return all(process.process.poll() is None for process in [*w.apis.values(), *w.workers])


async def _seconds_until_ready(client: Client) -> float:
    """GET /ready, as a load balancer does."""
    began = time.monotonic()
    while time.monotonic() < began + PROCESS_HANG:
        try:
            answer: Answer = await client.ask(None, "GET", "/ready")
        except Failed:
            continue
        if answer.status == 200 and json.loads(answer.body)["dependencies"]["postgres"] == "ok":
            break
        await asyncio.sleep(0.05)
    return time.monotonic() - began
