"""`python -m tests.benchmarks.streams`: thousands of readers of replies in one process, and what they cost.

One process writes, one reads, and Valkey is between them; the three share this machine's cores. Each reply
goes on five times a second. A delivery is timed from the writer's add() to the reader's task that has it, so
it includes the up to 50 ms for which pieces wait for each other.
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
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
import uvloop
from redis.asyncio import Redis

from adapters.redis.reply_stream import RedisReplyStream
from application.ports.chat import ReplyReader
from domain.ids import MessageId
from local.valkey import EmbeddedValkey
from tests.benchmarks.load import cpu_seconds
from tests.support.processes import ROOT

SECONDS = int(os.environ.get("BENCH_SECONDS", "10"))
PER_SECOND = 5
SIZE = 60  # characters of a piece
STAMP = 24  # of them, number and time
SCENES = ((50, 100), (5_000, 1))


def main() -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{PER_SECOND} pieces a second and reply for {SECONDS} s; CPU as a share of one core\n")
    print(
        f"{'replies × readers':>18} {'delivered':>9} {'lost':>5} {'twice':>5} {'p50 ms':>7} {'p99 ms':>7} {'max ms':>7}"
        f" {'reader':>7} {'writer':>7} {'Valkey':>7} {'RSS MB':>7} {'connections':>12}"
    )
    for messages, readers in SCENES:
        with tempfile.TemporaryDirectory(prefix="gemini-bench-") as folder, ExitStack() as stack:
            valkey = EmbeddedValkey(Path(folder, "valkey"))
            url = valkey.start()
            stack.callback(valkey.stop)
            assert valkey.pid is not None
            arguments = [url, f"bench-{secrets.token_hex(4)}", str(messages)]
            reader = stack.enter_context(_process("read", *arguments, str(readers)))
            _line(reader)
            cpu = cpu_seconds(valkey.pid)
            written = _line(stack.enter_context(_process("write", *arguments)))
            valkey_cpu = (cpu_seconds(valkey.pid) - cpu) / SECONDS
            seen = _line(reader)
        print(
            f"{f'{messages} × {readers}':>18} {seen['delivered']:9} {seen['lost']:5} {seen['twice']:5}"
            f" {seen['p50']:7.1f} {seen['p99']:7.1f} {seen['max']:7.1f} {seen['cpu']:7.0%} {written['cpu']:7.0%}"
            f" {valkey_cpu:7.0%} {seen['rss']:7.0f} {seen['connections']:12}"
        )


def _process(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.benchmarks.streams", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def _line(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    line: dict[str, Any] = json.loads(process.stdout.readline())
    return line


def _ids(messages: int) -> list[MessageId]:
    return [MessageId(UUID(int=number)) for number in range(messages)]


async def write(url: str, namespace: str, messages: int) -> None:
    stream = RedisReplyStream(url, namespace=namespace, command_seconds=0.5)
    writers = [stream.write(message_id, 1) for message_id in _ids(messages)]
    await asyncio.sleep(1)
    slots = 100 // PER_SECOND  # of 10 ms, over which the replies are spread between two pieces
    began, cpu = time.monotonic(), time.process_time()
    for turn in range(SECONDS * PER_SECOND):
        for slot in range(slots):
            await asyncio.sleep(max(0, began + (turn * slots + slot) / 100 - time.monotonic()))
            piece = f"{turn:06d} {time.monotonic():016.6f} ".ljust(SIZE, ".")
            for writer in writers[slot::slots]:
                writer.add(piece)
    print(json.dumps({"cpu": (time.process_time() - cpu) / (time.monotonic() - began)}), flush=True)
    await asyncio.gather(*(writer.close() for writer in writers))
    await asyncio.sleep(2)  # for those that took longer than the wait
    await stream.close()


class Listener:
    def __init__(self) -> None:
        self.expected = 0
        self.lost = 0
        self.twice = 0
        self.delays: list[float] = []

    async def listen(self, reader: ReplyReader) -> None:
        while self.expected < SECONDS * PER_SECOND:
            pieces = await reader.read()
            now = time.monotonic()
            for piece in pieces:
                for begin in range(0, len(piece.text), SIZE):
                    number, sent = piece.text[begin : begin + STAMP].split()
                    self.lost += max(0, int(number) - self.expected)
                    self.twice += int(number) < self.expected
                    self.expected = int(number) + 1
                    self.delays.append(now - float(sent))


async def read(url: str, namespace: str, messages: int, readers: int) -> None:
    stream = RedisReplyStream(url, namespace=namespace, command_seconds=0.5)
    listeners = [Listener() for _ in range(messages * readers)]
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis.from_url(url))
        others = len(await redis.client_list())
        followed = [
            await stack.enter_async_context(stream.follow(message_id))
            for message_id in _ids(messages)
            for _ in range(readers)
        ]
        tasks = [
            asyncio.create_task(listener.listen(reader)) for listener, reader in zip(listeners, followed, strict=True)
        ]
        while len(await redis.pubsub_channels(f"{namespace}:*")) < messages:  # noqa: ASYNC110 - the server does it
            await asyncio.sleep(0.01)
        print(json.dumps({"joined": len(followed)}), flush=True)
        while not any(listener.delays for listener in listeners):  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.01)
        began, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(SECONDS - 1)
        used, connections = time.process_time() - cpu, len(await redis.client_list()) - others
        share = used / (time.monotonic() - began)
        await asyncio.wait(tasks, timeout=10)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await stream.close()
    delays = [delay for listener in listeners for delay in listener.delays]
    quantiles = statistics.quantiles(delays, n=100)
    result = {
        "delivered": len(delays),
        "lost": len(listeners) * SECONDS * PER_SECOND - len(delays) + sum(listener.twice for listener in listeners),
        "twice": sum(listener.twice for listener in listeners),
        "p50": quantiles[49] * 1000,
        "p99": quantiles[98] * 1000,
        "max": max(delays) * 1000,
        "cpu": share,
        "rss": _rss_megabytes(),
        "connections": connections - 1,  # the writer's
    }
    print(json.dumps(result), flush=True)


def _rss_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    match sys.argv[1:]:
        case ["read", url, namespace, messages, readers]:
            uvloop.run(read(url, namespace, int(messages), int(readers)))
        case ["write", url, namespace, messages]:
            uvloop.run(write(url, namespace, int(messages)))
        case _:
            main()
