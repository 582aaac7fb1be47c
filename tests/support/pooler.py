"""A pooler in transaction mode, as PgBouncer, Supavisor, Neon's and others are: strict, and with no memory.

It passes each client's login on to the server, and then lends it any connection for one transaction, the one that was
used longest ago. What a session has (settings, prepared statements, locks) is therefore lost or somebody else's. It
refuses startup parameters that it does not know, as PgBouncer 1.18 does.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

_SSL, _CANCEL = 80877103, 80877102
_KNOWN = {"user", "database", "client_encoding", "application_name", "DateStyle", "TimeZone"}


@dataclass
class Server:
    """A connection to Postgres, with the key that cancels its statements."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    key: bytes = b""


class TransactionPooler:
    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._idle: dict[bytes, deque[Server]] = {}
        self._waiting: dict[bytes, deque[asyncio.Future[Server]]] = {}
        self._lent: dict[bytes, Server] = {}  # by the key that its client was given
        self._open: set[asyncio.StreamWriter] = set()
        self.refused: list[str] = []
        self.transactions = 0

    async def listen(self) -> int:
        """Returns the port."""
        self._listening = await asyncio.start_server(self.client, "127.0.0.1", 0)
        port: int = self._listening.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        self._listening.close()
        for writer in self._open:
            writer.transport.abort()
        for task in (tasks := asyncio.all_tasks() - {asyncio.current_task()}):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(self) -> Server:
        server = Server(*await asyncio.open_connection(*self._address))
        self._open.add(server.writer)
        return server

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            if (login := await self._log_in(reader, writer)) is not None:
                await self._serve(reader, writer, *login)
        writer.close()

    async def _log_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[bytes, bytes] | None:
        """Who logged in to what, and the key that the client was given."""
        startup = await _startup(reader, writer)
        if struct.unpack("!i", startup[4:8])[0] == _CANCEL:
            await self._cancel(startup[8:])
            return None
        words = startup[8:].rstrip(b"\0").split(b"\0")
        parameters = dict(zip(words[::2], words[1::2], strict=True))
        if unknown := next((name for name in parameters if name.decode() not in _KNOWN), None):
            self.refused.append(unknown.decode())
            text = f"unsupported startup parameter: {unknown.decode()}"
            writer.write(_message(b"E", f"SFATAL\0C08P01\0M{text}\0\0".encode()))
            await writer.drain()
            return None
        server = await self._connect()
        server.writer.write(startup)
        key = secrets.token_bytes(8)
        while True:
            kind, body = await _read(server.reader)
            if kind == b"K":
                server.key = body
            writer.write(_message(kind, key if kind == b"K" else body))
            if kind == b"Z":
                break
            if kind == b"E" or (kind == b"R" and struct.unpack("!i", body[:4])[0] in (3, 5, 10, 11)):
                if kind == b"E":
                    await writer.drain()
                    server.writer.close()
                    return None
                server.writer.write(_message(*await _read(reader)))
        pool = parameters[b"user"] + b"\0" + parameters.get(b"database", parameters[b"user"])
        self._give_back(pool, server)
        return pool, key

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pool: bytes, key: bytes) -> None:
        """One transaction after the other, each on any connection."""
        inbox: asyncio.Queue[Message | None] = asyncio.Queue()
        receiving = asyncio.create_task(_receive(reader, inbox))
        try:
            message = await inbox.get()
            while message and message[0] != b"X":
                server = self._lent[key] = await self._take(pool)
                self.transactions += 1
                try:
                    following = await _transaction(message, inbox, writer, server)
                except BaseException:
                    server.writer.close()  # in the middle of a transaction, which ends with it
                    raise
                finally:
                    del self._lent[key]
                self._give_back(pool, server)
                message = following or await inbox.get()
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    async def _take(self, pool: bytes) -> Server:
        idle = self._idle.get(pool, deque())
        while idle:
            if not (server := idle.popleft()).reader.at_eof():
                return server
        future: asyncio.Future[Server] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(pool, deque()).append(future)
        return await future

    def _give_back(self, pool: bytes, server: Server) -> None:
        waiting = self._waiting.setdefault(pool, deque())
        while waiting:
            if not (future := waiting.popleft()).done():
                future.set_result(server)
                return
        self._idle.setdefault(pool, deque()).append(server)

    async def _cancel(self, key: bytes) -> None:
        if server := self._lent.get(key):
            canceller = await self._connect()
            canceller.writer.write(struct.pack("!ii", 8 + len(server.key), _CANCEL) + server.key)
            await canceller.reader.read()
            canceller.writer.close()


Message = tuple[bytes, bytes]


async def _transaction(
    first: Message, inbox: asyncio.Queue[Message | None], writer: asyncio.StreamWriter, server: Server
) -> Message | None:
    """Pass messages on until the server is in no transaction; returns a message that came too late for it."""
    expected = 0

    async def answer() -> None:
        nonlocal expected
        while True:
            kind, body = await _read(server.reader)
            writer.write(_message(kind, body))
            expected -= kind == b"Z"
            if kind == b"Z" and body == b"I" and not expected:
                return

    def ask(message: Message) -> None:
        nonlocal expected
        expected += message[0] in (b"Q", b"S")
        server.writer.write(_message(*message))

    ask(first)
    answering = asyncio.create_task(answer())
    asking = asyncio.create_task(inbox.get())
    try:
        while True:
            await asyncio.wait((asking, answering), return_when=asyncio.FIRST_COMPLETED)
            message = asking.result() if asking.done() else None
            if answering.done():
                answering.result()
                return message
            if message is None or message[0] == b"X":
                raise ConnectionError
            ask(message)
            asking = asyncio.create_task(inbox.get())
    finally:
        for task in (answering, asking):
            task.cancel()
        await asyncio.gather(answering, asking, return_exceptions=True)


async def _receive(reader: asyncio.StreamReader, inbox: asyncio.Queue[Message | None]) -> None:
    try:
        while True:
            inbox.put_nowait(await _read(reader))
    except (asyncio.IncompleteReadError, ConnectionError):
        inbox.put_nowait(None)


async def _startup(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """With its length in front; TLS is refused."""
    while True:
        head = await reader.readexactly(4)
        packet = head + await reader.readexactly(struct.unpack("!i", head)[0] - 4)
        if struct.unpack("!i", packet[4:8])[0] != _SSL:
            return packet
        writer.write(b"N")


async def _read(reader: asyncio.StreamReader) -> Message:
    head = await reader.readexactly(5)
    return head[:1], await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


@contextmanager
def transaction_pooler(database_url: str) -> Iterator[tuple[str, TransactionPooler]]:
    """In front of a server, in another thread and loop: the URL of the database through it."""
    parts = urlsplit(database_url)
    assert parts.hostname is not None
    pooler = TransactionPooler(parts.hostname, parts.port or 5432)
    loop, ready, ports = asyncio.new_event_loop(), threading.Event(), list[int]()

    async def serve() -> None:
        ports.append(await pooler.listen())
        ready.set()

    def run() -> None:
        loop.create_task(serve())
        loop.run_forever()
        loop.run_until_complete(pooler.close())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        yield through(database_url, ports[0]), pooler
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def through(url: str, port: int) -> str:
    """The same database, by another port of this machine."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}").geturl()
