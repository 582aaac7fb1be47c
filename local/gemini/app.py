"""The routes: Google's, and those under /control for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sanic import Blueprint, HTTPResponse, Request, Sanic
from sanic.exceptions import SanicException

from local.gemini.directives import in_text
from local.gemini.google import GoogleError, check_key, error_body
from local.gemini.models import LISTED, model_named
from local.gemini.service import StandIn
from local.gemini.sold import Calls
from local.standin import create_app, json_response, object_in


def gemini_app(stand_in: StandIn) -> Sanic[Any, Any]:
    app = create_app("gemini-stand-in")
    app.blueprint([_google(stand_in), _control(stand_in)])

    @app.exception(GoogleError)
    async def as_google_does(_: Request, error: GoogleError) -> HTTPResponse:
        return json_response(error.body, error.code)

    @app.exception(SanicException)
    async def unknown(_: Request, error: SanicException) -> HTTPResponse:
        code, body = error_body("not_found" if error.status_code in (404, 405) else "bad_request")
        return json_response(body, code)

    return app


def _google(stand_in: StandIn) -> Blueprint:
    blueprint = Blueprint("google", url_prefix="/v1beta")

    @blueprint.post("/models/<call:str>", unquote=True)
    async def generate(request: Request, call: str) -> HTTPResponse | None:
        name, _, method = call.partition(":")
        if method not in ("generateContent", "streamGenerateContent"):
            raise GoogleError("not_found")
        return await stand_in.generate(request, name, streamed=method == "streamGenerateContent")

    @blueprint.get("/models")
    async def models(request: Request) -> HTTPResponse:
        _check(request)
        return json_response({"models": [model_named(name).as_json() for name in LISTED]})

    @blueprint.get("/models/<name:str>")
    async def model(request: Request, name: str) -> HTTPResponse:
        _check(request)
        return json_response(model_named(name).as_json())

    return blueprint


def _check(request: Request) -> None:
    check_key(request.headers.get("x-goog-api-key") or request.args.get("key"))


def _control(stand_in: StandIn) -> Blueprint:
    blueprint = Blueprint("control", url_prefix="/control")

    @blueprint.post("/faults")
    async def add_fault(request: Request) -> HTTPResponse:
        try:
            stand_in.faults.add(object_in(request))
        except (TypeError, ValueError) as error:
            raise GoogleError("bad_request", str(error)) from None
        return json_response({}, 201)

    @blueprint.delete("/faults")
    async def clear_faults(_: Request) -> HTTPResponse:
        stand_in.faults.clear()
        return json_response({})

    @blueprint.put("/pace")
    async def set_pace(request: Request) -> HTTPResponse:
        try:
            stand_in.pace = replace(stand_in.pace, **object_in(request))
        except (TypeError, ValueError):
            names = ", ".join(vars(stand_in.pace))
            raise GoogleError("bad_request", f"A pace is an object of {names}.") from None
        return json_response(vars(stand_in.pace))

    @blueprint.put("/directives")
    async def set_directives(request: Request) -> HTTPResponse:
        stand_in.directives = in_text(object_in(request)["text"])
        return json_response({"directives": [vars(directive) for directive in stand_in.directives]})

    @blueprint.delete("/cache")
    async def clear_cache(_: Request) -> HTTPResponse:
        stand_in.cache.clear()
        return json_response({})

    @blueprint.get("/calls")
    async def read_calls(request: Request) -> HTTPResponse:
        return json_response(stand_in.calls.as_json(_limit(request)))

    @blueprint.get("/sold")
    async def read_sold(request: Request) -> HTTPResponse:
        return json_response(stand_in.calls.sold_as_json(_limit(request)))

    @blueprint.delete("/calls")
    async def reset_calls(_: Request) -> HTTPResponse:
        stand_in.calls.reset()
        return json_response({})

    return blueprint


def _limit(request: Request) -> int:
    return int(request.args.get("limit", Calls.KEPT))
