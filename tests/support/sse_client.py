"""A client for reply streams that sees every byte: what came, when, and how the stream ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.support.patience import HANG


class Cut(Exception):
    """The connection ended before the stream did."""


@dataclass(frozen=True)
class Event:
    id: str | None
    name: str
    data: Any
    at: float
    """By time.perf_counter()."""


@dataclass
class Reply:
    """What a client that follows the protocol shows on its screen."""

    text: str = ""
    thoughts: str = ""
    position: str = ""
    events: list[Event] = field(default_factory=list)
    ended: Event | None = None

    def take(self, event: Event) -> None:
        assert self.ended is None, f"{event} after the end"
        if event.name == "thought":
            assert event.id is None
            self.thoughts += event.data["text"]
            return
        self.events.append(event)
        if event.id is not None:
            self.position = event.id
        match event.name:
            case "delta":
                self.text += event.data["text"]
            case "reset":
                self.text = self.thoughts = ""
            case "done" | "error":
                self.ended = event
            case _:
                raise AssertionError(f"{event} is not in the contract")

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]


class Stream:
    """An answer that may be a stream; otherwise `body` holds it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.comments = 0
        self.retries = 0
        self._events: AsyncIterator[Event] | None = None
        self.has_ended = False
        """Whether the server ended it properly."""

    async def begin(self) -> None:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.status = int(head[0].split()[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
        if not self.is_stream:
            self.body = await self._reader.readexactly(int(self.headers.get("content-length", 0)))

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type") == "text/event-stream" and "transfer-encoding" in self.headers

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The events as they were sent. Raises Cut."""
        while self.is_stream and not self.has_ended:
            try:
                size = int(await self._reader.readuntil(b"\r\n"), 16)
                data = (await self._reader.readexactly(size + 2))[:-2]
            except (OSError, EOFError) as error:
                raise Cut from error
            self.has_ended = not data
            if data:
                yield data

    async def events(self) -> AsyncIterator[Event]:
        """Read to the proper end of the stream. Raises Cut."""
        buffer = b""
        async for data in self.chunks():
            buffer += data
            while (end := buffer.find(b"\n\n")) >= 0:
                block, buffer = buffer[:end].decode(), buffer[end + 2 :]
                if event := self._event(block):
                    yield event

    async def read_to_end(self, reply: Reply | None = None, *, seconds: float = HANG) -> Reply:
        """`seconds` bounds a hang. Raises Cut."""
        reply = Reply() if reply is None else reply
        async with asyncio.timeout(seconds):
            async for event in self.rest:
                reply.take(event)
        return reply

    async def read_until(self, text: str, reply: Reply | None = None, *, seconds: float = HANG) -> Reply:
        """Read until the reply contains this text; the rest can be read later."""
        reply = Reply() if reply is None else reply
        async with asyncio.timeout(seconds):
            while text not in reply.text:
                reply.take(await anext(self.rest))
        return reply

    @property
    def rest(self) -> AsyncIterator[Event]:
        """The same events, one at a time."""
        self._events = self._events or self.events()
        return self._events

    def _event(self, block: str) -> Event | None:
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            if name:
                assert name not in fields, f"{block!r}: our events are one line of data"
                fields[name] = value.removeprefix(" ")
            else:
                self.comments += 1
        if "retry" in fields:
            self.retries += 1
        if "data" not in fields:
            return None
        return Event(fields.get("id"), fields["event"], json.loads(fields["data"]), time.perf_counter())

    def drop(self) -> None:
        """Vanish without closing, like a phone in a tunnel."""
        self._writer.transport.abort()


@asynccontextmanager
async def open_stream(
    url: str,
    path: str,
    token: str | None,
    *,
    method: str = "GET",
    body: Any = None,
    after: str = "",
    headers: Mapping[str, str] | None = None,
    seconds: float = HANG,
) -> AsyncIterator[Stream]:
    """Ask on a new connection; `seconds` bounds the wait for the answer's head. Raises OSError, EOFError."""
    parts = urlsplit(url)
    data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()  # as httpx does
    lines = [f"{method} {path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(data)}"]
    lines += ["Accept: text/event-stream"] if "accept" not in {name.lower() for name in headers or ()} else []
    lines += [f"Authorization: Bearer {token}"] if token else []
    lines += [f"Last-Event-ID: {after}"] if after else []
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        stream = Stream(reader, writer)
        async with asyncio.timeout(seconds):
            writer.write("\r\n".join([*lines, "", ""]).encode() + data)
            await stream.begin()
        yield stream
    finally:
        writer.close()
