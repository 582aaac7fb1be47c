"""Metrics for Prometheus: counts of calls and events, without user data.

Processes behind one port share their metrics in a folder, so that any of them can answer a scrape for all.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any, TypeAlias

import structlog
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from structlog.typing import EventDict, WrappedLogger

from entrypoints.settings import SettingsError

log = structlog.get_logger(__name__)

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the library reads it when it is imported
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

disable_created_metrics()  # type: ignore[no-untyped-call]  # an unused second series for each

HTTP_REQUESTS = Counter("http_requests", "HTTP requests by call and status.", ["call", "status"])
HTTP_SECONDS = Histogram(
    "http_request_duration_seconds",
    "Time from the request's headers to the response's headers.",
    ["call"],
    buckets=_SECONDS,
)
LOOP_LAG = Histogram(
    "event_loop_lag_seconds",
    "How late the event loop runs what is due, measured four times a second.",
    buckets=_SECONDS,
)
STREAMS_OPEN = Gauge(
    "http_streams_open", "Open reply streams, and requests that wait for a reply.", multiprocess_mode="livesum"
)
RATE_LIMITED = Counter("rate_limited", "Calls refused by a rate limit.", ["rule"])
RATE_LIMITS_IN_PROCESS = Counter(
    "rate_limits_in_process", "Calls that one process counted by itself because Redis was unavailable."
)
LOG_EVENTS = Counter("log_events", "Warnings and errors in the log, by event name.", ["event", "level"])
MESSAGES_ATTEMPTED = Counter(
    "messages_attempted", "Reply attempts, by the resulting status of the message.", ["status"]
)

WORKER_SEEN = Gauge(
    "worker_seen_timestamp_seconds",
    "When each part of a worker last worked; of several processes behind a port, the one longest ago.",
    ["part"],
    multiprocess_mode="livemin",
)

_COUNTED = {"warning", "error", "critical", "exception"}


def count_log_event(_: WrappedLogger, level: str, event: EventDict) -> EventDict:
    """A structlog processor. Event names are constants, so they are few and contain no user data."""
    if level in _COUNTED:
        LOG_EVENTS.labels(event["event"], level).inc()
    return event


def count_application_event(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The same for the application layer, which logs "name: details" through the standard library."""
    if event["_record"].name.startswith("application.") and event["level"] in _COUNTED:
        LOG_EVENTS.labels(event["event"].partition(":")[0], event["level"]).inc()
    return event


@contextmanager
def shared() -> Iterator[None]:
    """Processes started inside the block share their metrics."""
    with tempfile.TemporaryDirectory(prefix="gemini-metrics-") as folder:
        os.environ[_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[_FOLDER]


def generate() -> bytes:
    """All metrics in Prometheus' text format. This may take tens of milliseconds of CPU."""
    return generate_latest(_registry())


class Exposition:
    """The text for scrapers, generated at most once per `seconds`, by one thread at a time.

    The thread is separate, so that neither the event loop nor password hashing waits for it.
    """

    def __init__(self, make: Callable[[], bytes] = generate, *, seconds: float = 1.0) -> None:
        self._make = make
        self._seconds = seconds
        self._text = b""
        self._fresh_until = -math.inf
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "metrics")
        self._pending: asyncio.Future[bytes] | None = None

    def text(self) -> bytes:
        """For threads: blocks while another thread generates the text."""
        with self._lock:
            if time.monotonic() >= self._fresh_until:
                self._text = self._make()
                self._fresh_until = time.monotonic() + self._seconds
            return self._text

    async def wait(self) -> bytes:
        """For the event loop: concurrent callers share one generation."""
        if time.monotonic() < self._fresh_until:
            return self._text
        if self._pending is None or self._pending.done():
            self._pending = asyncio.get_running_loop().run_in_executor(self._thread, self.text)
        return await asyncio.shield(self._pending)


#: Of this process, for all its ports.
EXPOSITION = Exposition()


#: The status and the body of the response to a probe.
Probe: TypeAlias = Callable[[], tuple[HTTPStatus, dict[str, object]]]


def listen(
    host: str, port: int, exposition: Exposition = EXPOSITION, *, probes: Mapping[str, Probe] | None = None
) -> int:
    """Serve scrapes, and probes by their path, in a thread of this process; returns the port.

    Raises SettingsError if the address cannot be listened on.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        server = _Server(family, address[:2], exposition, probes or {})
    except OSError as error:
        raise SettingsError([f"METRICS_PORT {port} cannot be listened on: {error.strerror}."]) from None
    threading.Thread(target=server.serve_forever, name="metrics-port", daemon=True).start()
    return int(server.server_address[1])


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self,
        family: socket.AddressFamily,
        address: tuple[Any, ...],
        exposition: Exposition,
        probes: Mapping[str, Probe],
    ) -> None:
        self.address_family = family
        self.exposition = exposition
        self.probes = probes
        super().__init__(address, _Scrape)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's version resolves our name, which may take seconds

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):  # the scraper has disconnected
            log.error("unexpected_error", exc_info=error)


class _Scrape(BaseHTTPRequestHandler):
    """Responds with the metrics on every path of this port that is not a probe's."""

    server: _Server
    timeout = 10  # seconds for a request to arrive

    def do_GET(self) -> None:
        if probe := self.server.probes.get(self.path.partition("?")[0]):
            status, found = probe()
            self._send(status, json.dumps(found).encode(), "application/json")
        else:
            self._send(HTTPStatus.OK, self.server.exposition.text(), MEDIA_TYPE)

    def _send(self, status: HTTPStatus, body: bytes, media_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "metrics"

    def log_message(self, format: str, *values: object) -> None:
        """Scrapes are not logged."""


def value(metric: Gauge, **labels: str) -> float | None:
    """The gauge's value for all processes behind this port; None until it is set."""
    name = metric._name  # noqa: SLF001 - the library has no other way to it
    return _registry().get_sample_value(name, labels)


def _registry() -> CollectorRegistry:
    folder = os.environ.get(_FOLDER)
    if folder is None:
        return REGISTRY
    registry = CollectorRegistry()
    registry.register(_AllProcesses(registry=None, path=folder))  # type: ignore[no-untyped-call]
    return registry


class _AllProcesses(MultiProcessCollector):
    def collect(self) -> Iterable[Metric]:
        for file in Path(self._path).glob("gauge_live*_*.db"):
            pid = int(file.stem.rsplit("_", 1)[1])
            if not _is_alive(pid):  # its open streams ended with it
                mark_process_dead(pid, self._path)  # type: ignore[no-untyped-call]
        return super().collect()  # type: ignore[no-any-return,no-untyped-call]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
