"""Gemini through google-generativeai, Google's former SDK, whose support ended on 2025-11-30."""

from __future__ import annotations

import asyncio
import socket
import threading
import warnings
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import structlog

from adapters.gemini.reply import DEFAULT_BASE_URL, END_SECONDS, Reply, error_of
from application.ports.chat import LanguageModel
from domain.chat import Conversation, ReplyChunk
from domain.errors import ModelError, ModelUnavailable

logger = structlog.get_logger(__name__)

#: Chunks that a thread may be ahead of its reader.
AHEAD = 16


class GoogleGenerativeai(LanguageModel):
    """The optional extra `google-generativeai`, for those who must stay with it.

    Its asynchronous client does not work over REST, so each stream has a thread; that makes it the
    costlier choice. Leaving a stream shuts its socket down at once, before the first byte too. What
    cannot be interrupted is the opening of a connection, TLS included: such a thread ends by itself
    after `idle_seconds`, which is also the longest silence that is borne between two bytes.
    """

    def __init__(self, *, api_key: str, model: str, base_url: str = "", idle_seconds: float = 60) -> None:
        self._api_key = api_key
        self._model = model
        self._base_url = base_url or DEFAULT_BASE_URL
        self._idle_seconds = idle_seconds
        self._starting = asyncio.Lock()
        self._client: Any = None

    async def start(self) -> None:
        """Import the SDK, which takes seconds. The first `stream()` does so if nobody has."""
        async with self._starting:
            if self._client is None:
                self._client = await asyncio.to_thread(_open, self._api_key, self._base_url)

    async def stream(self, conversation: Conversation) -> AsyncGenerator[ReplyChunk, None]:
        await self.start()
        call = _Call(asyncio.get_running_loop())
        arguments = (self._client, _request(self._model, conversation), self._idle_seconds)
        # A daemon, since a thread that waits for Google must not hold the process at its end.
        threading.Thread(target=call.run, args=arguments, name="gemini-stream", daemon=True).start()
        reply = Reply()
        try:
            while (chunk := await _next(call, reply)) is not None:
                yield _read(reply, chunk)
        except ModelError:
            raise
        except Exception as error:  # noqa: BLE001 - the port promises a ModelError for whatever happens
            # What was broken after the finish reason does not make the reply worse.
            if reply.finish_reason is None:
                raise _mapped(error) from None
        finally:
            call.leave()
        yield reply.end()

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.transport.close()


class _Call:
    """One request in its thread, and the bounded way of its chunks to the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._room = threading.Semaphore(AHEAD)
        self._lock = threading.Lock()
        self._left = False
        self._connection: Any = None

    def run(self, client: Any, request: Any, timeout: float) -> None:
        from adapters.gemini.rest_transport import of_thread

        of_thread.watcher = self
        with suppress(_ReaderLeft):
            try:
                # `retry=None`: by default the library repeats a 503 for a minute.
                chunks = client.stream_generate_content(request, retry=None, timeout=timeout)
                try:
                    for chunk in chunks:
                        self._put(chunk)
                finally:
                    self._forget_connection()
                    chunks.cancel()
                self._put(None)
            except Exception as error:  # noqa: BLE001 - it is raised again on the other side
                self._put(error)

    def _put(self, item: Any) -> None:
        self._room.acquire()
        if self._left:
            self._room.release()
            raise _ReaderLeft
        with suppress(RuntimeError):  # the loop is closed, nobody reads any more
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    async def get(self) -> Any:
        """The next chunk, None after the last. Raises what the thread ran into."""
        item = await self._queue.get()
        self._room.release()
        if isinstance(item, Exception):
            raise item
        return item

    def watch(self, connection: Any) -> None:
        with self._lock:
            self._connection = connection
        if self._left:
            raise _ReaderLeft

    def leave(self) -> None:
        """From the loop: end the thread, wherever it waits. Harmless when it has ended."""
        self._left = True
        self._room.release()
        with self._lock:
            sock = getattr(self._connection, "sock", None)
            if sock is not None:
                # Closing it would leave the thread that reads asleep; shutting it down wakes it.
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _forget_connection(self) -> None:
        # It goes back to the pool, where the next call finds it.
        with self._lock:
            self._connection = None


class _ReaderLeft(BaseException):
    """A signal to the thread, past every `except Exception` on its way."""


def _open(api_key: str, base_url: str) -> Any:
    # It says that it is no longer supported, as do this module and the README. A permanent filter,
    # not catch_warnings: that one is not safe in a thread.
    warnings.filterwarnings("ignore", message=r"\s*All support for the `google.generativeai`", category=FutureWarning)
    from adapters.gemini.rest_transport import open_client

    return open_client(api_key, base_url)


def _request(model: str, conversation: Conversation) -> Any:
    from google.generativeai import protos

    told = conversation.instructions
    return protos.GenerateContentRequest(
        model=f"models/{model}",
        system_instruction=protos.Content(parts=[protos.Part(text=told)]) if told else None,
        contents=[
            protos.Content(role=turn.role.value, parts=[protos.Part(text=turn.text)]) for turn in conversation.turns
        ],
        generation_config=protos.GenerationConfig(max_output_tokens=conversation.max_output_tokens),
    )


async def _next(call: _Call, reply: Reply) -> Any:
    if reply.finish_reason is None:
        return await call.get()
    # All is said, only the end of the stream is missing: not worth the whole deadline.
    async with asyncio.timeout(END_SECONDS):
        return await call.get()


def _read(reply: Reply, response: Any) -> ReplyChunk:
    candidate = response.candidates[0] if response.candidates else None
    usage = response.usage_metadata
    return reply.read(
        text="".join(part.text for part in candidate.content.parts) if candidate else "",
        finish_reason=candidate.finish_reason.name if candidate and candidate.finish_reason else None,
        block_reason=response.prompt_feedback.block_reason.name if response.prompt_feedback.block_reason else None,
        input_tokens=usage.prompt_token_count or None,
        answer_tokens=usage.candidates_token_count or None,
        thought_tokens=None,  # the transport has added them to the answer's
    )


def _mapped(error: Exception) -> ModelError:
    """Google's error, or that of the transport or of a reply that nobody can read.

    Only its kind is logged: its text may quote the prompt.
    """
    from google.api_core.exceptions import GoogleAPICallError

    if isinstance(error, GoogleAPICallError) and error.code is not None:
        logger.warning("model_call_failed", error=type(error).__name__, status_code=int(error.code))
        return error_of(int(error.code), error.details, getattr(error.response, "headers", None))
    logger.warning("model_call_failed", error=type(error).__name__)
    return ModelUnavailable()
