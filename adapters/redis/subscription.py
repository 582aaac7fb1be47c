"""A connection in subscribed mode.

It takes over the transport of a connection that the client has opened, with its TLS and its login. Two tasks that
share the client's connection can close it under each other: its sending awaits, and then finds that there is nothing
left to write to. Here nothing awaits between looking at the connection and writing to it. And what has arrived is
handled in one go, instead of by a timer and a coroutine for each message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection


class Subscription(asyncio.Protocol):
    def __init__(self, connection: AbstractConnection, handle: Callable[[list[Any]], None]) -> None:
        self._handle = handle
        self._reader = hiredis.Reader()
        self._has_heard = False
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        writer = connection._writer  # noqa: SLF001 - the client has no other way to its transport
        if writer is None:
            raise ConnectionError("closed before it was used")
        self._transport: Any = writer.transport
        self._transport.set_protocol(self)

    def send(self, *command: bytes) -> None:
        """Does nothing once the connection is lost."""
        if not self._transport.is_closing():
            parts = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in command)
            self._transport.write(b"*%d\r\n%b" % (len(command), parts))

    def close(self) -> None:
        self._transport.close()

    async def keep(self, quiet_seconds: float) -> None:
        """Ping it whenever it has been silent that long. Raises when it is lost or no longer answers."""
        is_asked = False
        while True:
            self._has_heard = False
            await asyncio.wait([self._lost], timeout=quiet_seconds)
            if self._lost.done():
                self._lost.result()
            if self._has_heard:
                is_asked = False
            elif is_asked:
                raise TimeoutError
            else:
                is_asked = True
                self.send(b"PING")

    def data_received(self, data: bytes) -> None:
        self._has_heard = True
        try:
            self._reader.feed(data)
            while (message := self._reader.gets()) is not False:
                if isinstance(message, Exception):
                    raise message
                if isinstance(message, list):
                    self._handle(message)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, a new connection replaces this one
            self._end(error)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error or ConnectionError("closed by the server"))

    def _end(self, error: Exception) -> None:
        if not self._lost.done():
            self._lost.set_exception(error)
            self._lost.exception()  # it may be lost when nobody keeps it any more
