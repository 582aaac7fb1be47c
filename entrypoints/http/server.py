"""Running the HTTP application in one process or several."""

from __future__ import annotations

import socket

from sanic import Sanic

from entrypoints.http.app import create_app
from entrypoints.settings import Settings, SettingsError
from entrypoints.supervisor import Supervisor
from entrypoints.telemetry import configure_logs

_BACKLOG = 1024


def serve(settings: Settings, *, host: str, port: int, workers: int) -> int:
    """Serve until SIGTERM or SIGINT; then finish what has begun, for as long as SHUTDOWN_SECONDS at most.

    Raises SettingsError if the address cannot be listened on.
    """
    configure_logs(settings)
    with _listen(host, port) as listener:
        if workers == 1:
            _serve_one(settings, listener)
            return 0
        return Supervisor(_serve_one, [settings, listener], processes=workers).run()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = (error.strerror or "no reason given").split(" (")[0]
        raise SettingsError([f"HOST {host}, PORT {port} cannot be listened on: {reason}."]) from None


def _serve_one(settings: Settings, listener: socket.socket) -> None:
    app = create_app(settings)
    app.prepare(sock=listener, backlog=_BACKLOG, single_process=True, motd=False, access_log=False)
    Sanic.serve_single(primary=app)
