"""The factory of the HTTP application."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import Any

import structlog
from sanic import Sanic

from entrypoints import metrics
from entrypoints.container import Container, running
from entrypoints.http.api import accounts, billing, chat, operations
from entrypoints.http.documents.openapi import openapi_document
from entrypoints.http.server import web
from entrypoints.http.server.errors import ProblemHandler
from entrypoints.http.server.headers import ResponseHeaders
from entrypoints.http.server.protocol import StrictRequest
from entrypoints.http.server.sse import Streams
from entrypoints.http.steps.call import Kit
from entrypoints.http.steps.compiled import compiled
from entrypoints.http.steps.rate_limits import RateLimits
from entrypoints.lag import LoopLag
from entrypoints.metrics import EXPOSITION, Exposition
from entrypoints.settings import Settings
from entrypoints.telemetry import configure_logs

NAME = "gemini-backend"

_AREAS = (accounts, chat, billing, operations)

log = structlog.get_logger(__name__)


def api_document() -> dict[str, Any]:
    """The OpenAPI document of all that is served."""
    return openapi_document(
        [endpoint for area in _AREAS for endpoint in area.endpoints],
        version=version("gemini-backend"),
        others={
            billing.WEBHOOK: {"post": billing.WEBHOOK_OPERATION},
            operations.METRICS: {"get": operations.METRICS_OPERATION},
        },
    )


def create_app(
    settings: Settings, container: Container | None = None, *, name: str = NAME, exposition: Exposition = EXPOSITION
) -> Sanic[Any, Any]:
    """Tests pass a container with replaced adapters."""
    configure_logs(settings)
    container = container or Container(settings=settings)
    app: Sanic[Any, Any] = Sanic(
        name, error_handler=ProblemHandler(), request_class=StrictRequest, configure_logging=False
    )
    app.ctx.shutdown = container.shutdown()  # once begun, connections end with their next response
    app.ctx.headers = ResponseHeaders(settings)
    app.register_middleware(app.ctx.headers.complete, "response")
    app.ctx.streams = Streams(settings, container.session_watch())
    _configure(app, settings)
    _route(app, settings, container, exposition)
    _start_and_stop(app, settings, container)
    return app


def _configure(app: Sanic[Any, Any], settings: Settings) -> None:
    app.config.update(
        ACCESS_LOG=False,
        MOTD=False,
        REQUEST_MAX_SIZE=settings.http.json_body_bytes,
        REQUEST_MAX_HEADER_SIZE=settings.http.header_bytes,
        REQUEST_TIMEOUT=settings.http.header_seconds,
        RESPONSE_TIMEOUT=settings.http.request_seconds,
        KEEP_ALIVE_TIMEOUT=settings.http.keep_alive_seconds,
        GRACEFUL_SHUTDOWN_TIMEOUT=settings.http.shutdown_seconds,
        GRACEFUL_TCP_CLOSE_TIMEOUT=1,
    )


def _route(app: Sanic[Any, Any], settings: Settings, container: Container, exposition: Exposition) -> None:
    rate_limits = RateLimits(
        settings, container.rate_limiter(), container.process_rate_limiter(), container.mobile_numbers()
    )
    endpoints = [endpoint for area in _AREAS for endpoint in area.endpoints]
    keyed_calls = [endpoint.name for endpoint in endpoints if endpoint.takes_key]
    kit = Kit.of(container, app.ctx.streams, rate_limits, keyed_calls=keyed_calls)
    for endpoint in endpoints:
        app.add_route(compiled(endpoint, kit), endpoint.path, methods=endpoint.methods, name=endpoint.name)
    billing.route_webhook(app, container.accept_webhook_event(), limit=settings.http.webhook_body_bytes)
    operations.route_documents(app, api_document())
    operations.route_metrics(app, settings, exposition)
    web.route_page(app, settings)


def _start_and_stop(app: Sanic[Any, Any], settings: Settings, container: Container) -> None:
    @app.before_server_start
    async def start(app: Sanic[Any, Any]) -> None:
        for warning in settings.warnings:
            log.warning("unsafe_setting", warning=warning)
        # Each computes a hash to compare with when it is created, which would delay the first request.
        await asyncio.gather(asyncio.to_thread(container.password_hasher), asyncio.to_thread(container.code_hasher))
        app.ctx.resources = running(
            [
                *container.resources(),
                container.reply_watch(),
                container.session_watch(),
                container.payment_gateway(),
                container.otp_sender(),
                LoopLag(metrics.LOOP_LAG.observe),
            ]
        )
        await app.ctx.resources.__aenter__()

    @app.before_server_stop
    async def close_streams(app: Sanic[Any, Any]) -> None:
        app.ctx.streams.shut_down()

    @app.after_server_stop
    async def stop(app: Sanic[Any, Any]) -> None:
        resources: AbstractAsyncContextManager[None] = app.ctx.resources
        await resources.__aexit__(None, None, None)
