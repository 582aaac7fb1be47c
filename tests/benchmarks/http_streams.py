"""`python -m tests.benchmarks.http_streams`: thousands of streams over HTTP from one API process, and what they cost.

One process writes the replies, as workers do; one reads them all, each on a separate connection; the API is
between them, with Postgres and Valkey, and all share this machine's cores. Pieces and times are those of
tests.benchmarks.streams: a delivery is timed from the writer's add() to the client that has the bytes. What the
API's CPU costs an event is the steadier figure where others use the machine, too.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from array import array
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import structlog
import uvloop
from redis.asyncio import Redis

from tests.benchmarks.load import cpu_seconds
from tests.benchmarks.streams import PER_SECOND, SECONDS, SIZE
from tests.chaos.world import world
from tests.support.processes import ROOT

SCENES = ((50, 100), (5_000, 1))
OPENING = 100  # connections at a time
#: Number and time of a piece, as streams.py writes them.
PIECE = re.compile(rb"(\d{6}) (\d{9}\.\d{6}) ")
_NAMED = "?client_name=benchmark"
_NAMESPACE = "gemini-backend"
_GENERATING = """
    INSERT INTO messages (id, input, created_at, status, attempt, failures, deaths, allowance_day, charged, queued_at,
        max_output_tokens, due_at, lease_until, rung_at, chatroom_id, user_id)
    SELECT ('00000000-0000-0000-0000-' || lpad(to_hex(n), 12, '0'))::uuid, 'Why?', now(), 'generating', 1, 0, 0,
        current_date, true, now(), 2048, now(), now() + interval '1 day', now(), '{room}', '{user}'
    FROM generate_series(0, {last}) n
"""


async def main() -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"load before: {', '.join(f'{load:.1f}' for load in os.getloadavg())}")
    print(f"{PER_SECOND} pieces a second and reply for {SECONDS} s; CPU as a share of one core\n")
    print(
        f"{'replies × readers':>18} {'delivered':>9} {'lost':>5} {'twice':>5} {'p50 ms':>7} {'p99 ms':>7} {'max ms':>7}"
        f" {'API':>5} {'µs each':>7} {'reader':>6} {'writer':>6} {'Redis':>5} {'RSS MB idle, most, after':>25}"
        f" {'files after':>11}"
    )
    for messages, readers in SCENES:
        await scene(messages, readers)


async def scene(messages: int, readers: int) -> None:
    async with world(apis=1, workers=0, STREAMS_PER_PROCESS="6000") as made:
        (person,) = await made.people(1)
        await made.execute(_GENERATING.format(room=person.room, user=person.id, last=messages - 1))
        (url,) = made.urls
        pid = made.apis[url].process.pid
        idle, files = memory(pid)[0], open_files(pid)
        redis = made.valkey.url + _NAMED
        with ExitStack() as stack:
            arguments = [url, person.token, person.room, str(messages), str(readers)]
            reader = stack.enter_context(process("tests.benchmarks.http_streams", *arguments))
            await line(reader)
            began, cpu = time.monotonic(), cpu_seconds(pid)
            writer = stack.enter_context(process("tests.benchmarks.streams", "write", redis, _NAMESPACE, str(messages)))
            await asyncio.sleep(SECONDS)
            connections = await redis_connections(redis)
            written = await line(writer)
            seen = await line(reader)
            cpu = cpu_seconds(pid) - cpu
            lost = readers * await pieces_written(redis, messages) - seen["delivered"] + seen["twice"]
            share, each = cpu / (time.monotonic() - began), cpu / seen["delivered"] * 1e6
        give_up = time.monotonic() + 10
        while open_files(pid) > files and time.monotonic() < give_up:  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.1)
        after, most = memory(pid)
    print(
        f"{f'{messages} × {readers}':>18} {seen['delivered']:9} {lost:5} {seen['twice']:5}"
        f" {seen['p50']:7.1f} {seen['p99']:7.1f} {seen['max']:7.1f} {share:5.0%} {each:7.1f} {seen['cpu']:6.0%}"
        f" {written['cpu']:6.0%} {connections:5} {f'{idle:.0f}, {most:.0f}, {after:.0f}':>25}"
        f" {open_files(pid) - files:+11}",
        flush=True,
    )


def process(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT, stdout=subprocess.PIPE)


async def line(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(await asyncio.to_thread(process.stdout.readline))
    return found


def memory(pid: int) -> tuple[float, float]:
    """Resident MB of a process: now, and its maximum so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    now, most = (int(status.split(f"{name}:")[1].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir())) if Path(f"/proc/{pid}").exists() else 0


async def redis_connections(url: str) -> int:
    """The connections of the API; the benchmark's own have its name."""
    async with Redis.from_url(url) as redis:
        names = Counter(client["name"] for client in await redis.client_list())
    return names.total() - names["benchmark"]


async def pieces_written(url: str, messages: int) -> int:
    """The pieces in Redis: a writer that waits too long gives up, and the end of the reply brings the rest."""
    async with Redis.from_url(url) as redis:
        pipeline = redis.pipeline(transaction=False)
        for n in range(messages):
            pipeline.xrevrange(f"{_NAMESPACE}:reply:{UUID(int=n)}", count=1)
        newest = await pipeline.execute()
    return sum(int(position.split(b"-")[1]) // SIZE for ((position, _),) in newest)


@dataclass
class Seen:
    """What all readers received, and how many of them did not receive everything."""

    reading: int
    delays: array[float] = field(default_factory=lambda: array("d"))
    twice: int = 0
    has_begun: asyncio.Event = field(default_factory=asyncio.Event)
    has_ended: asyncio.Event = field(default_factory=asyncio.Event)


class Reader(asyncio.Protocol):
    def __init__(self, request: bytes, seen: Seen) -> None:
        self._request = request
        self._seen = seen
        self._rest = b""
        self._expected = 0
        self.is_open = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        data = self._rest + data
        if not data.endswith(b"\n\n\r\n"):  # the end of an event and its chunk
            self._rest = data
            return
        self._rest = b""
        if not self.is_open.done():
            self.is_open.set_result(data.startswith(b"HTTP/1.1 200 "))
        for number, sent in PIECE.findall(data):
            self._take(int(number), now - float(sent))

    def _take(self, number: int, delay: float) -> None:
        seen = self._seen
        seen.delays.append(delay)
        seen.has_begun.set()
        seen.twice += number < self._expected
        self._expected = number + 1
        if self._expected == SECONDS * PER_SECOND:
            seen.reading -= 1
            if not seen.reading:
                seen.has_ended.set()


async def read(url: str, token: str, room: str, messages: int, readers: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    parts, seen = urlsplit(url), Seen(messages * readers)
    host, port = parts.hostname or "", parts.port or 0
    ready = asyncio.Semaphore(OPENING)

    async def follow(message: UUID) -> Reader:
        request = (
            f"GET /chatroom/{room}/message/{message}/stream HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Authorization: Bearer {token}\r\nAccept: text/event-stream\r\n\r\n"
        ).encode()
        async with ready:
            _, reader = await asyncio.get_running_loop().create_connection(lambda: Reader(request, seen), host, port)
            assert await reader.is_open
        return reader

    following = await asyncio.gather(*(follow(UUID(int=n)) for n in range(messages) for _ in range(readers)))
    print(json.dumps({"joined": len(following)}), flush=True)
    await seen.has_begun.wait()
    began, cpu = time.monotonic(), time.process_time()
    await asyncio.sleep(SECONDS - 1)
    share = (time.process_time() - cpu) / (time.monotonic() - began)
    try:
        async with asyncio.timeout(30):
            await seen.has_ended.wait()
    except TimeoutError:
        pass  # the missing data will show
    for reader in following:
        reader.transport.abort()
    quantiles = statistics.quantiles(seen.delays, n=100)
    result = {
        "delivered": len(seen.delays),
        "twice": seen.twice,
        "p50": quantiles[49] * 1000,
        "p99": quantiles[98] * 1000,
        "max": max(seen.delays) * 1000,
        "cpu": share,
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    match sys.argv[1:]:
        case [url, token, room, messages, readers]:
            uvloop.run(read(url, token, room, int(messages), int(readers)))
        case _:
            asyncio.run(main())
