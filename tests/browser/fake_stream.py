"""A reply's stream that a test writes event by event; the real server answers everything else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Page, Route


class FakeStream:
    def __init__(self) -> None:
        self.positions: list[str] = []
        """`Last-Event-ID` of each request, in order."""
        self._written: asyncio.Queue[bytes | None] = asyncio.Queue()

    def event(self, name: str, data: dict[str, Any], position: str = "") -> None:
        identifier = f"id: {position}\n" if position else ""
        self._written.put_nowait(f"{identifier}event: {name}\ndata: {json.dumps(data)}\n\n".encode())

    def thought(self, text: str) -> None:
        self.event("thought", {"text": text})

    def delta(self, text: str, position: str) -> None:
        self.event("delta", {"text": text}, position)

    def done(self, message: dict[str, Any]) -> None:
        """The last event, after which the connection ends."""
        self.event("done", message)
        self.end()

    def end(self) -> None:
        self._written.put_nowait(None)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        self.positions.append(headers.get("last-event-id", ""))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        while (event := await self._written.get()) is not None:
            writer.write(event)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def fake_stream(page: Page) -> AsyncIterator[FakeStream]:
    """Inside the block, this stream replaces the page's streams, one at a time."""
    stream = FakeStream()
    server = await asyncio.start_server(stream.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def lead_there(route: Route) -> None:
        await route.continue_(url=f"http://127.0.0.1:{port}/")

    await page.route("**/stream", lead_there)
    try:
        yield stream
    finally:
        await page.unroute("**/stream")
        stream.end()  # for a client that is still connected
        server.close()
        await server.wait_closed()
