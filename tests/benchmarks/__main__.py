"""`make bench`: what the hot paths cost, as figures and as ratios to a bare Sanic handler of the same run.

One API process, one worker process, embedded Postgres and Valkey, the stand-in for Gemini without
its pace, and the load itself share this machine's cores, so the ratios say more than the figures.
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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from adapters.postgres.migrate import migrate
from local.files import free_port
from local.postgres import EmbeddedPostgres
from local.valkey import EmbeddedValkey
from tests.benchmarks.load import Measured, load, request_bytes
from tests.support.gemini_standin import start_gemini_standin
from tests.support.processes import ROOT, api_process, wait_for_api, worker_process

REQUESTS = int(os.environ.get("BENCH_REQUESTS", "4000"))
ROUNDS = 3
REPLIES = 50


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gemini-bench-") as folder, ExitStack() as stack:
        database_url = stack.enter_context(EmbeddedPostgres(Path(folder, "postgres")))
        standin = start_gemini_standin("--first-chunk-seconds", "0", "--chunk-seconds", "0")
        stack.callback(standin.close)
        gemini = next(standin)
        environment = {
            "DATABASE_URL": database_url,
            "REDIS_URL": stack.enter_context(EmbeddedValkey(Path(folder, "valkey"))),
            "ACCESS_TOKEN_SECRET": secrets.token_hex(32),
            "GEMINI_API_KEY": "stand-in",
            "GEMINI_BASE_URL": gemini.url,
            "LOG_LEVEL": "warning",
            "RATE_LIMITS": "off",
        }
        asyncio.run(migrate(database_url))
        url, api = stack.enter_context(api_process(environment))
        bare_url, bare_pid = stack.enter_context(bare_server())
        token, room = asyncio.run(_furnish(url, database_url))

        body = json.dumps({"input": "Why is the sky blue?"}).encode()
        calls: dict[str, Callable[[int], bytes]] = {
            "GET /user/me": lambda _: request_bytes("GET", "/user/me", token=token),
            "GET /chatroom (50, cached)": lambda _: request_bytes("GET", "/chatroom", token=token),
            "GET /chatroom/:id (20)": lambda _: request_bytes("GET", f"/chatroom/{room}", token=token),
            "POST …/message": lambda _: request_bytes("POST", f"/chatroom/{room}/message", token=token, body=body),
        }
        bare = _measure(bare_url, bare_pid, lambda _: request_bytes("GET", "/health"), 200)
        rows = [("bare Sanic JSON", bare)]
        for name, request in calls.items():
            # Sending comes last, because it fills the room that is read before. No worker is running yet.
            expect = 202 if name.startswith("POST") else 200
            rows.append((name, _measure(url, api.process.pid, request, expect)))

        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, one API process")
        print(f"{REQUESTS} requests over 16 connections, the median of {ROUNDS} rounds\n")
        print(f"{'call':28} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'CPU µs':>8} {'× bare':>8}")
        for name, measured in rows:
            print(
                f"{name:28} {measured.per_second:8.0f} {measured.percentile(50):8.2f} {measured.percentile(99):8.2f}"
                f" {measured.cpu_microseconds:8.0f} {measured.cpu_microseconds / bare.cpu_microseconds:8.1f}"
            )

        asyncio.run(_forget_queue(database_url))
        stack.enter_context(worker_process(environment))
        overheads = asyncio.run(_reply_overheads(url, token, room))
        print(f"\nfrom POST to the stored reply, beyond the model's own time, {REPLIES} messages one by one:")
        quantiles = statistics.quantiles(overheads, n=100)
        print(f"p50 {quantiles[49] * 1000:.1f} ms, p99 {quantiles[98] * 1000:.1f} ms")


def _measure(url: str, pid: int, request: Callable[[int], bytes], expect: int) -> Measured:
    asyncio.run(load(url, pid, request, expect=expect, requests=REQUESTS // 10))
    rounds = [asyncio.run(load(url, pid, request, expect=expect, requests=REQUESTS)) for _ in range(ROUNDS)]
    return sorted(rounds, key=lambda measured: measured.cpu_seconds)[ROUNDS // 2]


@contextmanager
def bare_server() -> Iterator[tuple[str, int]]:
    port = free_port()
    with subprocess.Popen([sys.executable, "-m", "tests.benchmarks.bare", str(port)], cwd=ROOT) as process:
        try:
            wait_for_api(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.kill()


async def _furnish(url: str, database_url: str) -> tuple[str, str]:
    """A user on Pro with 50 rooms, the last of which has 20 answered messages: token and room."""
    async with httpx.AsyncClient(base_url=url) as http:

        async def post(path: str, body: dict[str, str], **headers: str) -> Any:
            return (await http.post(path, json=body, headers=headers)).raise_for_status().json()

        mobile = "+919876543210"
        user = (await post("/auth/signup", {"mobile": mobile, "name": "Bench"}))["user"]
        otp = (await post("/auth/send-otp", {"mobile": mobile}))["otp"]
        token = (await post("/auth/verify-otp", {"mobile": mobile, "otp": otp}))["token"]
        for number in range(50):
            room = await post("/chatroom", {"name": f"Room {number}"}, Authorization=f"Bearer {token}")
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE users SET pro_until = '9999-12-31' WHERE id = $1", user["id"])
    await connection.execute(
        "INSERT INTO messages (id, chatroom_id, user_id, input, created_at, status, response, finish_reason,"
        " input_tokens, output_tokens, attempt, failures, deaths, allowance_day, charged, queued_at,"
        " max_output_tokens, completed_at, due_at, rung_at)"
        " SELECT uuidv7(), $1, $2, repeat('why ', 20), now(), 'completed', repeat('because ', 100),"
        " 'STOP', 20, 200, 1, 0, 0, now()::date, true, now(), 2048, now(), now(), now() FROM generate_series(1, 20)",
        room["data"]["id"],
        user["id"],
    )
    await connection.close()
    return token, room["data"]["id"]


async def _forget_queue(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("DELETE FROM messages WHERE status = 'queued'")
    await connection.execute("ANALYZE")
    await connection.close()


async def _reply_overheads(url: str, token: str, room: str) -> list[float]:
    """Seconds from sending a message to its reply being in the database, by the service's timestamps.

    The stand-in answers at once, so this is all overhead: two processes, Postgres, Valkey and the SDK.
    """
    overheads = []
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {token}"}) as http:
        for number in range(REPLIES + 5):
            began = time.perf_counter()
            sent = (await http.post(f"/chatroom/{room}/message", json={"input": "Hello"})).raise_for_status().json()
            path = f"/chatroom/{room}/message/{sent['data']['id']}"
            while (await http.get(path)).json()["data"]["status"] != "completed":  # noqa: ASYNC110 - another process does it
                await asyncio.sleep(0.001)
            if number >= 5:  # the first ones load the SDK
                overheads.append(time.perf_counter() - began)
    return overheads


if __name__ == "__main__":
    main()
