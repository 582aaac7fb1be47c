"""Sanic's HTTP/1.1 protocol, made stricter about the syntax of requests and about the time they take to arrive.

Sanic measures its timeouts from the last byte received, so a byte now and then holds a connection forever, and it
checks them only at intervals of half the shortest.
"""

from __future__ import annotations

import re
import time
from typing import Any

from sanic import Request
from sanic.exceptions import BadRequest, BadURL, RequestTimeout, ServiceUnavailable
from sanic.http import Http, Stage
from sanic.server import HttpProtocol

from entrypoints.http.server.errors import DISCARDED_BYTES

# RFC 9112: what a proxy may read differently is refused. Header names are tokens directly followed by the colon, lines
# are not folded, and values contain no CR, LF or NUL.
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HEAD = re.compile(rb"[^\r\n\0]*(?:\r\n" + _TOKEN + rb":[^\r\n\0]*)*")
_DECIMAL, _HEXADECIMAL = re.compile(r"[0-9]{1,20}"), re.compile(r"[0-9A-Fa-f]{1,16}")
_SHORTEST_PAUSE = 0.01
#: Shares of RESPONSE_TIMEOUT: for the request to arrive, and for sending the error if it does not.
_READ_SHARE, _ANSWER_SHARE = 0.94, 0.04


class StrictRequest(Request):
    def __init__(self, **given: Any) -> None:
        if not _HEAD.fullmatch(given.get("head", b"")):
            raise BadRequest("Bad Request")
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

    def __init__(self, protocol: StrictProtocol) -> None:
        super().__init__(protocol)  # type: ignore[no-untyped-call]
        self.began, self.requests_served = time.monotonic(), -1
        self.request_body = None  # the first timeout check may come before Sanic sets it

    def init_for_request(self) -> None:
        super().init_for_request()  # type: ignore[no-untyped-call]
        self.request_max_size = self.protocol.app.config.REQUEST_MAX_SIZE
        self.began = time.monotonic()
        self.requests_served += 1

    @staticmethod
    def _safe_int(value: str, base: int = 10) -> int:
        value = value.strip(" \t")
        if not (_HEXADECIMAL if base == 16 else _DECIMAL).fullmatch(value):
            raise ValueError
        return int(value, base)


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
