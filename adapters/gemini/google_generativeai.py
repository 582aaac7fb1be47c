"""Gemini through google-generativeai, Google's former SDK, whose support ended on 2025-11-30."""

from __future__ import annotations

import asyncio
import socket
import threading
import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec

from adapters.gemini.model import Endpoint
from adapters.gemini.request import GenerateContent

#: How far a thread may be ahead of its reader.
MAX_BUFFERED_BLOCKS = 16


class GoogleGenerativeaiTransport:
    """The optional extra `google-generativeai`, for those who must stay with it. The SDK only sends the request.

    Its asynchronous client does not work over REST, so each stream has a thread, which makes it the most expensive
    choice. Leaving a stream shuts its socket down at once, also before the first byte. Opening a connection, TLS
    included, cannot be interrupted: such a thread ends after `idle_seconds`, which is also the longest silence
    allowed between two bytes.
    """

    def __init__(self, endpoint: Endpoint, *, idle_seconds: float = 120) -> None:
        self._endpoint = endpoint
        self._idle_seconds = idle_seconds
        self._starting = asyncio.Lock()
        self._client: Any = None

    async def start(self) -> None:
        async with self._starting:
            if self._client is None:
                self._client = await asyncio.to_thread(_open, self._endpoint)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.transport.close()

    @asynccontextmanager
    async def ask(self, body: GenerateContent) -> AsyncIterator[_Call]:
        call = _Call(asyncio.get_running_loop())
        arguments = (self._client, self._endpoint.resource, msgspec.json.encode(body), self._idle_seconds)
        # A daemon, so that a thread waiting for Google does not keep the process alive.
        threading.Thread(target=call.run, args=arguments, name="gemini-stream", daemon=True).start()
        try:
            await call.begin()
            yield call
        finally:
            call.leave()


class _Call:
    """One request in its thread, and the bounded queue that brings its reply to the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._loop = loop
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._buffer_slots = threading.Semaphore(MAX_BUFFERED_BLOCKS)
        self._lock = threading.Lock()
        self._left = False
        self._ended = False
        self._connection: Any = None

    def run(self, client: Any, model: str, body: bytes, timeout: float) -> None:
        from adapters.gemini.generativeai_client import ask

        with suppress(_ReaderLeft):
            try:
                response = ask(client, model, body, self, timeout)
                try:
                    self._put(response)
                    for block in response.iter_content(chunk_size=None):
                        self._put(block)
                finally:
                    self._forget_connection()
                    response.close()
                self._put(b"")
            except Exception as error:  # noqa: BLE001 - raised again in the event loop
                self._put(error)

    def _put(self, item: Any) -> None:
        self._buffer_slots.acquire()
        if self._left:
            self._buffer_slots.release()
            raise _ReaderLeft
        with suppress(RuntimeError):  # the loop is closed: there is no reader
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    async def begin(self) -> None:
        response = await self._get()
        self.status, self.headers = response.status_code, response.headers

    async def read(self) -> bytes:
        block: bytes = b"" if self._ended else await self._get()
        self._ended = not block
        return block

    async def _get(self) -> Any:
        """The next item. Raises the thread's error."""
        item = await self._queue.get()
        self._buffer_slots.release()
        if isinstance(item, Exception):
            raise item
        return item

    def watch(self, connection: Any) -> None:
        with self._lock:
            self._connection = connection
        if self._left:
            raise _ReaderLeft

    def leave(self) -> None:
        """Called from the loop: end the thread, wherever it waits. No effect if it has ended."""
        self._left = True
        self._buffer_slots.release()
        with self._lock:
            sock = getattr(self._connection, "sock", None)
            if sock is not None:
                # Unlike closing it, this wakes the thread that reads.
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _forget_connection(self) -> None:
        # It returns to the pool, for the next call.
        with self._lock:
            self._connection = None


class _ReaderLeft(BaseException):
    """Ends the thread, through every `except Exception` of the SDK."""


def _open(endpoint: Endpoint) -> Any:
    # The warning says that the SDK is no longer supported, which the README says too. A permanent filter, since
    # catch_warnings is not thread-safe.
    warnings.filterwarnings("ignore", message=r"\s*All support for the `google.generativeai`", category=FutureWarning)
    from adapters.gemini.generativeai_client import open_client

    return open_client(endpoint.api_key, endpoint.base_url, endpoint.proxy)
