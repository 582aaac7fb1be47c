"""Requests as bytes: what no library would send, in the pieces and at the pace that an attacker chooses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.support.patience import HANG


@dataclass(frozen=True)
class Answer:
    """`status` is 0 if the connection ended without a response."""

    status: int = 0
    headers: dict[str, str] | None = None
    body: bytes = b""

    @property
    def problem(self) -> dict[str, Any] | None:
        """The problem document in the body, if there is one."""
        if (self.headers or {}).get("content-type") != "application/problem+json":
            return None
        found = json.loads(self.body)
        return found if isinstance(found, dict) and {"code", "requestId", "status"} <= found.keys() else None


def request(method: str, path: str, headers: Sequence[tuple[str, bytes]] = (), body: bytes = b"") -> bytes:
    head = [f"{method} {path} HTTP/1.1\r\nHost: test\r\n".encode()]
    head += [name.encode() + b": " + value + b"\r\n" for name, value in headers]
    if body:
        head.append(b"Content-Length: %d\r\n" % len(body))
    return b"".join([*head, b"\r\n", body])


async def open_connection(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def send(url: str, *pieces: bytes, seconds: float = HANG) -> Answer:
    """The first answer to these bytes. Raises TimeoutError if neither an answer nor an end comes."""
    async with asyncio.timeout(seconds):
        reader, writer = await open_connection(url)
        try:
            sending = asyncio.create_task(_write(writer, pieces))
            try:
                return await read(reader)
            finally:
                sending.cancel()
        finally:
            writer.transport.abort()


async def read(reader: asyncio.StreamReader) -> Answer:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines) if name}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    except (asyncio.IncompleteReadError, ConnectionError):
        return Answer()
    return Answer(int(status.split()[1]), headers, body)


async def _write(writer: asyncio.StreamWriter, pieces: Sequence[bytes]) -> None:
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        return  # the server has closed its side
