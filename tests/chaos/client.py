"""A cheap client for loads. Like a load balancer it tolerates a refused connection, and nothing else."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Person:
    """A user with a session and a room."""

    id: str
    token: str
    room: str


class Failed(Exception):
    """No complete answer came. `sent`: the request had been written, so it may have taken effect."""

    def __init__(self, why: str, *, sent: bool) -> None:
        self.sent = sent
        super().__init__(why)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def is_problem(self) -> bool:
        return self.headers.get("content-type") == "application/problem+json" and "code" in self.json


class Client:
    """Keep-alive connections to several API processes, used in turn; a refused one is skipped."""

    def __init__(self, urls: Sequence[str], *, seconds: float = 120) -> None:
        self._urls = list(urls)
        self._turn = itertools.count()
        self._idle: dict[str, list[_Connection]] = defaultdict(list)
        self._seconds = seconds
        self._closed = False

    async def ask(
        self, person: Person | None, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Raises Failed."""
        began = time.perf_counter()
        turn = next(self._turn)
        for offset in range(len(self._urls)):
            url = self._urls[(turn + offset) % len(self._urls)]
            try:
                connection = self._take_idle(url) or await self._connect(url)
            except ConnectionRefusedError:
                continue
            except OSError as error:
                raise Failed(f"{type(error).__name__} while connecting", sent=False) from error
            return await self._exchange(url, connection, _request(person, method, path, body, headers or {}), began)
        raise Failed("refused everywhere", sent=False)

    async def warm_up(self, connections: int) -> None:
        """Open connections in advance."""
        for url in self._urls:
            self._idle[url] += await asyncio.gather(*(self._connect(url) for _ in range(connections)))

    def close(self) -> None:
        """A request that is still under way, of a scenario that failed, closes its connection itself."""
        self._closed = True
        for connections in self._idle.values():
            for _, writer in connections:
                writer.close()

    def _take_idle(self, url: str) -> _Connection | None:
        while self._idle[url]:
            reader, writer = self._idle[url].pop()
            if not reader.at_eof() and reader.exception() is None:
                return reader, writer
            writer.close()
        return None

    async def _connect(self, url: str) -> _Connection:
        parts = urlsplit(url)
        return await asyncio.open_connection(parts.hostname, parts.port)

    async def _exchange(self, url: str, connection: _Connection, request: bytes, began: float) -> Answer:
        reader, writer = connection
        try:
            async with asyncio.timeout(self._seconds):
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode("latin-1").split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:-2])}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
        except (OSError, EOFError) as error:  # TimeoutError too
            writer.close()
            raise Failed(f"{type(error).__name__} instead of an answer from {url}", sent=True) from error
        except BaseException:
            writer.close()
            raise
        if self._closed or headers.get("connection", "").lower() == "close":
            writer.close()
        else:
            self._idle[url].append(connection)
        return Answer(int(lines[0].split()[1]), headers, body, time.perf_counter() - began)


def _request(person: Person | None, method: str, path: str, body: Any, headers: Mapping[str, str]) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: chaos", f"Content-Length: {len(data)}"]
    lines += [f"Authorization: Bearer {person.token}"] if person else []
    lines += ["Content-Type: application/json"] if data else []
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + data
