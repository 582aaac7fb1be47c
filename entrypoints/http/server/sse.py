"""Server-Sent Events: replies on the wire while they are written."""

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

from application.chat.streaming import Delta, Ended, Gone, ReplyCursor, ReplyEvent, Reset, Thought
from domain.chat.messages import Message, MessageStatus
from domain.chat.streams import START, StreamPosition
from domain.errors import MessageNotFound, StreamsExhausted, TooManyStreams
from domain.ids import UserId
from entrypoints import metrics
from entrypoints.http.api.schemas import chat as schemas
from entrypoints.http.api.schemas.problem import FieldError
from entrypoints.http.server.errors import NO_STORE, InvalidRequest, problem_body, request_id, status_of
from entrypoints.settings import Settings

MEDIA_TYPE = "text/event-stream"
LAST_EVENT_ID, LAST_EVENT_ID_QUERY = "Last-Event-ID", "lastEventId"

# Browsers hold the first bytes of a body back, up to 1,024, to guess at its type; some proxies do likewise.
_PADDED_COMMENT = b":" + b" " * 1024 + b"\n\n"
_RETRY = b"retry: 1000\n\n"
_HEADERS = {**NO_STORE, "x-accel-buffering": "no"}
#: Seconds for which a client may take nothing of what is sent, its buffers being full. Then it is gone.
_WRITE_SECONDS = 30.0
#: What ended because of us; every other failure is the model's.
_OUR_FAULTS = {"generation_failed", "workers_died"}


def last_event_id(request: Request) -> StreamPosition:
    """Where the client has got to, by the header or else by the query. Raises InvalidRequest."""
    name, text = LAST_EVENT_ID, str(request.headers.get(LAST_EVENT_ID, ""))
    if not text:
        name, text = f"?{LAST_EVENT_ID_QUERY}", request.args.get(LAST_EVENT_ID_QUERY) or ""
    if not text:
        return START
    if (position := StreamPosition.parse(text)) is None:
        raise InvalidRequest([FieldError(pointer=name, detail="must be the id of an event, such as 1-7")])
    return position


class _Stuck(Exception):
    """The client takes nothing any more."""


class Streams:
    """The streams of this process: how many are open, and that they end when it does."""

    def __init__(self, settings: Settings) -> None:
        self._ping_seconds = settings.streams.ping_seconds
        self._seconds = settings.streams.seconds
        self._per_user = settings.streams.per_user if settings.limits.enabled else math.inf
        self._per_process = settings.streams.per_process
        self._open: Counter[UserId] = Counter()
        self._waiting: set[asyncio.Timeout] = set()
        self._stopping = False

    def __len__(self) -> int:
        return self._open.total()

    @contextmanager
    def place(self, user_id: UserId) -> Iterator[None]:
        """Room for one more inside the block. Raises TooManyStreams or StreamsExhausted."""
        if self._open[user_id] >= self._per_user:
            raise TooManyStreams(self._open[user_id])
        if len(self) >= self._per_process:
            raise StreamsExhausted
        self._open[user_id] += 1
        metrics.STREAMS_OPEN.inc()
        try:
            yield
        finally:
            metrics.STREAMS_OPEN.dec()
            self._open[user_id] -= 1
            if not self._open[user_id]:
                del self._open[user_id]

    def say_goodbye(self) -> None:
        """End all that are open, and each that is yet to come, with an invitation to come again."""
        self._stopping = True
        for waiting in self._waiting:
            if not waiting.expired():
                waiting.reschedule(0)

    @asynccontextmanager
    async def patience(self, seconds: float | None) -> AsyncIterator[None]:
        """Raises TimeoutError from the block after so many seconds, or when the process is told to stop."""
        async with asyncio.timeout(0 if self._stopping else seconds) as waiting:
            self._waiting.add(waiting)
            try:
                yield
            finally:
                self._waiting.discard(waiting)

    async def send(
        self,
        request: Request,
        stream: AbstractAsyncContextManager[ReplyCursor],
        headers: Mapping[str, str] | None = None,
    ) -> HTTPResponse | None:
        """Answer with the stream, to its end or the client's. Raises what opening it raises, if nothing is sent yet."""
        async with stream as following:
            more = {**_HEADERS, "x-request-id": request_id(request), **(headers or {})}
            if following.has_ended:  # the client has it all; this status tells an EventSource not to come again
                return HTTPResponse(status=204, headers=more)
            response = await request.respond(headers=more, content_type=MEDIA_TYPE)
            assert isinstance(response, HTTPResponse)
            if request.method != "HEAD":
                with no_deadline(request):
                    try:
                        await self._pass_on(request, response, following)
                    except _Stuck:
                        _hang_up(request)
                        return None
            await response.eof()  # type: ignore[no-untyped-call]
            return None

    async def _pass_on(self, request: Request, response: HTTPResponse, following: ReplyCursor) -> None:
        now = asyncio.get_running_loop().time
        end = now() + self._seconds
        await self._write(response, _RETRY + _PADDED_COMMENT)
        sent = now()
        while not following.has_ended:
            waits = b""
            try:
                # One timer for many events: it costs as much as sending one.
                async with self.patience(min(sent + self._ping_seconds, end) - now()):
                    while not (following.has_ended or waits):
                        data = b"".join([_frame(request, event) for event in await following.read()])
                        if _all_is_taken(request):
                            await response.send(data)  # at once, so that no end of patience loses it
                        else:
                            waits = data
                        sent = now()
            except TimeoutError:
                if self._stopping or now() >= end:
                    await self._write(response, _RETRY)
                    stream: Any = request.stream
                    stream.keep_alive = not self._stopping
                    return
                if now() >= sent + self._ping_seconds:
                    waits = _PADDED_COMMENT
            if waits:
                await self._write(response, waits)
                sent = now()

    async def _write(self, response: HTTPResponse, data: bytes) -> None:
        """Waits for a client that is slow, so that what it has not read yet is not kept here."""
        try:
            async with self.patience(_WRITE_SECONDS):
                await response.send(data)
        except TimeoutError:
            raise _Stuck from None


@contextmanager
def no_deadline(request: Request) -> Iterator[None]:
    """Inside the block Sanic's limit on the time to an answer, which is there for ordinary calls, is lifted."""
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
    """As GET gives it, on one line."""
    return schemas.Message.of(message).model_dump_json(by_alias=True, exclude_unset=True)


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
    """Kept for a moment: many may follow one reply, and they come for each piece together."""
    return _event("delta", _json({"text": text}), StreamPosition(attempt, characters))


@lru_cache(maxsize=64)
def _thought(text: str) -> bytes:
    """Without an id: it moves no position."""
    return _event("thought", _json({"text": text}))


def _event(name: str, data: str, position: StreamPosition | None = None) -> bytes:
    identifier = f"id: {position}\n" if position else ""
    return f"{identifier}event: {name}\ndata: {data}\n\n".encode()


#: What json.dumps would make anew for each.
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _all_is_taken(request: Request) -> bool:
    """Nothing that was sent before waits here, so sending does not wait either."""
    transport: Any = request.transport
    return not transport.is_closing() and not transport.get_write_buffer_size()


def _hang_up(request: Request) -> None:
    transport: Any = request.transport
    transport.abort()
