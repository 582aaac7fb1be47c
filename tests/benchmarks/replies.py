"""What replies cost a worker, and whether they are complete: `python -m tests.benchmarks.replies [seconds of thought]`.

Throughput and CPU of one worker in fresh rooms and in one long room, in multiples of a bare Sanic request of the same
run; the delay of its event loop with 500 replies in flight; how 200 prompts end at each level of thinking; and two
models of great patience: one that is silent for 50 s, one that thinks for minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from adapters.postgres.migrate import migrate
from adapters.system import TimeOrderedIds
from domain.chat.calls import ThinkingLevel
from local.postgres import EmbeddedPostgres
from local.valkey import EmbeddedValkey
from tests.benchmarks.__main__ import bare_server
from tests.benchmarks.load import cpu_seconds, load, request_bytes
from tests.support.gemini_standin import GeminiStandIn, start_gemini_standin
from tests.support.processes import ROOT, worker_process

REPLIES = int(os.environ.get("BENCH_REPLIES", "1500"))
IN_FLIGHT = 500
PROMPTS = 200
_ids = TimeOrderedIds()


class Bench:
    """A database to which messages are added as if they had just been accepted."""

    def __init__(self, connection: asyncpg.Connection, gemini: GeminiStandIn, environment: dict[str, str]) -> None:
        self.connection = connection
        self.gemini = gemini
        self.environment = environment

    async def room(self, exchanges: int = 0) -> tuple[UUID, UUID]:
        """A new room of a new user, with answered messages of about 350 tokens each: its id and the owner's."""
        user, room = uuid4(), _ids.new()
        await self.connection.execute(
            "INSERT INTO users (id, mobile, name, chatrooms_version, created_at) VALUES ($1, $2, 'Bench', 0, now())",
            user,
            f"+91{secrets.randbelow(10**10):010d}",
        )
        await self.connection.execute(
            "INSERT INTO chatrooms (id, user_id, name, created_at) VALUES ($1, $2, 'Bench', now())", room, user
        )
        for _ in range(exchanges):
            await self.send(room, user, "Why? " * 40, response="Because it is so. " * 70)
        return room, user

    async def send(
        self, room: UUID, user: UUID, text: str, *, response: str | None = None, level: str | None = "low"
    ) -> None:
        await self.connection.execute(
            "INSERT INTO messages (id, chatroom_id, user_id, input, created_at, status, response, finish_reason,"
            " attempt, failures, deaths, allowance_day, charged, queued_at, max_output_tokens, thinking, due_at,"
            " rung_at) VALUES ($1, $2, $3, $4, now(), $5, $6, $7, 0, 0, 0, now()::date, true, now(), 4096, $8, now(),"
            " now() - interval '1 day')",
            _ids.new(),
            room,
            user,
            text,
            "completed" if response else "queued",
            response,
            "STOP" if response else None,
            level,
        )

    async def unanswered(self) -> int:
        sql = "SELECT count(*) FROM messages WHERE status IN ('queued', 'generating')"
        count: int = await self.connection.fetchval(sql)
        return count

    async def answered(self) -> None:
        while await self.unanswered():  # noqa: ASYNC110 - another process ends them
            await asyncio.sleep(0.05)

    async def costs(self) -> tuple[float, float]:
        """Replies per second and CPU seconds of the worker per reply, for all queued messages."""
        count = await self.unanswered()
        with worker_process(self.environment) as worker:
            while await self.unanswered() > count - 20:  # started, connected, warm  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            left, began, cpu = await self.unanswered(), time.perf_counter(), cpu_seconds(worker.process.pid)
            await self.answered()
            seconds, cpu = time.perf_counter() - began, cpu_seconds(worker.process.pid) - cpu
        return left / seconds, cpu / left


def _bare_request() -> float:
    """Seconds of CPU."""
    with bare_server() as (url, pid):
        ask = [asyncio.run(load(url, pid, lambda _: request_bytes("GET", "/health"), expect=200, requests=4000))
               for _ in range(3)]  # fmt: skip
    return statistics.median(measured.cpu_seconds / measured.requests for measured in ask)


async def throughput(bench: Bench, bare: float) -> None:
    rows = {}
    for _ in range(REPLIES):
        room, user = await bench.room()
        await bench.send(room, user, "Hello")
    rows["fresh rooms"] = await bench.costs()
    room, user = await bench.room(exchanges=40)
    for _ in range(REPLIES):
        await bench.send(room, user, "Hello")
    rows["one long room"] = await bench.costs()
    for name, (rate, cpu) in rows.items():
        print(f"{name:16} {rate:7.1f} replies/s {cpu * 1e6:8.0f} µs of the worker's CPU {cpu / bare:6.1f} × bare")
    print(f"long : fresh     {rows['one long room'][0] / rows['fresh rooms'][0]:7.2f}")


@contextmanager
def _lag_worker(environment: dict[str, str], file: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.benchmarks.lag_worker", str(file)]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | environment) as process:
        try:
            yield
        finally:
            process.kill()


async def loop_lag(bench: Bench, folder: Path) -> None:
    bench.gemini.pace(first_chunk_seconds=1, chunk_seconds=0.5, chunks=60)
    room, user = await bench.room(exchanges=40)
    for _ in range(IN_FLIGHT):
        await bench.send(room, user, "Hello")
    file = folder / "lag"
    with _lag_worker(bench.environment, file):
        await bench.gemini.until(lambda log: log["open"] >= IN_FLIGHT * 0.98, seconds=120)
        reached = bench.gemini.log(limit=1)["open"]
        before = len(json.loads(file.read_text()))
        await asyncio.sleep(6)
        delays = json.loads(file.read_text())[before:]
        await bench.answered()
    bench.gemini.pace(first_chunk_seconds=0, chunk_seconds=0, chunks=9)
    quantiles = statistics.quantiles(delays, n=100)
    print(f"loop delay       p50 {quantiles[49]:.1f} ms, p99 {quantiles[98]:.1f} ms, {reached} replies in flight")


async def endings(bench: Bench) -> None:
    bench.gemini.directives("")  # it thinks and writes as Gemini does
    for level in ThinkingLevel:
        for number in range(PROMPTS):
            room, user = await bench.room()
            await bench.send(room, user, f"Prompt {number} of {level}", level=level)
        await bench.connection.execute("UPDATE messages SET finish_reason = NULL WHERE status <> 'queued'")
        with worker_process(bench.environment):
            await bench.answered()
        found = await bench.connection.fetch(
            "SELECT finish_reason FROM messages WHERE input LIKE $1", f"Prompt % of {level}"
        )
        ends = Counter(row["finish_reason"] for row in found)
        print(f"level {level:10} {ends['STOP'] / PROMPTS:7.1%} end in STOP   {dict(ends)}")
    bench.gemini.clear()


async def patience(bench: Bench, thinking_seconds: int) -> None:
    bench.gemini.fault("silent", match="Silent", times=None, seconds=50)
    bench.gemini.fault("think", match="Thinks", times=None, seconds=thinking_seconds, thoughts=4000)
    for text in ("Silent", "Thinks"):
        room, user = await bench.room()
        await bench.send(room, user, text)
    began = time.perf_counter()
    bench.gemini.control("DELETE", "/calls")
    with worker_process(bench.environment):
        await bench.answered()
    sql = "SELECT input, status, finish_reason, attempt, thoughts FROM messages WHERE input IN ('Silent', 'Thinks')"
    for row in await bench.connection.fetch(sql):
        thoughts = f"{len(row['thoughts'] or '')} characters of thoughts"
        print(f"{row['input']:16} {row['status']}, {row['finish_reason']}, attempt {row['attempt']}, {thoughts}")
    print(f"calls in all     {bench.gemini.log(limit=1)['total']} in {time.perf_counter() - began:.0f} s")


async def _run(
    database_url: str, gemini: GeminiStandIn, environment: dict[str, Any], folder: Path, bare: float
) -> None:
    connection = await asyncpg.connect(database_url)
    bench = Bench(connection, gemini, environment)
    await throughput(bench, bare)
    await loop_lag(bench, folder)
    await endings(bench)
    await patience(bench, int(sys.argv[1]) if len(sys.argv) > 1 else 90)
    await connection.close()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gemini-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        database_url = stack.enter_context(EmbeddedPostgres(folder / "postgres"))
        standin = start_gemini_standin("--first-chunk-seconds", "0", "--chunk-seconds", "0")
        stack.callback(standin.close)
        gemini = next(standin)
        environment = {
            "DATABASE_URL": database_url,
            "REDIS_URL": stack.enter_context(EmbeddedValkey(folder / "valkey")),
            "ACCESS_TOKEN_SECRET": secrets.token_hex(32),
            "GEMINI_API_KEY": "stand-in",
            "GEMINI_BASE_URL": gemini.url,
            "LOG_LEVEL": "warning",
        }
        asyncio.run(migrate(database_url))
        bare = _bare_request()
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, one worker process")
        print(f"bare request     {bare * 1e6:.0f} µs")
        asyncio.run(_run(database_url, gemini, environment, folder, bare))


if __name__ == "__main__":
    main()
