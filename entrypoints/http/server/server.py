"""Running the HTTP application in one process or several."""

from __future__ import annotations

import asyncio
import gc
import resource
import socket
import time
from contextlib import nullcontext, suppress
from typing import Any

from entrypoints import metrics
from entrypoints.http.server.app import create_app
from entrypoints.http.server.protocol import StrictProtocol
from entrypoints.loop import loop_factory
from entrypoints.preflight import refuse_mistakes
from entrypoints.settings import Settings, SettingsError
from entrypoints.stopping import StopSignals, until
from entrypoints.supervisor import Supervisor
from entrypoints.telemetry import configure_logs

_BACKLOG = 1024
#: On shutdown, how long an open connection may wait for its next request.
_IDLE_GRACE_SECONDS = 1.0
#: With thousands of open streams the default threshold, 700, triggers full collections of up to a second.
_GC_THRESHOLD = 50_000


def serve(settings: Settings, *, host: str, port: int, workers: int) -> int:
    """Serve until SIGTERM or SIGINT, and for DRAIN_SECONDS more; then finish running requests.

    All of that ends within SHUTDOWN_SECONDS of the signal.

    Raises SettingsError if the address cannot be listened on, and RedisMisconfigured.
    """
    configure_logs(settings)
    _raise_file_limit()
    with _listen(host, port) as listener, metrics.shared() if workers > 1 else nullcontext():
        if settings.metrics_port:
            metrics.listen(settings.host, settings.metrics_port)
        refuse_mistakes(settings)
        if workers == 1:
            _serve_one(settings, listener)
            return 0
        # While this process held the listener, the kernel would accept connections that nobody serves.
        return Supervisor(_serve_one, [settings, listener], processes=workers, on_stop=listener.close).run()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = (error.strerror or "no reason given").split(" (")[0]
        raise SettingsError([f"HOST {host}, PORT {port} cannot be listened on: {reason}."]) from None


def _raise_file_limit() -> None:
    """To the hard limit, for this process and its children: 1,024, the usual, are too few for our streams."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS refuses "unlimited"
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _serve_one(settings: Settings, listener: socket.socket) -> None:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve_until_stopped(settings, listener))


async def _serve_until_stopped(settings: Settings, listener: socket.socket) -> None:
    """Replaces Sanic's server loop, which on shutdown closes connections whose request is still arriving."""
    signals = StopSignals()
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
    _tune_gc()
    await signals.stop.wait()
    end = time.monotonic() + settings.http.shutdown_seconds
    app.ctx.shutdown.begin()
    async with until(signals.at_once, seconds=settings.http.drain_seconds):
        await asyncio.Event().wait()  # a load balancer notices that /ready fails, and chooses other processes
    server.server.close()  # from now on the kernel refuses connections
    await server.before_stop()  # ends the streams; their clients reconnect elsewhere
    async with until(signals.at_once):
        await _finish(server.connections, end)
    for connection in list(server.connections):
        connection.abort()
    await server.after_stop()


async def _finish(connections: set[Any], end: float) -> None:
    """Wait for running requests. An idle connection has a moment for one that is on its way."""
    left = end - time.monotonic()
    await _wait_until_closed(connections, within=min(_IDLE_GRACE_SECONDS, left / 2))
    for connection in list(connections):
        connection.close_if_idle()
    await _wait_until_closed(connections, within=end - time.monotonic())


def _tune_gc() -> None:
    """Objects created at start are permanent; what requests leave behind is freed by reference counts."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, *gc.get_threshold()[1:])


async def _wait_until_closed(connections: set[Any], *, within: float) -> None:
    end = time.monotonic() + within
    while connections and time.monotonic() < end:  # noqa: ASYNC110 - the set is Sanic's and has no event
        await asyncio.sleep(0.02)
