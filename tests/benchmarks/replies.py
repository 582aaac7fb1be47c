"""Messages with their replies: what they cost all processes together, and how many one worker stores a second."""

from __future__ import annotations

import asyncio
import time

from tests.benchmarks.figures import Figure, Figures
from tests.benchmarks.load import Load, load
from tests.benchmarks.stage import Scale, Stage, send_bytes, staged
from tests.chaos.client import Person

USERS = 20
#: Turns before the message in a long room, the message included.
LONG = 39
_WARM = 10  # percent of the messages


async def measure(scale: Scale) -> Figures:
    """The model answers at once."""
    async with staged(scale) as stage:
        people = await stage.world.people(USERS)
        f = await stage.f()
        found = {"f": Figure.once(f * 1e6, "µs")}
        each = -(-scale.replies // USERS)
        fresh = [await stage.rooms(people, each) for _ in range(2)]
        long = await stage.rooms(people, 1 + each // 10)
        await stage.history([room for _, room in long], (LONG - 1) // 2)
        found |= await rate(stage, fresh[0], f)
        stage.world.start_worker()
        await stage.world.workers_ready()
        found |= await _together(stage, "fresh", fresh[1], f)
        found |= await _together(stage, "long", long, f)
    return found


async def rate(stage: Stage, rooms: list[tuple[Person, str]], f: float, *, workers: int = 1) -> Figures:
    """Of workers that find all messages queued, once they are warm."""
    before = await stage.replies()
    await send_all(stage, rooms, len(rooms))
    started = [stage.world.start_worker() for _ in range(workers)]
    warm = len(rooms) * _WARM // 100
    await stage.answered(before + warm)
    stored, began, cpu = await stage.replies(), time.perf_counter(), stage.cpu()
    await stage.answered(before + len(rooms))
    count = max(1, before + len(rooms) - stored)  # a few are all stored by then
    seconds, now = time.perf_counter() - began, stage.cpu()
    for worker in started:
        stage.world.kill_worker(worker)
    return {
        "rate": Figure.once(count / seconds, "replies/s"),
        "each": Figure.once(seconds / count / f, "f"),
        "queued.worker": Figure.once((now["worker"] - cpu["worker"]) / count / f, "f"),
        "queued.postgres": Figure.once((now["postgres"] - cpu["postgres"]) / count / f, "f"),
    }


async def _together(stage: Stage, name: str, rooms: list[tuple[Person, str]], f: float) -> Figures:
    """Sending and answering at once, in rounds over the same rooms for long ones."""
    count = stage.scale.replies
    await send_all(stage, rooms, max(32, count // 10), wait=True)
    before = stage.cpu()
    await send_all(stage, rooms, count, wait=True)
    await asyncio.sleep(0.1)
    each = {part: (seconds - before[part]) / count / f for part, seconds in stage.cpu().items()}
    return {
        f"{name}.both": Figure.once(each["api"] + each["worker"], "f"),
        **{f"{name}.{part}": Figure.once(each[part], "f") for part in ("api", "worker", "postgres", "redis")},
    }


async def send_all(stage: Stage, rooms: list[tuple[Person, str]], count: int, *, wait: bool = False) -> Load:
    before = await stage.replies()
    requests = [send_bytes(person.token, room) for person, room in rooms]
    sent = await load(stage.url, lambda number: requests[number % len(requests)], requests=count, expect=202)
    if wait:
        await stage.answered(before + count)
    return sent
