"""A small closed-loop load: keep-alive connections that each send their next request after the last reply."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Measured:
    requests: int
    seconds: float
    cpu_seconds: float
    """CPU time of the API process alone, user and system."""
    latencies: list[float]

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    @property
    def cpu_microseconds(self) -> float:
        return self.cpu_seconds / self.requests * 1e6

    def percentile(self, percent: int) -> float:
        """Milliseconds."""
        return statistics.quantiles(self.latencies, n=100)[percent - 1] * 1000


def request_bytes(method: str, path: str, *, token: str = "", body: bytes = b"") -> bytes:
    headers = [f"{method} {path} HTTP/1.1", "Host: bench"]
    if token:
        headers.append(f"Authorization: Bearer {token}")
    if body:
        headers += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*headers, "", ""]).encode() + body


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far. Linux: fields 14 and 15 of its stat, in ticks of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def load(
    url: str, pid: int, request: Callable[[int], bytes], *, expect: int, requests: int, connections: int = 16
) -> Measured:
    """Send `requests` requests; `request(n)` makes the n-th. Each must be answered with `expect`."""
    parts = urlsplit(url)
    numbers = iter(range(requests))
    latencies: list[float] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            for number in numbers:
                began = time.perf_counter()
                writer.write(request(number))
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                latencies.append(time.perf_counter() - began)
                assert int(head[9:12]) == expect, (head, body)
        finally:
            writer.close()

    cpu, began = cpu_seconds(pid), time.perf_counter()
    async with asyncio.TaskGroup() as clients:
        for _ in range(connections):
            clients.create_task(client())
    return Measured(requests, time.perf_counter() - began, cpu_seconds(pid) - cpu, latencies)
