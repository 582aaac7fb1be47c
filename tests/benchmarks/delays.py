"""What the product adds to the model's own time when it is idle: one message at a time, read as a stream."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

from tests.benchmarks.figures import Figure, Figures
from tests.benchmarks.load import percentile
from tests.benchmarks.model_stub import CHUNKS
from tests.benchmarks.stage import Scale, send_bytes, staged
from tests.support.sse_client import Stream

FIRST, PAUSE = 0.06, 0.02
_WARM_UP = 10


async def measure(scale: Scale) -> Figures:
    async with staged(scale, first=FIRST, pause=PAUSE) as stage:
        f = await stage.f()
        people = await stage.world.people(1)
        rooms = await stage.rooms(people, scale.one_by_one + _WARM_UP)
        stage.world.start_worker()
        await stage.world.workers_ready()
        times = [
            await _times(stage.url, send_bytes(person.token, room, accept="text/event-stream"))
            for person, room in rooms
        ]
        f = (f + await stage.f()) / 2
    found = {"f": Figure.once(f * 1e6, "µs")}
    for name, seconds in zip(("first", "stored"), zip(*times[_WARM_UP:], strict=True), strict=True):
        for percent in (50, 99):
            added = percentile(list(seconds), percent)
            found[f"{name}.p{percent}"] = Figure.once(added * 1000, "ms")
            found[f"{name}.p{percent}-f"] = Figure.once(added / f, "f")
    return found


async def _times(url: str, request: bytes) -> tuple[float, float]:
    """Seconds beyond the model's until the first delta came, and until `done`, which follows the storing."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    stream = Stream(reader, writer)
    began = time.perf_counter()
    writer.write(request)
    await stream.begin()
    assert stream.status == 200, stream.body
    events = [event async for event in stream.events()]
    writer.close()
    assert events[-1].name == "done", events
    first = next(event.at for event in events if event.name == "delta")
    return first - began - FIRST, events[-1].at - began - FIRST - (CHUNKS - 1) * PAUSE
