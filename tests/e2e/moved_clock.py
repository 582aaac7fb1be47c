"""The HTTP API on a clock that is ahead: python -m tests.e2e.moved_clock PORT FILE, which holds by how many seconds.

Only what is sold runs ahead. Who signs up and logs in does so by the real clock, and what Stripe signs is dated by
it, too. The worker needs no other: readings run by the clock of the database, and what they store are Stripe's own
times.
"""

from __future__ import annotations

import os
import socket
import sys
from datetime import datetime, timedelta
from pathlib import Path

from dependency_injector import providers

from adapters.system import SystemClock
from application.ports.runtime import Clock
from entrypoints.container import Container
from entrypoints.http.server.app import create_app
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
    # Made before the clock is replaced, they keep the real one.
    for at_real_time in (
        container.sign_up,
        container.send_otp,
        container.verify_otp,
        container.authenticate,
        container.accept_webhook_event,
    ):
        at_real_time()
    container.clock.override(providers.Object(MovedClock(Path(ahead))))
    listener = socket.create_server(("127.0.0.1", int(port)))
    create_app(settings, container).run(sock=listener, single_process=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
