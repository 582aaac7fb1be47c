"""Running the HTTP application in one process or several."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import socket
import time
from contextlib import nullcontext, suppress
from typing import Any

from entrypoints import metrics
from entrypoints.http.server.app import create_app
from entrypoints.http.server.protocol import StrictProtocol
from entrypoints.settings import Settings, SettingsError
from entrypoints.supervisor import Supervisor
from entrypoints.telemetry import configure_logs
from entrypoints.worker import loop_factory

_BACKLOG = 1024
#: After this long without a request a kept connection is closed.
_LINGER_SECONDS = 1.0
#: Python's default, 700, has it search thousands of open streams for garbage all the time, a second for the whole heap.
_GARBAGE_THRESHOLD = 50_000


def serve(settings: Settings, *, host: str, port: int, workers: int) -> int:
    """Serve until SIGTERM or SIGINT; then finish what has begun, for as long as SHUTDOWN_SECONDS at most.

    Raises SettingsError if the address cannot be listened on.
    """
    configure_logs(settings)
    _raise_file_limit()
    with _listen(host, port) as listener, metrics.shared() if workers > 1 else nullcontext():
        if settings.metrics_port:
            metrics.listen(settings.host, settings.metrics_port)
        if workers == 1:
            _serve_one(settings, listener)
            return 0
        # As long as this process held it too, connections would be taken that nobody serves any more.
        return Supervisor(_serve_one, [settings, listener], processes=workers, let_go=listener.close).run()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = (error.strerror or "no reason given").split(" (")[0]
        raise SettingsError([f"HOST {host}, PORT {port} cannot be listened on: {reason}."]) from None


def _raise_file_limit() -> None:
    """As far as we may, here and in what we start: a usual limit of 1,024 files is fewer than there may be streams."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS takes no "unlimited"
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _serve_one(settings: Settings, listener: socket.socket) -> None:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve_until_stopped(settings, listener))


async def _serve_until_stopped(settings: Settings, listener: socket.socket) -> None:
    """Not Sanic's own loop: that one, told to stop, closes connections on which a request is on its way."""
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    app = create_app(settings)
    server: Any = await app.create_server(
        sock=listener,
        backlog=_BACKLOG,
        protocol=StrictProtocol,
        asyncio_server_kwargs={"start_serving": False},
    )
    await server.startup()
    await server.before_start()
    await server.start_serving()
    await server.after_start()
    _search_less_for_garbage()
    await stop.wait()
    await server.before_stop()
    server.server.close()  # new connections are refused, so a load balancer tries elsewhere
    app.ctx.stopping = True  # and those that are open end with their next answer
    await _empty(server.connections, within=min(_LINGER_SECONDS, settings.http.shutdown_seconds / 2))
    for connection in list(server.connections):
        connection.close_if_idle()
    await _empty(server.connections, within=settings.http.shutdown_seconds - _LINGER_SECONDS)
    for connection in list(server.connections):
        connection.abort()
    await server.after_stop()


def _search_less_for_garbage() -> None:
    """What is there after the start stays; and what requests and streams leave behind goes without a search."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD, *gc.get_threshold()[1:])


async def _empty(connections: set[Any], *, within: float) -> None:
    end = time.monotonic() + within
    while connections and time.monotonic() < end:  # noqa: ASYNC110 - the set is Sanic's and tells nobody
        await asyncio.sleep(0.02)
