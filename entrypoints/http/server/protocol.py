"""HTTP/1.1 as Sanic speaks it, but stricter: in what it takes for a request, and in how long one may take to arrive.

Sanic counts its limits from the last byte that came, so that a byte now and then holds a connection for ever, and looks
at them at intervals of half the shortest.
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

# RFC 9112: what a proxy before us may read in another way is refused, rather than read in ours. Names are tokens with
# the colon next to them, no line is folded, and CR, LF and NUL are in no value.
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HEAD = re.compile(rb"[^\r\n\0]*(?:\r\n" + _TOKEN + rb":[^\r\n\0]*)*")
_DECIMAL, _HEXADECIMAL = re.compile(r"[0-9]{1,20}"), re.compile(r"[0-9A-Fa-f]{1,16}")
_SHORTEST_PAUSE = 0.01
#: Of the time for a request: when it is answered that it takes too long, and how long that may take.
_UNTIL_ANSWER, _FOR_ANSWER = 0.94, 0.04


class StrictRequest(Request):
    def __init__(self, **given: Any) -> None:
        if not _HEAD.fullmatch(given.get("head", b"")):
            raise BadRequest("Bad Request")
        try:
            super().__init__(**given)
        except BadURL:
            if "head" in given:
                raise
            # The stand-in that Sanic makes of a request that it could not read, to answer it, has the same address.
            super().__init__(**{**given, "url_bytes": b"*"})


class StrictHttp(Http):
    """`began`: when the first byte of the request came that is being served; `served`: how many were before it."""

    __slots__ = ("began", "served")

    def __init__(self, protocol: StrictProtocol) -> None:
        super().__init__(protocol)  # type: ignore[no-untyped-call]
        self.began, self.served = time.monotonic(), -1
        self.request_body = None  # which the first look at the time comes too early for

    def init_for_request(self) -> None:
        super().init_for_request()  # type: ignore[no-untyped-call]
        self.request_max_size = self.protocol.app.config.REQUEST_MAX_SIZE
        self.began = time.monotonic()
        self.served += 1

    @staticmethod
    def _safe_int(value: str, base: int = 10) -> int:
        value = value.strip(" \t")
        if not (_HEXADECIMAL if base == 16 else _DECIMAL).fullmatch(value):
            raise ValueError
        return int(value, base)


class StrictProtocol(HttpProtocol):
    """A head has REQUEST_TIMEOUT to arrive, head and body together RESPONSE_TIMEOUT, to the moment."""

    HTTP_CLASS = StrictHttp

    def _setup(self) -> None:
        super()._setup()  # type: ignore[no-untyped-call]
        # To Sanic this is the most that it throws away of a body that nobody wants; what is taken is up to the request.
        self.request_max_size = DISCARDED_BYTES

    def data_received(self, data: bytes) -> None:
        http = self.http
        # Idle it also is while it throws away the rest of a refused request.
        if http is not None and http.stage is Stage.IDLE and not self.recv_buffer and not http.request_body:
            http.began = time.monotonic()
        super().data_received(data)

    def check_timeouts(self) -> None:
        """Calls itself until the connection ends."""
        http = self.http
        if self._task is None or http is None:
            return
        now = time.monotonic()
        error: Exception | None = None
        if http.request_body and http.stage is not Stage.REQUEST:  # also of a refused one, which is thrown away
            end = http.began + self.response_timeout * _UNTIL_ANSWER
            error = ServiceUnavailable("Request Timeout")
        elif http.stage is Stage.IDLE:
            end = self._time + (self.keep_alive_timeout if http.served else self.response_timeout * _UNTIL_ANSWER)
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
        # Sanic would go on to wait for the rest of a body.
        last_words = self.app.config.RESPONSE_TIMEOUT * _FOR_ANSWER
        self._callback_check_timeouts = self.loop.call_later(last_words, self._end)

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel("It is over.")
