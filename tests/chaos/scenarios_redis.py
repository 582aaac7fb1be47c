"""Redis fails over under load: by Sentinels, and behind a forwarder that keeps the connections to the old server."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.chaos.client import Person
from tests.chaos.ledger import Ledger
from tests.chaos.load import Load
from tests.chaos.scenarios_delivery import MANY
from tests.chaos.world import World, world
from tests.support.patience import PROCESS_HANG
from tests.support.redis_lab import Forwarder, replicated, sentinel_set, until_true
from tests.support.scenarios import Row, Scale
from tests.support.sse_client import open_stream


async def sentinel_failover(scale: Scale, seed: int) -> Row:
    with tempfile.TemporaryDirectory(prefix="gemini-chaos-") as folder, sentinel_set(Path(folder)) as sentinels:
        await until_true(sentinels.is_whole)

        async def move() -> None:
            old = await sentinels.primary()
            await asyncio.to_thread(old.kill)
            await sentinels.moved_from(old)

        return await _moved(scale, seed, "The primary of a Sentinel set SIGKILLed", sentinels.url, move)


async def demoted_redis(scale: Scale, seed: int) -> Row:
    with tempfile.TemporaryDirectory(prefix="gemini-chaos-") as folder:
        async with replicated(Path(folder)) as (first, second), Forwarder(first.port or 0) as forwarder:

            async def move() -> None:
                await second.follow(None)
                forwarder.target = second.port or 0
                await first.follow(second)

            url = first.url_at(forwarder.port)
            return await _moved(scale, seed, "Redis demoted behind a forwarder that keeps connections", url, move)


async def _moved(scale: Scale, seed: int, title: str, url: str, move: Callable[[], Awaitable[None]]) -> Row:
    per_second = scale.of(10, 40)
    async with world(apis=1, workers=2, REDIS_URL=url, **MANY, **scale.impatient) as w:
        ledger = await Ledger(w).open()
        w.gemini.pace(first_chunk_seconds=0.1, chunk_seconds=0.1, chunks=10)
        client, people = w.client(), await w.people(20)
        load = Load(client, ledger, people[1:], random.Random(seed))
        before = await _seconds_until_streaming(w, people[0], ledger)
        async with load.running(per_second=per_second, unended=scale.unended):
            await asyncio.sleep(scale.of(1, 10))
            await move()
            after = await _seconds_until_streaming(w, people[0], ledger)
            await until_true(lambda: _is_ready(w))
            await asyncio.sleep(scale.of(1, 20))
        settled = await ledger.settled(seconds=scale.bound(60))
        report, log = await ledger.report(), await w.model_log()
        lost = (w.folder / "workers.log").read_text(errors="replace").count("job_queue_lost")
        alive = all(process.process.poll() is None for process in [*w.apis.values(), *w.workers])
    return Row(
        f"{title}, at {per_second} messages/s",
        "every send 202; streaming again ≤ 5 s after, without a restart; nothing lost, nothing twice",
        f"{dict(load.statuses)}, {len(load.complaints)} complaints {load.complaints[:2] or ''}; streaming after"
        f" {after:.1f} s (before: {before:.1f} s); job_queue_lost {lost} times; {report}",
        report.kept
        and settled is not None
        and not load.complaints
        and after <= scale.bound(5)
        and lost <= scale.of(50, 200)
        and log["counts"]["client_left"] == 0
        and alive
        and set(report.statuses) == {"completed"},
    )


async def _seconds_until_streaming(w: World, person: Person, ledger: Ledger) -> float:
    """Until a reply comes piece by piece; without Redis it comes as a whole."""
    began, path = time.monotonic(), f"/chatroom/{person.room}/message"
    while time.monotonic() < began + PROCESS_HANG:
        asked = open_stream(w.urls[0], path, person.token, method="POST", body={"input": f"Why? {began}"})
        async with asked as stream:
            ledger.accepted.add(stream.headers["location"].rpartition("/")[2])
            reply = await stream.read_to_end(seconds=PROCESS_HANG)
        if reply.names.count("delta") >= 4:
            return reply.events[0].at - time.perf_counter() + time.monotonic() - began
    raise AssertionError("no reply was streamed")


async def _is_ready(w: World) -> bool:
    answer = await w.client().ask(None, "GET", "/ready")
    return bool(answer.json["dependencies"]["redis"] == "ok")
