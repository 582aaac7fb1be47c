"""The two ends of thousands of streams, each a process: what writes the replies, as workers do, and what reads them.

`write FILE REDIS PER_SECOND SECONDS` and `read FILE URL PIECES`; the file has token, room and id of each message. A
delivery is timed from the writer's add() until the client has the bytes, so it includes the up to 50 ms for which
pieces wait for each other.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import sys
import time
from array import array
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import structlog
import uvloop

from adapters.redis.reply_stream import RedisReplyStream
from domain.ids import MessageId
from tests.benchmarks.load import percentile

NAMESPACE = "gemini-backend"
SIZE = 60  # characters of a piece
PIECE = re.compile(rb"(\d{6}) (\d{9}\.\d{6}) ")
_OPENING = 100  # connections at a time
_PORTS = 20_000  # connections from one source address
_SLOT = 0.01  # seconds; the replies are spread over those between two pieces
_PATIENCE = 30.0


#: Token, room and id.
Messages = list[tuple[str, str, str]]


async def write(messages: Messages, url: str, per_second: str, seconds: str) -> None:
    stream = RedisReplyStream(url, namespace=NAMESPACE, command_seconds=2)
    writers = [stream.write(MessageId(UUID(message)), 1) for _, _, message in messages]
    await asyncio.sleep(1)
    slots = round(1 / _SLOT / int(per_second))
    began, cpu = time.monotonic(), time.process_time()
    for turn in range(int(seconds) * int(per_second)):
        for slot in range(slots):
            await asyncio.sleep(max(0, began + (turn * slots + slot) * _SLOT - time.monotonic()))
            piece = f"{turn:06d} {time.monotonic():016.6f} ".ljust(SIZE, ".")
            for writer in writers[slot::slots]:
                writer.add(piece)
    took = time.monotonic() - began
    _report(cpu=time.process_time() - cpu, late=took / int(seconds))
    await asyncio.sleep(_PATIENCE)  # what waits in this process is still sent; the benchmark ends it
    await stream.close()


@dataclass
class Seen:
    """What all readers received."""

    reading: int
    pieces: int
    delays: array[float] = field(default_factory=lambda: array("d"))
    twice: int = 0
    cut: int = 0
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

    def connection_lost(self, error: Exception | None) -> None:
        self._seen.cut += not self._seen.has_ended.is_set()
        if not self.is_open.done():
            self.is_open.set_exception(error or ConnectionResetError("closed by the server"))

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        data = self._rest + data
        if not self.is_open.done() and not data.startswith(b"HTTP/1.1 200 "):
            self.is_open.set_exception(AssertionError(data))
        if not data.endswith(b"\n\n\r\n"):  # the end of an event and its chunk
            self._rest = data
            return
        self._rest = b""
        if not self.is_open.done():
            self.is_open.set_result(None)
        for number, sent in PIECE.findall(data):
            self._take(int(number), now - float(sent))

    def _take(self, number: int, delay: float) -> None:
        seen = self._seen
        seen.delays.append(delay)
        seen.twice += number < self._expected
        self._expected = number + 1
        if self._expected == seen.pieces:
            seen.reading -= 1
            if not seen.reading:
                seen.has_ended.set()


async def read(messages: Messages, url: str, pieces: str) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    parts, seen = urlsplit(url), Seen(len(messages), int(pieces))
    host, port = parts.hostname or "", parts.port or 0
    ready = asyncio.Semaphore(_OPENING)

    async def follow(number: int, token: str, room: str, message: str) -> Reader:
        request = (
            f"GET /chatroom/{room}/message/{message}/stream HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Authorization: Bearer {token}\r\nAccept: text/event-stream\r\n\r\n"
        ).encode()
        source = f"127.0.0.{1 + number // _PORTS}", 0
        async with ready:
            _, reader = await asyncio.get_running_loop().create_connection(
                lambda: Reader(request, seen), host, port, local_addr=source
            )
            await reader.is_open
        return reader

    following = await asyncio.gather(*(follow(number, *message) for number, message in enumerate(messages)))
    _report(joined=len(following))
    with suppress(TimeoutError):  # what is missing will show
        async with asyncio.timeout(float(sys.stdin.readline()) + _PATIENCE):
            await seen.has_ended.wait()
    delays = list(seen.delays)
    _report(
        delivered=len(delays),
        twice=seen.twice,
        cut=seen.cut,
        p50=percentile(delays, 50) * 1000,
        p99=percentile(delays, 99) * 1000,
    )
    for reader in following:
        reader.transport.abort()


def _report(**found: float) -> None:
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    role, file, *arguments = sys.argv[1:]
    uvloop.run((read if role == "read" else write)(json.loads(Path(file).read_text()), *arguments))
