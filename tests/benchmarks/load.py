"""A closed-loop load: keep-alive connections that each send their next request after the last reply.

It runs in a uvloop and parses only what it needs, so that one core can load the bare handler.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

CONNECTIONS = 32
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)

#: Makes the n-th request.
Request = Callable[[int], bytes]


@dataclass(slots=True)
class Load:
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds

    def milliseconds(self, percent: int) -> float:
        return percentile(self.latencies, percent) * 1000


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1] if len(values) > 1 else values[0]


def request_bytes(method: str, path: str, *, token: str = "", body: bytes = b"", accept: str = "") -> bytes:
    headers = [f"{method} {path} HTTP/1.1", "Host: bench"]
    if token:
        headers.append(f"Authorization: Bearer {token}")
    if accept:
        headers.append(f"Accept: {accept}")
    if body:
        headers += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*headers, "", ""]).encode() + body


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], expect: int, load: Load, done: asyncio.Future[None]) -> None:
        self._requests = requests
        self._status = f"HTTP/1.1 {expect} ".encode()
        self._load = load
        self._done = done
        self._data = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n") + 4
        if end < 4 or not (length := _LENGTH.search(self._data, 0, end)):
            return
        if len(self._data) < end + int(length[1]):
            return
        self._load.latencies.append(time.perf_counter() - self._began)
        if not self._data.startswith(self._status):
            self._fail(AssertionError(self._data))
            return
        self._load.bodies.append(self._data[end:])
        self._data = b""
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or ConnectionResetError("closed by the server"))

    def _fail(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            if not self._done.done():
                self._done.set_result(None)
            self._transport.close()
            return
        self._began = time.perf_counter()
        self._transport.write(request)


async def load(url: str, request: Request, *, requests: int, expect: int = 200, connections: int = CONNECTIONS) -> Load:
    """Each request must be answered with the status `expect`."""
    loop, parts, made = asyncio.get_running_loop(), urlsplit(url), Load()
    host, port = parts.hostname or "", parts.port or 0
    numbered = (request(number) for number in range(requests))
    ends: list[asyncio.Future[None]] = [loop.create_future() for _ in range(min(connections, requests))]
    began = time.perf_counter()
    for end in ends:
        await loop.create_connection(partial(_Connection, numbered, expect, made, end), host, port)
    await asyncio.gather(*ends)
    made.seconds = time.perf_counter() - began
    return made
