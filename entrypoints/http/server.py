"""Running the HTTP application in one process or several."""

from __future__ import annotations

from functools import partial

from sanic import Sanic
from sanic.worker.loader import AppLoader

from entrypoints.http.app import create_app
from entrypoints.settings import Settings


def serve(settings: Settings, *, host: str, port: int, workers: int) -> None:
    """Serve until SIGTERM or SIGINT; then finish what has begun, for as long as SHUTDOWN_SECONDS at most."""
    # Sanic spawns its workers, so each makes the application anew from the settings.
    loader = AppLoader(factory=partial(create_app, settings))
    app = loader.load()
    app.prepare(host=host, port=port, workers=workers, single_process=workers == 1, motd=False, access_log=False)
    if workers == 1:
        Sanic.serve_single(primary=app)
    else:
        Sanic.serve(primary=app, app_loader=loader)
