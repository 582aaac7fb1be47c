"""The HTTP API on a clock that is ahead: python -m tests.e2e.moved_clock PORT FILE, which holds by how many seconds.

What Stripe signs is dated by the real clock, so the webhook keeps that one. The worker needs no other:
readings run by the clock of the database, and what they store are Stripe's own times.
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from dependency_injector import providers

from adapters.system import SystemClock
from application.ports.runtime import Clock
from entrypoints.container import Container
from entrypoints.http.app import create_app
from entrypoints.settings import Settings


class MovedClock(Clock):
    def __init__(self, ahead: Path) -> None:
        self._ahead = ahead
        self._real = SystemClock()

    def now(self) -> datetime:
        return self._real.now() + timedelta(seconds=int(self._ahead.read_text()))


def main(port: str, ahead: str) -> None:
    settings = Settings.from_environment(os.environ)
    container = Container(settings=settings)
    container.clock.override(providers.Object(MovedClock(Path(ahead))))
    accept = replace(container.accept_webhook_event(), clock=SystemClock())
    container.accept_webhook_event.override(providers.Object(accept))
    listener = socket.create_server(("127.0.0.1", int(port)))
    create_app(settings, container).run(sock=listener, single_process=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
