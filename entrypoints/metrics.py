"""What Prometheus may know: counts of calls and events, never of whom.

Several processes behind one port share theirs in a folder, so that a scrape tells of all of them whoever answers it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
    generate_latest,
    start_http_server,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from structlog.typing import EventDict, WrappedLogger

from entrypoints.settings import SettingsError

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # which the library looks at when it is imported
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody asks for

HTTP_REQUESTS = Counter("http_requests", "Answered requests.", ["call", "status"])
HTTP_SECONDS = Histogram(
    "http_request_duration_seconds", "From a request's headers to its answer's.", ["call"], buckets=_SECONDS
)
STREAMS_OPEN = Gauge("http_streams_open", "Streams of replies that are open.", multiprocess_mode="livesum")
RATE_LIMITED = Counter("rate_limited", "Calls refused by a rate limit.", ["rule"])
RATE_LIMITS_UNCHECKED = Counter("rate_limits_unchecked", "Calls let through because Redis could not be asked.")
LOG_EVENTS = Counter("log_events", "Warnings and errors in the log, by their name.", ["event", "level"])
MESSAGES_ATTEMPTED = Counter("messages_attempted", "Attempts at a reply, by what the message became.", ["status"])

_COUNTED = {"warning", "error", "critical", "exception"}


def count_log_event(_: WrappedLogger, level: str, event: EventDict) -> EventDict:
    """A processor of structlog's. Our events are named by constants, so they are few and tell nothing of anybody."""
    if level in _COUNTED:
        LOG_EVENTS.labels(event["event"], level).inc()
    return event


@contextmanager
def shared() -> Iterator[None]:
    """Processes that are started within share their metrics."""
    with tempfile.TemporaryDirectory(prefix="gemini-metrics-") as folder:
        os.environ[_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[_FOLDER]


def exposition() -> bytes:
    """All that is known, in Prometheus' text format."""
    return generate_latest(_registry())


def listen(host: str, port: int) -> None:
    """Answer scrapes beside what this process does. Raises SettingsError if the address cannot be listened on."""
    registry = _registry()
    try:
        start_http_server(port, host, registry)
    except OSError as error:
        raise SettingsError([f"METRICS_PORT {port} cannot be listened on: {error.strerror}."]) from None


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
            if not _is_alive(pid):  # what it had open it has no more
                mark_process_dead(pid, self._path)  # type: ignore[no-untyped-call]
        return super().collect()  # type: ignore[no-any-return,no-untyped-call]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
