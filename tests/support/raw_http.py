"""An HTTP server that answers with exactly the bytes a test gives, and keeps the requests."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

EVENTS = "text/event-stream"


@dataclass(frozen=True)
class Asked:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class RawReply:
    """Sends `pieces` one by one as chunks. Without an end it then cuts the connection; `hang` keeps it open."""

    pieces: Sequence[bytes] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": EVENTS})
    ends: bool = True
    hang: bool = False


@dataclass
class RawServer:
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    script: deque[RawReply] = field(default_factory=deque)

    def reply(self, *replies: RawReply) -> None:
        self.script.extend(replies)

    def events(self, *events: Any, ends: bool = True) -> None:
        """A stream of these events, as Google sends it."""
        self.reply(RawReply([b"data: " + json.dumps(event).encode() + b"\r\n\r\n" for event in events], ends=ends))

    def error(self, status: int, body: Any, **headers: str) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self.reply(RawReply([text.encode()], status, {"Content-Type": "application/json", **headers}))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while asked := await _read(reader):
                self.asked.append(asked)
                reply = self.script.popleft() if self.script else RawReply(status=500)
                await _write(writer, reply)
                if reply.hang:
                    await reader.read()  # until the client leaves
                if not reply.ends or reply.hang:
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    line = await reader.readline()
    if not line:
        return None
    method, target, _ = line.decode().split(" ")
    headers = {}
    while (line := await reader.readline()).strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return Asked(method, target, headers, await reader.readexactly(int(headers.get("content-length", 0))))


async def _write(writer: asyncio.StreamWriter, reply: RawReply) -> None:
    headers = {**reply.headers, "Transfer-Encoding": "chunked"}
    lines = [f"HTTP/1.1 {reply.status} As said", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    writer.write("\r\n".join(lines).encode())
    for piece in filter(None, reply.pieces):  # an empty one would be the end
        writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0)
    if reply.ends and not reply.hang:
        writer.write(b"0\r\n\r\n")
    await writer.drain()


@asynccontextmanager
async def raw_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    raw = RawServer()
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0, ssl=tls)
    raw.url = f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield raw
    finally:
        server.close()


def in_bytes(text: bytes) -> Iterable[bytes]:
    return (text[at : at + 1] for at in range(len(text)))
