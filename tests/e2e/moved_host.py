"""The HTTP API on a host whose clock is wrong: python -m tests.e2e.moved_host PORT SECONDS."""

from __future__ import annotations

import os
import socket
import sys
from datetime import datetime, timedelta

from dependency_injector import providers

from adapters.system import SystemClock
from application.ports.runtime import Clock
from entrypoints.container import Container
from entrypoints.http.server.app import create_app
from entrypoints.settings import Settings


class WrongClock(Clock):
    def __init__(self, ahead: timedelta) -> None:
        self._ahead = ahead
        self._real = SystemClock()

    def now(self) -> datetime:
        return self._real.now() + self._ahead


def main(port: str, seconds: str) -> None:
    settings = Settings.from_environment(os.environ)
    container = Container(settings=settings)
    container.host_clock.override(providers.Object(WrongClock(timedelta(seconds=int(seconds)))))
    listener = socket.create_server(("127.0.0.1", int(port)))
    create_app(settings, container).run(sock=listener, single_process=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
