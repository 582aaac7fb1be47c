"""Sanic's HTTP/1.1 protocol, made stricter about the syntax of requests and about the time they take to arrive.

Sanic measures its timeouts from the last byte received, so a byte now and then holds a connection forever, and it
checks them only at intervals of half the shortest.
"""

from __future__ import annotations

import time
from typing import Any

from sanic import Request
from sanic.compat import Header
from sanic.exceptions import BadRequest, BadURL, ExpectationFailed, PayloadTooLarge, RequestTimeout, ServiceUnavailable
from sanic.headers import format_http1_response
from sanic.http import Http, Stage
from sanic.http.http1 import HTTP_CONTINUE
from sanic.server import HttpProtocol

from entrypoints.http.server import framing
from entrypoints.http.server.errors import DISCARDED_BYTES

_END_OF_HEAD = b"\r\n\r\n"
#: Statuses whose responses never have a body.
_NO_BODY = (204, 304)
_SHORTEST_PAUSE = 0.01
#: Shares of RESPONSE_TIMEOUT: for the request to arrive, and for sending the error if it does not.
_READ_SHARE, _ANSWER_SHARE = 0.94, 0.04


class StrictRequest(Request):
    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except BadURL:
            if "head" in given:
                raise
            # For an unreadable request Sanic makes a substitute to respond to, with the same URL.
            super().__init__(**{**given, "url_bytes": b"*"})


class StrictHttp(Http):
    """`began`: when the current request's first byte arrived; `requests_served`: the number of requests before it."""

    __slots__ = ("began", "requests_served")

    # Sanic's, whose types it does not state.
    request_body: Any
    request_bytes: Any
    request_bytes_left: Any
    response_func: Any
    protocol: Any

    def __init__(self, protocol: StrictProtocol) -> None:
        super().__init__(protocol)  # type: ignore[no-untyped-call]
        self.began, self.requests_served = time.monotonic(), -1
        self.request_body = None  # the first timeout check may come before Sanic sets it

    def init_for_request(self) -> None:
        super().init_for_request()  # type: ignore[no-untyped-call]
        self.request_max_size = self.protocol.app.config.REQUEST_MAX_SIZE
        self.began = time.monotonic()
        self.requests_served += 1

    async def http1_request_header(self) -> None:
        """Receive the head and create the request. Replaces Sanic's parser."""
        raw = await self._receive_head()
        try:
            self.url = framing.request_line(raw)[1]  # for the problem, if there is one
            head = framing.parse(raw)
        except framing.BadFraming:
            raise BadRequest("Bad Request") from None
        except framing.TooManyFields:
            raise PayloadTooLarge("Too many header fields") from None
        self.url, self.keep_alive = head.target, head.keep_alive
        self.head_only = head.method == "HEAD"
        headers = Header(head.fields)
        request = self.protocol.request_class(
            url_bytes=head.target.encode(),
            headers=headers,
            head=raw,
            version=head.version,
            method=head.method,
            transport=self.protocol.transport,
            app=self.protocol.app,
        )
        self.protocol.request_class._current.set(request)  # noqa: SLF001 - as Sanic's own parser does
        if head.version == "1.0":
            self.response_func = self._old_response_header
        elif head.body and (expected := headers.getone("expect", None)) is not None:
            if expected.lower() != "100-continue":
                raise ExpectationFailed("Unknown expectation")
            self.expecting_continue = True
        self.request_body = head.body
        self.request_bytes = self.request_bytes_left = head.length
        del self.recv_buffer[: len(raw) + len(_END_OF_HEAD)]
        self.request, request.stream = request, self
        self.protocol.state["requests_count"] += 1

    async def _receive_head(self) -> bytes:
        """Everything before the empty line."""
        buffer = self.recv_buffer
        if buffer.startswith(b"\r"):
            await self._skip_empty_line()
        searched = 0
        while (end := buffer.find(_END_OF_HEAD, searched)) < 0:
            searched = max(0, len(buffer) - len(_END_OF_HEAD) + 1)
            if searched >= self.HEADER_MAX_SIZE:
                break
            if framing.is_hopeless(buffer):
                raise BadRequest("Bad Request")
            await self._receive_more()
        if not 0 <= end < self.HEADER_MAX_SIZE:
            raise PayloadTooLarge("Request header exceeds the size limit")
        return bytes(buffer[:end])

    async def _skip_empty_line(self) -> None:
        """One may come before a request (RFC 9112, section 2.2): some clients end a body with it."""
        buffer = self.recv_buffer
        while len(buffer) < 2:
            await self._receive_more()
        if not buffer.startswith(b"\r\n"):
            raise BadRequest("Bad Request")
        del buffer[:2]
        if not buffer:
            self.stage = Stage.IDLE
            await self._receive_more()
            self.stage = Stage.REQUEST

    async def read(self) -> bytes | None:
        """The next bytes of the body; None at its end. Replaces Sanic's reader."""
        if self.expecting_continue:
            self.expecting_continue = False
            await self._send(HTTP_CONTINUE)
        if self.request_bytes_left == 0 and self.request_body == "chunked":
            await self._next_chunk()
        if self.request_bytes > self.request_max_size:
            self.keep_alive = False
            raise PayloadTooLarge("Request body exceeds the size limit")
        if not self.request_bytes_left:
            self.request_body = None
            return None
        buffer = self.recv_buffer
        if not buffer:
            await self._receive_more()
        data = bytes(buffer[: self.request_bytes_left])
        del buffer[: len(data)]
        self.request_bytes_left -= len(data)
        if not self.request_bytes_left and self.request_body == "chunked":
            await self._end_of_line()
        return data

    async def _next_chunk(self) -> None:
        """Read a chunk's size. The last one has none, and nothing but an empty line may follow it: no trailers."""
        buffer = self.recv_buffer
        while (end := buffer.find(b"\r\n")) < 0 and len(buffer) <= framing.MAX_CHUNK_LINE:
            await self._receive_more()
        try:
            size = framing.chunk_size(buffer[: max(end, 0)])
        except framing.BadFraming:
            raise self._bad_chunk() from None
        del buffer[: end + 2]
        self.request_bytes_left = size
        self.request_bytes += size
        if not size:
            await self._end_of_line()

    async def _end_of_line(self) -> None:
        buffer = self.recv_buffer
        while len(buffer) < 2:
            await self._receive_more()
        if not buffer.startswith(b"\r\n"):
            raise self._bad_chunk()
        del buffer[:2]

    def _bad_chunk(self) -> BadRequest:
        # What follows must not be read as a request.
        self.keep_alive, self.request_body = False, None
        return BadRequest("Bad chunked encoding")

    async def _old_response_header(self, data: bytes, end_stream: bool) -> None:
        """To HTTP/1.0, which has no chunks: a response of unknown length ends with its connection."""
        response = self.response
        is_whole = end_stream or (not data and getattr(response, "body", None))
        if is_whole or "content-length" in response.headers or response.status in _NO_BODY:
            await self.http1_response_header(data, end_stream)
            return
        self.keep_alive = False
        response.headers["connection"] = "close"
        self.response_func = self._send_rest
        await self._send(format_http1_response(response.status, response.processed_headers))
        self.stage = Stage.RESPONSE
        await self._send_rest(data, end_stream=False)

    async def _send_rest(self, data: bytes, end_stream: bool) -> None:
        if data and not self.head_only:
            await self._send(data)
        if end_stream:
            self.response_func = None
            self.stage = Stage.IDLE


class StrictProtocol(HttpProtocol):
    """The head must arrive within REQUEST_TIMEOUT, head and body together within RESPONSE_TIMEOUT."""

    HTTP_CLASS = StrictHttp

    def _setup(self) -> None:
        super()._setup()  # type: ignore[no-untyped-call]
        # Here it limits what Sanic discards of an unwanted body; what is accepted is limited per request.
        self.request_max_size = DISCARDED_BYTES

    def data_received(self, data: bytes) -> None:
        http = self.http
        # It is also idle while it discards the rest of a refused request.
        if http is not None and http.stage is Stage.IDLE and not self.recv_buffer and not http.request_body:
            http.began = time.monotonic()
        super().data_received(data)

    def check_timeouts(self) -> None:
        """Reschedules itself until the connection ends."""
        http = self.http
        if self._task is None or http is None:
            return
        now = time.monotonic()
        error: Exception | None = None
        if http.request_body and http.stage is not Stage.REQUEST:  # also that of a refused request, which is discarded
            end = http.began + self.response_timeout * _READ_SHARE
            error = ServiceUnavailable("Request Timeout")
        elif http.stage is Stage.IDLE:
            end = self._time + (
                self.keep_alive_timeout if http.requests_served else self.response_timeout * _READ_SHARE
            )
        elif http.stage is Stage.REQUEST:
            end, error = http.began + self.request_timeout, RequestTimeout("Request Timeout")
        else:
            end, error = self._time + self.response_timeout, ServiceUnavailable("Response Timeout")
        if now < end:
            pause = min(end - now, self.request_timeout / 2, self.response_timeout / 2)
            self._callback_check_timeouts = self.loop.call_later(max(pause, _SHORTEST_PAUSE), self.check_timeouts)
            return
        http.exception = error
        self._task.cancel("It took too long.")
        # Sanic would keep waiting for the rest of the body.
        grace = self.app.config.RESPONSE_TIMEOUT * _ANSWER_SHARE
        self._callback_check_timeouts = self.loop.call_later(grace, self._end)

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel("It is over.")
