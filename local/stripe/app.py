"""The stand-in's HTTP: Stripe's REST API, the pages, and /control."""

from __future__ import annotations

import asyncio
import traceback
from contextlib import suppress
from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.exceptions import SanicException

from local.standin import Dropped, create_app, drop, json_response
from local.stripe.control import control
from local.stripe.errors import StripeError, error_with, invalid
from local.stripe.pages import error_page, pages
from local.stripe.service import Reply, StandIn


def stripe_app(stand_in: StandIn) -> Sanic[Any, Any]:
    app = create_app("stripe-stand-in")
    app.blueprint([*control(stand_in), pages(stand_in)])
    _answer_errors(app)

    @app.route("/v1/<path:path>", methods=["GET", "POST", "DELETE"])
    async def rest(request: Request, path: str) -> HTTPResponse:
        body = request.body.decode(errors="replace")
        reply = await stand_in.call(request.method, request.path, request.query_string, body, request.headers)
        return _sent(request, reply)

    @app.before_server_start
    async def start(app: Sanic[Any, Any]) -> None:
        stand_in.dispatcher.resume()
        app.ctx.running = asyncio.create_task(stand_in.run())

    @app.after_server_stop
    async def stop(app: Sanic[Any, Any]) -> None:
        app.ctx.running.cancel()
        with suppress(asyncio.CancelledError):
            await app.ctx.running
        stand_in.save()
        await stand_in.dispatcher.close()

    return app


def _answer_errors(app: Sanic[Any, Any]) -> None:
    @app.exception(StripeError)
    async def as_stripe_does(request: Request, error: StripeError) -> HTTPResponse:
        is_api = request.path.startswith(("/v1/", "/control/"))
        return json_response(error.body, error.status) if is_api else error_page(error)

    @app.exception(SanicException)
    async def unknown_url(request: Request, error: SanicException) -> HTTPResponse:
        message = f"Unrecognized request URL ({request.method}: {request.path})."
        return json_response({"error": {"type": "invalid_request_error", "message": message}}, error.status_code)

    @app.exception(Dropped)
    async def dropped(request: Request, error: Dropped) -> HTTPResponse:
        return HTTPResponse()  # never sent

    @app.exception(Exception)
    async def failed(request: Request, error: Exception) -> HTTPResponse:
        if request.path.startswith("/control/") and isinstance(error, TypeError | ValueError | KeyError):
            return json_response(invalid(f"{type(error).__name__}: {error}").body, 400)
        traceback.print_exception(error)  # to stderr: nobody reads stdout after the first line
        return json_response(error_with(500).body, 500)


def _sent(request: Request, reply: Reply) -> HTTPResponse:
    if reply.fault is None:
        return HTTPResponse(reply.body, reply.status, reply.headers, content_type="application/json")
    if reply.fault.kind == "broken_json":
        return HTTPResponse('{"id": "cus_', 200, reply.headers, content_type="application/json")
    if reply.fault.kind == "html":
        return HTTPResponse("<html><body>502 Bad Gateway</body></html>", 502, content_type="text/html")
    return drop(request)
