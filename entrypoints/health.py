"""The health of workers, which a thread reports at METRICS_PORT: a loop that is stuck cannot answer for itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus

from entrypoints import metrics
from entrypoints.settings import Settings

BEAT_SECONDS = 1.0
#: The loop beats every second; argon2, large replies and a busy machine delay that by much less.
_LOOP_SECONDS = 10.0
#: Beyond the pause between sweeps: a sweep of a few statements, each with its own timeout, lasts less.
_SWEEP_SECONDS = 60.0

LOOP, SWEEP, DATABASE = "loop", "sweep", "database"


def seen(part: str) -> None:
    """This part of the worker works."""
    metrics.WORKER_SEEN.labels(part).set_to_current_time()


class WorkerHealth:
    """Of all worker processes behind the port: the one that is worst off counts."""

    def __init__(self, settings: Settings) -> None:
        sweep = max(settings.worker.sweep_seconds, settings.worker.heartbeat_seconds * 1.5)
        self._alive = {LOOP: _LOOP_SECONDS, SWEEP: sweep + _SWEEP_SECONDS}
        # A worker without its database is alive: a restart would not help.
        self._ready = {**self._alive, DATABASE: sweep + settings.worker.lease_seconds}

    @property
    def probes(self) -> dict[str, metrics.Probe]:
        return {"/health": lambda: self._probe(self._alive), "/ready": lambda: self._probe(self._ready)}

    def _probe(self, limits: Mapping[str, float]) -> tuple[HTTPStatus, dict[str, object]]:
        now = time.time()
        ages: dict[str, float | None] = {}
        late = []
        for part, limit in limits.items():
            when = metrics.value(metrics.WORKER_SEEN, part=part)
            ages[part] = None if when is None else round(max(0.0, now - when), 1)
            if when is None or now - when > limit:
                late.append(part)
        status = HTTPStatus.SERVICE_UNAVAILABLE if late else HTTPStatus.OK
        return status, {"status": f"no sign of {', '.join(late)}" if late else "ok", "secondsSince": ages}
