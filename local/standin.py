"""What the stand-ins share: the server, its command line, dropped connections, and rules for faults."""

from __future__ import annotations

import argparse
import socket
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from pydantic_core import to_json
from sanic import HTTPResponse, Request, Sanic

Json = dict[str, Any]
T = TypeVar("T")

_BACKLOG = 4096


def command_line(package: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {package}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 picks a free port; the first line names it")
    return parser


def create_app(name: str) -> Sanic[Any, Any]:
    # Sanic's own logging would print a banner and every start. Without it only failures are printed.
    app: Sanic[Any, Any] = Sanic(name, configure_logging=False)
    app.config.MOTD = False
    app.config.ACCESS_LOG = False
    app.config.FALLBACK_ERROR_FORMAT = "json"
    app.config.RESPONSE_TIMEOUT = 24 * 3600  # a `hang` lasts until the client leaves
    app.config.KEEP_ALIVE_TIMEOUT = 75
    app.config.GRACEFUL_SHUTDOWN_TIMEOUT = 0.2

    @app.get("/health")
    async def health(_: Request) -> HTTPResponse:
        return json_response({"status": "ok"})

    return app


def serve(title: str, options: argparse.Namespace, app_at: Callable[[str], Sanic[Any, Any]]) -> None:
    """Run the app that `app_at` returns for its URL, until the process is stopped."""
    # Listen before printing the line: its reader may call at once.
    listener = socket.create_server((options.host, options.port), backlog=_BACKLOG)
    url = f"http://{options.host}:{listener.getsockname()[1]}"
    print(f"{title} listens on {url}", flush=True)  # noqa: T201 - the parent process reads it
    app_at(url).run(sock=listener, single_process=True, backlog=_BACKLOG)


# --- requests and responses


def json_response(body: object, status: int = 200, headers: dict[str, str] | None = None) -> HTTPResponse:
    return HTTPResponse(to_json(body), status, headers, "application/json; charset=UTF-8")


def object_in(request: Request) -> Json:
    """The JSON object in the body; empty without a body. Raises ValueError for anything else."""
    body = request.json if request.body else {}
    if not isinstance(body, dict):
        raise ValueError("The body must be a JSON object.")
    return body


class Dropped(Exception):
    """The connection was closed on purpose."""


def drop(request: Request) -> NoReturn:
    """Close the connection without an answer. Raises Dropped."""
    if request.transport:
        request.transport.close()
    raise Dropped


# --- faults and logs


@dataclass
class Limited:
    """A rule that applies to `times` calls; None is without limit."""

    times: int | None = None


Rule = TypeVar("Rule", bound=Limited)


def take(rules: Iterable[Rule], fits: Callable[[Rule], bool]) -> Rule | None:
    """The first rule that fits and is not used up, counted as used once more."""
    for rule in rules:
        if (rule.times is None or rule.times > 0) and fits(rule):
            if rule.times is not None:
                rule.times -= 1
            return rule
    return None


def last(log: deque[T], limit: int) -> list[T]:
    return list(log)[-limit:] if limit else []
