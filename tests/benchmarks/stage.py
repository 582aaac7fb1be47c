"""The servers of a section: Postgres, Valkey, a model, the product's processes, and a bare Sanic beside them."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from tests.benchmarks import probes
from tests.benchmarks.figures import Figure, Figures
from tests.benchmarks.load import CONNECTIONS, Load, Request, load, request_bytes
from tests.chaos.client import Person
from tests.chaos.world import World, world
from tests.support.patience import PATIENT, PROCESS_HANG
from tests.support.ports import free_port
from tests.support.processes import ROOT, wait_for_api

_COLUMNS = """
    SELECT column_name FROM information_schema.columns WHERE table_name = 'messages' AND is_generated = 'NEVER'
    ORDER BY ordinal_position
"""
_COPIES = """
    INSERT INTO messages ({columns})
    SELECT {values} FROM messages message, (SELECT id AS room, user_id AS owner FROM chatrooms) rooms,
        generate_series(1, $3)
    WHERE message.id = $1 AND room = ANY($2::uuid[])
"""
#: What the copies of a message do not have in common with it.
_OF_COPIES = {
    "id": "uuidv7()",
    "chatroom_id": "room",
    "user_id": "owner",
    "input": "repeat('why ', 20)",
    "response": "repeat('because ', 100)",
}
#: Limits that nothing here reaches, and the timeouts of a machine that is busy with other things, too.
_SETTINGS = {
    **PATIENT,
    "FREE_DAILY_MESSAGES": "1000000",
    "STREAMS_PER_PROCESS": "100000",
    "HEADER_SECONDS": "30",
    "REQUEST_SECONDS": "60",
}


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured. The small one only shows that the benchmark works."""

    requests: int = 3_000
    rounds: int = 5
    replies: int = 1_500
    reply_seconds: float = 7.0
    """Longer than two heartbeats."""
    settle_seconds: float = 11.0
    """After which idle connections of Postgres have reported what they wrote."""
    one_by_one: int = 200
    readers: int = 5_000
    most_readers: int = 20_000
    seconds: int = 10
    messages_of_others: int = 200_000
    messages_of_room: int = 10_000


SMALL = Scale(
    requests=32,
    rounds=1,
    replies=20,
    reply_seconds=0.4,
    settle_seconds=0.5,
    one_by_one=5,
    readers=20,
    most_readers=30,
    seconds=1,
    messages_of_others=300,
    messages_of_room=100,
)


@dataclass(slots=True)
class Measured:
    """One load, and the CPU that it cost each part, in seconds a request."""

    load: Load
    cpu: dict[str, float]

    @property
    def per_second(self) -> float:
        return self.load.per_second


@dataclass(frozen=True, slots=True)
class Called:
    """A call to measure."""

    request: Request
    url: str
    expect: int = 200
    connections: int = CONNECTIONS


@dataclass(slots=True)
class Stage:
    scale: Scale
    world: World
    bare_url: str
    bare_pid: int
    url: str
    database: asyncpg.Connection
    others: list[int] = field(default_factory=list)
    """Processes that count as the API."""
    answered: str = ""
    """The message whose copies are histories."""

    def cpu(self) -> dict[str, float]:
        """Seconds so far, by part."""
        parts = {
            "bare": [self.bare_pid],
            "api": [*(process.process.pid for process in self.world.apis.values()), *self.others],
            "worker": [process.process.pid for process in self.world.workers],
            "postgres": [self.world.postgres.pid or 0],
            "redis": [self.world.valkey.pid or 0],
        }
        return {part: sum(map(probes.cpu_seconds, pids)) for part, pids in parts.items()}

    async def measure(self, called: Called, requests: int) -> Measured:
        before = self.cpu()
        made = await load(
            called.url, called.request, requests=requests, expect=called.expect, connections=called.connections
        )
        await asyncio.sleep(0.02)  # what ends just after the last reply counts, too
        return Measured(made, {part: (seconds - before[part]) / requests for part, seconds in self.cpu().items()})

    @property
    def bare(self) -> Called:
        return Called(lambda _: request_bytes("GET", "/health"), self.bare_url)

    async def rounds(self, calls: dict[str, Called], *, requests: int | None = None) -> dict[str, list[Measured]]:
        """Bare handler and calls take turns, so that what else the machine does hits all alike."""
        count = requests or self.scale.requests
        named = {"bare": self.bare, **calls}
        for called in named.values():
            await self.measure(called, max(CONNECTIONS, count // 10))
        found: dict[str, list[Measured]] = {name: [] for name in named}
        for _ in range(self.scale.rounds):
            for name, called in named.items():
                found[name].append(await self.measure(called, count))
        return found

    async def f(self) -> float:
        """Seconds of CPU of a bare request now."""
        return statistics.median([(await self.measure(self.bare, self.scale.requests)).cpu["bare"] for _ in range(3)])

    async def rooms(self, people: list[Person], each: int) -> list[tuple[Person, str]]:
        """New rooms, one for each person in turn."""
        count, body = len(people) * each, json.dumps({"name": "A room"}).encode()
        in_turn = [people[number % len(people)] for number in range(count)]
        found = []
        for person in people:
            made = await load(
                self.url,
                lambda _, person=person: request_bytes("POST", "/chatroom", token=person.token, body=body),  # type: ignore[misc]
                requests=each,
                expect=201,
            )
            found.append([json.loads(text)["data"]["id"] for text in made.bodies])
        return [(person, found[number % len(people)][number // len(people)]) for number, person in enumerate(in_turn)]

    async def history(self, rooms: list[str], messages: int) -> None:
        """Give each room that many more answered messages: copies of one that a worker has answered."""
        if not self.answered:
            self.answered = await self._answered_message()
        columns = [row["column_name"] for row in await self.database.fetch(_COLUMNS)]
        values = [_OF_COPIES.get(column, f"message.{column}") for column in columns]
        copying = _COPIES.format(columns=", ".join(columns), values=", ".join(values))
        await self.database.execute(copying, self.answered, rooms, messages)
        await self.database.execute("VACUUM (ANALYZE) messages")

    async def _answered_message(self) -> str:
        (person,) = await self.world.people(1)
        worker = self.world.start_worker()
        body = send_bytes(person.token, person.room)
        (text,) = (await load(self.url, lambda _: body, requests=1, expect=202)).bodies
        await self.until_unanswered(0)
        self.world.kill_worker(worker)
        return str(json.loads(text)["data"]["id"])

    async def until_unanswered(self, most: int) -> None:
        give_up = time.monotonic() + PROCESS_HANG
        while await self.unanswered() > most:
            assert time.monotonic() < give_up, self.world.log_of_workers()
            await asyncio.sleep(0.05)

    async def unanswered(self) -> int:
        count: int = await self.database.fetchval("SELECT count(*) FROM queue_entries")
        return count


def send_bytes(token: str, room: str, *, accept: str = "", text: str = "Why is the sky blue?") -> bytes:
    body = json.dumps({"input": text}).encode()
    return request_bytes("POST", f"/chatroom/{room}/message", token=token, body=body, accept=accept)


@asynccontextmanager
async def staged(scale: Scale, *, pause: float = 0.0, first: float = 0.0, **settings: str) -> AsyncIterator[Stage]:
    """`first` and `pause` are the model's: seconds before its first chunk, and before each of three others."""
    with model_stub(pause=pause, first=first) as model, bare_server() as (bare_url, bare_pid):
        async with world(apis=1, workers=0, **{**_SETTINGS, "GEMINI_BASE_URL": model, **settings}) as made:
            database = await asyncpg.connect(made.postgres.url)
            try:
                yield Stage(scale, made, bare_url, bare_pid, made.urls[0], database)
            finally:
                await database.close()


@contextmanager
def bare_server() -> Iterator[tuple[str, int]]:
    with _server("tests.benchmarks.bare") as (url, pid):
        yield url, pid


@contextmanager
def model_stub(*, pause: float = 0.0, first: float = 0.0) -> Iterator[str]:
    with _server("tests.benchmarks.model_stub", str(first), str(pause)) as (url, _):
        yield url


@contextmanager
def _server(module: str, *arguments: str) -> Iterator[tuple[str, int]]:
    """A server of the benchmark's own that takes its port as its first argument and answers /health."""
    port = free_port()
    command = [sys.executable, "-m", module, str(port), *arguments]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            wait_for_api(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.kill()


@contextmanager
def child(module: str, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A part of the benchmark in a separate process, which reports in lines of JSON."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def line(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    text = await asyncio.to_thread(process.stdout.readline)
    assert text, f"a part of the benchmark ended: {process.args!r}"
    found: dict[str, Any] = json.loads(text)
    return found


def costs(name: str, rounds: dict[str, list[Measured]], *, parts: tuple[str, ...] = ("api", "postgres")) -> Figures:
    """CPU of each part in multiples of f, and requests a second as a share of the bare handler's, round by round."""
    pairs = list(zip(rounds[name], rounds["bare"], strict=True))
    found = {
        f"{name}.{part}": Figure.of((one.cpu[part] / bare.cpu["bare"] for one, bare in pairs), "f") for part in parts
    }
    return {
        **found,
        f"{name}.rate": Figure.of((one.per_second / bare.per_second for one, bare in pairs), "× bare"),
        f"{name}.p99": Figure.of((one.load.milliseconds(99) for one, _ in pairs), "ms"),
    }


def of_bare(rounds: list[Measured]) -> Figures:
    return {
        "f": Figure.of((one.cpu["bare"] * 1e6 for one in rounds), "µs"),
        "bare.rate": Figure.of((one.per_second for one in rounds), "requests/s"),
    }
