"""What every response carries: its request's id, security headers, CORS and rate limits. It is counted here, too."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any

from prometheus_client import Counter, Histogram
from sanic import HTTPResponse, Request
from sanic.response import BaseHTTPResponse

from entrypoints import metrics
from entrypoints.settings import Settings

NO_STORE = {"cache-control": "no-store"}
_SECURITY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
_STRICT_TRANSPORT = "max-age=31536000"

ALLOWED_HEADERS = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer, X-Request-ID"
EXPOSED_HEADERS = (
    "Idempotency-Replayed, Location, Preference-Applied, RateLimit, RateLimit-Policy, Retry-After, X-Request-ID"
)
_PREFLIGHT_SECONDS = "600"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id(request: Request) -> str:
    """The caller's X-Request-ID if it is well-formed, else one made here; the same throughout the request."""
    if not hasattr(request.ctx, "request_id"):
        given = request.headers.get("x-request-id", "")
        is_usable = given and _REQUEST_ID.fullmatch(given)
        request.ctx.request_id = given if is_usable else f"{random.getrandbits(128):032x}"
    return str(request.ctx.request_id)


class JsonResponse(HTTPResponse):
    """A reply of the API. What all of them carry is encoded once, in one piece, and does not pass through `headers`."""

    __slots__ = ("encoded",)

    def __init__(self, body: bytes, *, status: int, headers: dict[str, str]) -> None:
        super().__init__(body, status=status, headers=headers)
        self.encoded: Sequence[tuple[bytes, bytes]] = ()

    @property
    def processed_headers(self) -> Iterator[tuple[bytes, bytes]]:
        sanitize = self._sanitize_header_value
        mine = [
            (name.encode(), sanitize(f"{value}").encode(errors="surrogateescape"))
            for name, value in self.headers.items()
        ]
        return chain(self.encoded, mine)


class ResponseHeaders:
    """Sanic's response middleware for all responses. A page may set stricter headers."""

    def __init__(self, settings: Settings) -> None:
        self._always = dict(_SECURITY)
        if settings.is_production:
            self._always["strict-transport-security"] = _STRICT_TRANSPORT
        self._encoded = [_in_one_piece(self._always | NO_STORE | {"content-type": "application/json"})]
        self._origins = settings.http.cors_origins

    def complete(self, request: Request, response: BaseHTTPResponse) -> None:
        headers = response.headers
        limits: dict[str, str] | None = getattr(request.ctx, "rate_limit", None)
        if isinstance(response, JsonResponse):
            response.encoded = [*self._encoded, _in_one_piece(limits)] if limits else self._encoded
        else:
            for name, value in self._always.items():
                headers.setdefault(name, value)
            if limits:
                headers.update(limits)
        if self._origins:
            headers["vary"] = f"{headers['vary']}, Origin" if "vary" in headers else "Origin"
            origin = request.headers.get("origin", "")
            if origin in self._origins:
                headers["access-control-allow-origin"] = origin
                headers["access-control-expose-headers"] = EXPOSED_HEADERS
        _count(request, response.status)
        stream: Any = request.stream  # HTTP/1.1's, which decides whether the connection stays open
        if request.app.ctx.shutdown.has_begun and stream is not None:
            stream.keep_alive = False

    def preflight(self, request: Request, allowed: str) -> HTTPResponse | None:
        """The response to a CORS preflight request; None if it is not one, or its origin is not allowed."""
        asked = "access-control-request-method" in request.headers
        if not asked or request.method != "OPTIONS" or request.headers.get("origin", "") not in self._origins:
            return None
        headers = {
            "access-control-allow-methods": allowed,
            "access-control-allow-headers": ALLOWED_HEADERS,
            "access-control-max-age": _PREFLIGHT_SECONDS,
            "x-request-id": request_id(request),
        }
        return HTTPResponse(status=204, headers=headers)


def _in_one_piece(headers: Mapping[str, str]) -> tuple[bytes, bytes]:
    """Of several headers one, whose value contains the lines of the others: Sanic formats each on its own."""
    name, _, rest = "\r\n".join(f"{name}: {value}" for name, value in headers.items()).partition(": ")
    return name.encode(), rest.encode()


def _count(request: Request, status: int) -> None:
    requests, seconds = _metrics_of(request.route.name if request.route else "none", status)
    requests.inc()
    stream: Any = request.stream  # HTTP/1.1's
    if stream is not None and stream.perft0 is not None:
        seconds.observe(time.perf_counter() - stream.perft0)


@cache
def _metrics_of(route: str, status: int) -> tuple[Counter, Histogram]:
    call = route.rpartition(".")[2]
    return metrics.HTTP_REQUESTS.labels(call, status), metrics.HTTP_SECONDS.labels(call)
