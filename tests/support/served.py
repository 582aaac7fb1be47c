"""The HTTP application in the test's own loop."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sanic import Sanic

from entrypoints.http.server.protocol import StrictProtocol


@asynccontextmanager
async def served(app: Sanic[Any, Any]) -> AsyncIterator[str]:
    """The app on a free port, in this loop; its URL."""
    Sanic.test_mode = True  # else a process can serve one app only: Sanic rewrites its own methods from their source
    listener = socket.create_server(("127.0.0.1", 0))
    server: Any = await app.create_server(sock=listener, protocol=StrictProtocol, return_asyncio_server=True)
    await server.startup()
    await server.before_start()
    await server.after_start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await server.before_stop()
        await server.close()
        for connection in server.connections:
            connection.abort()
        await server.after_stop()
