"""What operators, probes and client developers ask: /health, /ready, /openapi.json, /docs."""

from __future__ import annotations

import asyncio
import hmac
from typing import Any, Literal

from sanic import HTTPResponse, Request, Sanic
from sanic.response import html, json

from application.ports.runtime import Dependency
from domain.errors import DatabaseUnavailable, DomainError, TokenInvalid, TokenMissing
from entrypoints import metrics
from entrypoints.container import Container
from entrypoints.http.docs_page import STYLE_HASH, docs_page
from entrypoints.http.endpoints import Endpoints, bearer_token
from entrypoints.http.errors import NO_STORE, request_id
from entrypoints.http.openapi import problem_response
from entrypoints.http.schemas import HealthReply, ReadyReply
from entrypoints.metrics import Exposition
from entrypoints.settings import Settings

endpoints = Endpoints("Operations")

_READ = ["GET", "HEAD"]


METRICS = "/metrics"
METRICS_OPERATION: dict[str, Any] = {
    "operationId": "metrics",
    "tags": ["Operations"],
    "summary": "Get the metrics, in Prometheus' text format.",
    "description": "Counts and durations of calls, and counts of warnings, for all processes behind this port; nothing"
    " of any user. At most a second old. With `METRICS_TOKEN` it takes that token as a bearer's; without it production"
    " has no such path. `METRICS_PORT` has the same on a port of its own.",
    "parameters": [],
    "responses": {
        "200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}},
        "401": problem_response(TokenMissing, TokenInvalid),
    },
}


@endpoints.add("GET", "/health", reply=HealthReply)
async def health() -> HealthReply:
    """Tell whether the process is alive. Looks at nothing else."""
    return HealthReply(status="ok")


@endpoints.add("GET", "/ready", reply=ReadyReply, errors=(DatabaseUnavailable,))
async def ready(container: Container) -> ReadyReply:
    """Tell whether requests can be served, with the state of each dependency.

    Without Postgres nothing can, and this is a 503. Without Redis everything still is, only slower: the service
    is `degraded` and stays in rotation.
    """
    dependencies: list[Dependency] = container.watched()
    found = dict(zip((d.name for d in dependencies), await asyncio.gather(*map(_state, dependencies)), strict=True))
    if found["postgres"] != "ok":
        raise NotReady(found)
    return ReadyReply(
        status="ready" if set(found.values()) == {"ok"} else "degraded",
        dependencies=found,
        warnings=warnings(container.settings()),
    )


def warnings(settings: Settings) -> list[str]:
    """What production was explicitly allowed to do and should not."""
    if settings.is_production and settings.otp_sender == "reply":
        return ["One-time codes are handed out in replies: anybody can log in as anybody."]
    return []


class NotReady(DatabaseUnavailable):
    def __init__(self, dependencies: dict[str, Literal["ok", "away"]]) -> None:
        super().__init__("Away: " + ", ".join(name for name, state in dependencies.items() if state == "away") + ".")


async def _state(dependency: Dependency) -> Literal["ok", "away"]:
    try:
        await dependency.check()
    except DomainError:
        return "away"
    return "ok"


def route_metrics(app: Sanic[Any, Any], settings: Settings, exposition: Exposition) -> None:
    """Open in development. In production this port is everybody's: with METRICS_TOKEN, or not at all."""
    token = settings.metrics_token.get_secret_value().encode()
    if settings.is_production and not token:
        return

    @app.route(METRICS, methods=_READ, name="metrics")
    async def expose(request: Request) -> HTTPResponse:
        if token and not hmac.compare_digest(bearer_token(request).encode(errors="surrogateescape"), token):
            raise TokenInvalid
        headers = {"x-request-id": request_id(request), **NO_STORE}
        return HTTPResponse(await exposition.wait(), headers=headers, content_type=metrics.MEDIA_TYPE)


def route_documents(app: Sanic[Any, Any], document: dict[str, Any]) -> None:
    """The pages that are made once from the OpenAPI document."""
    page = docs_page(document)

    @app.route("/openapi.json", methods=_READ, name="openapi")
    async def openapi(request: Request) -> HTTPResponse:
        return json(document, headers={"x-request-id": request_id(request)})

    @app.route("/docs", methods=_READ, name="docs")
    async def docs(request: Request) -> HTTPResponse:
        policy = f"default-src 'none'; style-src '{STYLE_HASH}'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
        return html(page, headers={"x-request-id": request_id(request), "content-security-policy": policy})
