"""Starts a service again when it has ended."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from local.files import LocalServerError, log_tail
from local.services import Service
from local.steps import say

FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0  # seconds before a service that ended is started again
STEADY_SECONDS = 60.0  # after which the next delay is the first one again


@dataclass
class _Watched:
    service: Service
    delay: float = FIRST_DELAY
    started: float = field(default_factory=time.monotonic)
    restart_at: float | None = None


class Watch:
    def __init__(self, services: Iterable[Service]) -> None:
        self._watched = [_Watched(service) for service in services]

    def look(self) -> None:
        """Restart what is due, and plan the restart of what has ended."""
        for watched in self._watched:
            self._look_at(watched, time.monotonic())

    def _look_at(self, watched: _Watched, now: float) -> None:
        service = watched.service
        if watched.restart_at is None:
            if (code := service.exit_code) is None:
                return
            if now - watched.started > STEADY_SECONDS:
                watched.delay = FIRST_DELAY
            tail = log_tail(service.log, 5) if watched.delay == FIRST_DELAY else ""
            self._plan_restart(watched, now, f"{tail}\n{service.name} ended (exit code {code})".strip("\n"))
        elif now >= watched.restart_at:
            watched.restart_at, watched.started = None, now
            try:
                service.start()
            except LocalServerError as error:
                self._plan_restart(watched, now, str(error))
            else:
                say(f"{service.name} is running again.")

    @staticmethod
    def _plan_restart(watched: _Watched, now: float, reason: str) -> None:
        say(f"{reason}; restarting it in {watched.delay:.0f} s. Log: {watched.service.log}")
        watched.restart_at = now + watched.delay
        watched.delay = min(watched.delay * 2, LONGEST_DELAY)
