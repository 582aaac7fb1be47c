"""Thousands of streams over HTTP from one API process: 5,000 with five pieces a second, 20,000 with one."""

from __future__ import annotations

import asyncio
import itertools
import json
import resource

from tests.benchmarks import probes
from tests.benchmarks.figures import Figure, Figures
from tests.benchmarks.replies import USERS, send_all
from tests.benchmarks.stage import Scale, Stage, child, line, staged

_CLIENTS = "tests.benchmarks.stream_clients"
_OTHER_FILES = 300  # that a process of the product has open

Message = tuple[str, str, str]


async def measure(scale: Scale) -> Figures:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = min(scale.most_readers, hard - _OTHER_FILES)
    async with staged(scale) as stage:
        messages = await _messages(stage, scale.readers + most)
        found = {"f": Figure.once(await stage.f() * 1e6, "µs")}
        found |= await _scene(stage, "many", messages[: scale.readers], 5)
        found |= await _scene(stage, "most", messages[scale.readers :], 1)
    return found


async def _messages(stage: Stage, count: int) -> list[Message]:
    """Token, room and id of accepted messages, which no worker answers."""
    people = await stage.world.people(USERS)
    rooms = [(person, person.room) for person in people]
    sent = await send_all(stage, rooms, count)
    tokens = {person.room: person.token for person in people}
    data = [json.loads(body)["data"] for body in sent.bodies]
    return [(tokens[one["chatroomId"]], one["chatroomId"], one["id"]) for one in data]


async def _scene(stage: Stage, name: str, messages: list[Message], per_second: int) -> Figures:
    f = await stage.f()
    file, seconds = stage.world.folder / f"{name}.json", stage.scale.seconds
    file.write_text(json.dumps(messages))
    api = probes.tree(stage.world.apis[stage.url].process.pid)
    redis = stage.world.valkey.url
    with child(_CLIENTS, "read", str(file), stage.url, str(seconds * per_second)) as reader:
        await line(reader)
        before = stage.cpu()
        with child(_CLIENTS, "write", str(file), redis, str(per_second), str(seconds)) as writer:
            assert reader.stdin is not None
            reader.stdin.write(f"{seconds}\n".encode())
            reader.stdin.flush()
            await asyncio.sleep(seconds)
            memory = probes.pss_megabytes(api)
            wrote, seen = await line(writer), await line(reader)
        after = stage.cpu()
    await _closed(api)
    f = (f + await stage.f()) / 2
    each = {part: (after[part] - before[part]) / seen["delivered"] for part in after}
    return {
        f"{name}.readers": Figure.once(len(messages), "readers"),
        f"{name}.p50": Figure.once(seen["p50"], "ms"),
        f"{name}.p99": Figure.once(seen["p99"], "ms"),
        f"{name}.lost": Figure.once(len(messages) * seconds * per_second - seen["delivered"] + seen["twice"], "pieces"),
        f"{name}.cut": Figure.once(seen["cut"], "connections"),
        f"{name}.memory": Figure.once(memory, "MB"),
        f"{name}.piece": Figure.once(each["api"] * 1e6, "µs"),
        f"{name}.piece-f": Figure.once(each["api"] / f, "f"),
        f"{name}.piece-redis-f": Figure.once(each["redis"] / f, "f"),
        f"{name}.writer": Figure.once(wrote["cpu"] / seen["delivered"] / f, "f"),
        f"{name}.writer-pace": Figure.once(wrote["late"], "× planned"),
    }


async def _closed(pids: list[int]) -> None:
    """Wait until the API has let the aborted connections go."""
    for _ in itertools.takewhile(lambda _: sum(map(probes.open_files, pids)) > _OTHER_FILES, range(100)):
        await asyncio.sleep(0.1)
