"""Messages with their replies: what they cost all processes together, and how many one worker stores a second."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

from tests.benchmarks.figures import Figure, Figures
from tests.benchmarks.load import Load, load
from tests.benchmarks.stage import Scale, Stage, send_bytes, staged
from tests.chaos.client import Person

USERS = 20
#: Turns of a long conversation, the message included.
LONG = 39
_PARTS = ("api", "worker", "postgres", "redis")
#: Percent of the messages at which a rate is read; before the first the worker is not warm.
_MARKS = (10, 40, 70, 100)

Rooms = list[tuple[Person, str]]


async def measure(scale: Scale) -> Figures:
    """The model answers at once."""
    async with staged(scale) as stage:
        people = await stage.world.people(USERS)
        found = {"f": Figure.once(await stage.f() * 1e6, "µs")}
        queued, fresh, long = [await stage.rooms(people, -(-scale.replies // USERS)) for _ in range(3)]
        await stage.history([room for _, room in long], (LONG - 1) // 2)
        found |= await rate(stage, queued)
        stage.world.start_worker()
        await stage.world.workers_ready()
        await send_all(stage, queued, len(queued) // 10, wait=True)
        found |= await _together(stage, "fresh", fresh)
        found |= await _together(stage, "long", long)
    return found


async def rate(stage: Stage, rooms: Rooms, *, workers: int = 1) -> Figures:
    """Of workers that find all messages queued, once they are warm."""
    f = await stage.f()
    await send_all(stage, rooms, len(rooms))
    started = [stage.world.start_worker() for _ in range(workers)]
    marks = []
    for percent in _MARKS:
        await stage.until_unanswered(len(rooms) * (100 - percent) // 100)
        marks.append((await stage.unanswered(), time.perf_counter(), stage.cpu()))
    for worker in started:
        stage.world.kill_worker(worker)
    f = (f + await stage.f()) / 2
    counts = [max(1, then[0] - now[0]) for then, now in pairwise(marks)]  # a few may all be stored by the first mark
    seconds = [(now[1] - then[1]) / count for (then, now), count in zip(pairwise(marks), counts, strict=True)]
    cpu = {
        part: [
            (now[2][part] - then[2][part]) / count for (then, now), count in zip(pairwise(marks), counts, strict=True)
        ]
        for part in ("worker", "postgres")
    }
    return {
        "rate": Figure.of((1 / each for each in seconds), "replies/s"),
        "each": Figure.of((each / f for each in seconds), "f"),
        **{f"queued.{part}": Figure.of((each / f for each in values), "f") for part, values in cpu.items()},
    }


async def _together(stage: Stage, name: str, rooms: Rooms) -> Figures:
    """Sending and answering at once; each message in its own chatroom."""
    count = len(rooms) // stage.scale.rounds
    rounds = []
    for number in range(stage.scale.rounds):
        f, before = await stage.f(), stage.cpu()
        await send_all(stage, rooms[number * count :], count, wait=True)
        await asyncio.sleep(0.1)
        rounds.append({part: (seconds - before[part]) / count / f for part, seconds in stage.cpu().items()})
    return {
        f"{name}.both": Figure.of((each["api"] + each["worker"] for each in rounds), "f"),
        **{f"{name}.{part}": Figure.of((each[part] for each in rounds), "f") for part in _PARTS},
    }


async def send_all(stage: Stage, rooms: Rooms, count: int, *, wait: bool = False) -> Load:
    requests = [send_bytes(person.token, room) for person, room in rooms]
    sent = await load(stage.url, lambda number: requests[number % len(requests)], requests=count, expect=202)
    if wait:
        await stage.until_unanswered(0)
    return sent
