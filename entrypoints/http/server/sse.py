"""Server-Sent Events: sends replies while they are generated."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import lru_cache
from typing import Any

from sanic import HTTPResponse, Request

from application.accounts.sessions import Caller, SessionWatch
from application.chat.streaming import Delta, Ended, Gone, ReplyCursor, ReplyEvent, Reset, Thought
from domain.chat.messages import Message, MessageStatus
from domain.chat.streams import START, StreamPosition
from domain.errors import MessageNotFound, StreamsExhausted, TokenInvalid, TooManyStreams
from domain.ids import UserId
from entrypoints import metrics
from entrypoints.http.api.schemas import chat as schemas
from entrypoints.http.api.schemas.common import encode
from entrypoints.http.api.schemas.problem import FieldError
from entrypoints.http.server.errors import InvalidRequest, problem_body, status_of
from entrypoints.http.server.headers import NO_STORE, request_id
from entrypoints.settings import Settings

MEDIA_TYPE = "text/event-stream"
LAST_EVENT_ID, LAST_EVENT_ID_QUERY = "Last-Event-ID", "lastEventId"

# Browsers buffer up to 1,024 bytes of a body to guess its type; some proxies do the same.
_PADDED_COMMENT = b":" + b" " * 1024 + b"\n\n"
_RETRY = b"retry: 1000\n\n"
_HEADERS = {**NO_STORE, "x-accel-buffering": "no"}
#: How long a client with full buffers may read nothing. Then its connection is aborted.
_WRITE_SECONDS = 30.0
#: Failures on our side, for status 500; all others are the model's, for 502.
_OUR_FAULTS = {"generation_failed", "workers_died"}


def last_event_id(request: Request) -> StreamPosition:
    """The client's position: from the header, or else from the query. Raises InvalidRequest."""
    name, text = LAST_EVENT_ID, str(request.headers.get(LAST_EVENT_ID, ""))
    if not text:
        name, text = f"?{LAST_EVENT_ID_QUERY}", request.args.get(LAST_EVENT_ID_QUERY) or ""
    if not text:
        return START
    if (position := StreamPosition.parse(text)) is None:
        raise InvalidRequest([FieldError(pointer=name, detail="must be the id of an event, such as 1-7")])
    return position


class _ClientStalled(Exception):
    """The client has stopped reading."""


class Slot:
    """The place of an open stream, or of a request that waits for a reply."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._waiting: asyncio.Timeout | None = None
        #: Its session has ended, so it must end without more of the reply.
        self.is_revoked = False

    def revoke(self) -> None:
        self.is_revoked = True
        self.interrupt()

    def interrupt(self) -> None:
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(0)

    @asynccontextmanager
    async def timeout(self, seconds: float | None) -> AsyncIterator[None]:
        """Raises TimeoutError from the block after `seconds`, on shutdown, or when the session ends."""
        is_over = self.is_revoked or self._streams.is_stopping
        async with asyncio.timeout(0 if is_over else seconds) as self._waiting:
            try:
                yield
            finally:
                self._waiting = None


class Streams:
    """Counts the open streams and waiting requests of this process, and ends them on shutdown or with their session."""

    def __init__(self, settings: Settings, sessions: SessionWatch) -> None:
        self._sessions = sessions
        self._ping_seconds = settings.streams.ping_seconds
        self._seconds = settings.streams.seconds
        self._per_user = settings.streams.per_user if settings.limits.enabled else math.inf
        self._per_process = settings.streams.per_process
        self._open: Counter[UserId] = Counter()
        self._slots: set[Slot] = set()
        self.is_stopping = False

    def __len__(self) -> int:
        return self._open.total()

    @contextmanager
    def slot(self, caller: Caller) -> Iterator[Slot]:
        """Hold a slot for one more stream inside the block. Raises TooManyStreams or StreamsExhausted."""
        user_id, slot = caller.user.id, Slot(self)
        if self._open[user_id] >= self._per_user:
            raise TooManyStreams(self._open[user_id])
        if len(self) >= self._per_process:
            raise StreamsExhausted
        self._open[user_id] += 1
        self._slots.add(slot)
        metrics.STREAMS_OPEN.inc()
        try:
            with self._sessions.watching(caller.session_id, slot.revoke):
                yield slot
        finally:
            metrics.STREAMS_OPEN.dec()
            self._slots.discard(slot)
            self._open[user_id] -= 1
            if not self._open[user_id]:
                del self._open[user_id]

    def shut_down(self) -> None:
        """End all open streams, and new ones at once, with `retry` so that their clients reconnect."""
        self.is_stopping = True
        for slot in self._slots:
            slot.interrupt()

    async def send(
        self,
        request: Request,
        slot: Slot,
        stream: AbstractAsyncContextManager[ReplyCursor],
        headers: Mapping[str, str] | None = None,
    ) -> HTTPResponse | None:
        """Send the stream until it ends or the client disconnects. Raises what opening it raises."""
        async with stream as cursor:
            more = {**_HEADERS, "x-request-id": request_id(request), **(headers or {})}
            if cursor.has_ended:  # this status tells an EventSource not to reconnect
                return HTTPResponse(status=204, headers=more)
            response = await request.respond(headers=more, content_type=MEDIA_TYPE)
            assert isinstance(response, HTTPResponse)
            if request.method != "HEAD":
                with no_deadline(request):
                    try:
                        await self._stream_events(request, response, slot, cursor)
                    except _ClientStalled:
                        _abort(request)
                        return None
            await response.eof()  # type: ignore[no-untyped-call]
            return None

    async def _stream_events(self, request: Request, response: HTTPResponse, slot: Slot, cursor: ReplyCursor) -> None:
        now = asyncio.get_running_loop().time
        end = now() + self._seconds
        await _write(response, slot, _RETRY + _PADDED_COMMENT)
        sent = now()
        while not cursor.has_ended:
            pending = b""
            try:
                # One timer for many events: a timer costs as much as sending an event.
                async with slot.timeout(min(sent + self._ping_seconds, end) - now()):
                    while not (cursor.has_ended or pending):
                        data = b"".join([_frame(request, event) for event in await cursor.read()])
                        if _send_buffer_is_empty(request):
                            await response.send(data)  # does not wait, so no timeout can lose it
                        else:
                            pending = data
                        sent = now()
            except TimeoutError:
                if slot.is_revoked:
                    await _end_without_session(request, response)
                    return
                if self.is_stopping or now() >= end:
                    await _write(response, slot, _RETRY)
                    stream: Any = request.stream
                    stream.keep_alive = stream.keep_alive and not self.is_stopping
                    return
                if now() >= sent + self._ping_seconds:
                    pending = _PADDED_COMMENT
            if pending:
                await _write(response, slot, pending)
                sent = now()


async def _write(response: HTTPResponse, slot: Slot, data: bytes) -> None:
    """Waits for a slow client instead of buffering what it has not read."""
    try:
        async with slot.timeout(_WRITE_SECONDS):
            await response.send(data)
    except TimeoutError:
        raise _ClientStalled from None


async def _end_without_session(request: Request, response: HTTPResponse) -> None:
    if not _send_buffer_is_empty(request):
        raise _ClientStalled
    problem = problem_body(request, status_of(TokenInvalid), TokenInvalid.code, TokenInvalid.detail)
    await response.send(_event("error", _json(problem)))


@contextmanager
def no_deadline(request: Request) -> Iterator[None]:
    """Lifts Sanic's response timeout, which is meant for ordinary calls, inside the block."""
    protocol: Any = request.stream.protocol if request.stream is not None else None
    if protocol is None:
        yield
        return
    limit, protocol.response_timeout = protocol.response_timeout, math.inf
    try:
        yield
    finally:
        protocol.response_timeout = limit


def message_json(message: Message) -> str:
    """The message as `get_message` returns it, on one line."""
    return encode(schemas.Message.of(message)).decode()


def _frame(request: Request, event: ReplyEvent) -> bytes:
    match event:
        case Delta(position, text):
            return _delta(position.attempt, position.characters, text)
        case Thought(text):
            return _thought(text)
        case Reset(position):
            return _event("reset", _json({"attempt": position.attempt}), position)
        case Ended(position, message) if message.status is MessageStatus.FAILED:
            status = 500 if message.error_code in _OUR_FAULTS else 502
            problem = problem_body(request, status, message.error_code or "error", message.error_detail or "")
            return _event("error", _json(problem), position)
        case Ended(position, message):
            return _event("done", message_json(message), position)
        case Gone():
            code, detail = MessageNotFound.code, MessageNotFound.detail
            return _event("error", _json(problem_body(request, status_of(MessageNotFound), code, detail)))


@lru_cache(maxsize=256)
def _delta(attempt: int, characters: int, text: str) -> bytes:
    """Cached: all readers of a reply ask for the same piece at about the same time."""
    return b'id: %d-%d\nevent: delta\ndata: {"text":%b}\n\n' % (attempt, characters, encode(text))


@lru_cache(maxsize=64)
def _thought(text: str) -> bytes:
    """Without an id: a thought does not move the position."""
    return b'event: thought\ndata: {"text":%b}\n\n' % encode(text)


def _event(name: str, data: str, position: StreamPosition | None = None) -> bytes:
    identifier = f"id: {position}\n" if position else ""
    return f"{identifier}event: {name}\ndata: {data}\n\n".encode()


#: json.dumps would create an encoder for each call.
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _send_buffer_is_empty(request: Request) -> bool:
    """Then sending does not wait."""
    transport: Any = request.transport
    return not transport.is_closing() and not transport.get_write_buffer_size()


def _abort(request: Request) -> None:
    transport: Any = request.transport
    transport.abort()
