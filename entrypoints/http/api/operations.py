"""Calls for probes, operators and client developers: /health, /ready, /metrics, /openapi.json, /docs."""

from __future__ import annotations

import hmac
from typing import Any, Literal

from sanic import HTTPResponse, Request, Sanic
from sanic.response import html, json

from application.readiness import CheckReadiness, Stopping
from domain.errors import DatabaseUnavailable, TokenInvalid, TokenMissing
from entrypoints import metrics
from entrypoints.http.api.endpoints import Endpoints
from entrypoints.http.api.schemas.operations import HealthReply, ReadyReply
from entrypoints.http.documents.docs_page import STYLE_HASH, docs_page
from entrypoints.http.documents.openapi import problem_response
from entrypoints.http.server.headers import NO_STORE, request_id
from entrypoints.http.steps.authenticated import bearer_token
from entrypoints.metrics import Exposition
from entrypoints.settings import Settings

endpoints = Endpoints("Operations")

_READ = ["GET", "HEAD"]


METRICS = "/metrics"
METRICS_OPERATION: dict[str, Any] = {
    "operationId": "metrics",
    "tags": ["Operations"],
    "summary": "Get the metrics in Prometheus' text format.",
    "description": "Counts and durations of calls, and counts of warnings, for all processes behind this port; no user"
    " data. They are at most a second old. With `METRICS_TOKEN` set, send it as a bearer token; without it, production"
    " does not have this path. `METRICS_PORT` serves the same on a separate port.",
    "parameters": [],
    "responses": {
        "200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}},
        "401": problem_response(TokenMissing, TokenInvalid),
    },
}


@endpoints.get("/health")
async def health() -> HealthReply:
    """Check that the process is alive, and nothing else."""
    return HealthReply(status="ok")


@endpoints.get("/ready", errors=(DatabaseUnavailable, Stopping))
async def ready(check: CheckReadiness, settings: Settings) -> ReadyReply:
    """Check that requests can be served, with the state of each dependency.

    Without Postgres, and once the process is about to stop, the response is 503. Without Redis the service is slower,
    and while the model refuses the workers' API key no message is answered: then the status is `degraded`, and the
    service stays in rotation.
    """
    found = await check()
    status: Literal["ready", "degraded"] = "ready" if set(found.values()) == {"ok"} else "degraded"
    return ReadyReply(status=status, dependencies=found, warnings=settings.warnings)


def route_metrics(app: Sanic[Any, Any], settings: Settings, exposition: Exposition) -> None:
    """Open in development. In production the port is public, so it needs METRICS_TOKEN."""
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
    """Pages generated once from the OpenAPI document."""
    page = docs_page(document)

    @app.route("/openapi.json", methods=_READ, name="openapi")
    async def openapi(request: Request) -> HTTPResponse:
        return json(document, headers={"x-request-id": request_id(request)})

    @app.route("/docs", methods=_READ, name="docs")
    async def docs(request: Request) -> HTTPResponse:
        policy = f"default-src 'none'; style-src '{STYLE_HASH}'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
        return html(page, headers={"x-request-id": request_id(request), "content-security-policy": policy})
