"""Gemini's stand-in: a small server that speaks the REST API of Gemini as Google's own SDKs call it.

It lets the whole product run without a key, through the very adapter that production uses. Its
replies say plainly that they are not the model's. Under /control tests make it slow, make it fail
in each way the real one does, and ask what it was asked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
from dataclasses import dataclass, replace
from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic import json as json_response
from sanic.exceptions import SanicException

from entrypoints.local.gemini.faults import ERRORS, Call, Calls, Faults, GoogleError, Json, Rule, error_body
from entrypoints.local.gemini.replies import Pace, Question, chunks_of, joined, plan

MODELS = ("gemini-flash-latest", "gemini-flash-lite-latest", "gemini-pro-latest")

_MID_STREAM = ("cut", "hang_mid_stream", "error_in_stream", "broken_json")
_BROKEN = '{"candidates": [{"content": {"parts": [{"text": }]}}]}'


@dataclass
class StandIn:
    pace: Pace
    calls: Calls
    faults: Faults

    async def generate(self, request: Request, model: str, *, streamed: bool) -> HTTPResponse | None:
        if not (request.headers.get("x-goog-api-key") or request.args.get("key")):
            raise GoogleError("no_key")
        if not model.startswith(("gemini-", "gemma-")):
            raise GoogleError("not_found", f"models/{model} is not found for API version v1beta.")
        question = Question.read(request.body)
        text = question.last_user_text
        with self.calls.record(
            model=model, text=text, turns=len(question.contents), system=question.system, limit=question.limit
        ) as call:
            self.calls.last_body = request.body
            rule = self.faults.take(text)
            call.fault = rule.kind if rule else None
            return await self._reply(request, model, question, rule or Rule("", None, None, {}), call, streamed)

    async def _reply(
        self, request: Request, model: str, question: Question, rule: Rule, call: Call, streamed: bool
    ) -> HTTPResponse | None:
        pace, pieces, finish_reason = plan(self.pace, question, rule)
        if rule.kind in ERRORS:
            call.outcome = "failed"
            code, body = _error(rule, rule.kind)
            wait = rule.get("retry_after", None)
            return json_response(body, code, headers={"Retry-After": wait} if wait else {})
        if rule.kind == "hang":
            await asyncio.Event().wait()  # the client's leaving cancels it
        if rule.kind == "disconnect":
            return _hang_up(request, call)
        await asyncio.sleep(float(rule.get("seconds", 1)) if rule.kind == "latency" else pace.first_chunk_seconds)

        chunks = chunks_of(model, question, pieces, finish_reason, rule)
        if not streamed:
            await asyncio.sleep(pace.chunk_seconds * (len(chunks) - 1))
            if rule.kind in _MID_STREAM:
                return _hang_up(request, call)
            call.outcome = "completed"
            return json_response(joined(chunks))
        await _stream(request, chunks, pace, rule, call)
        return None


async def _stream(request: Request, chunks: list[Json], pace: Pace, rule: Rule, call: Call) -> None:
    events = request.args.get("alt") == "sse"
    response = await request.respond(content_type="text/event-stream" if events else "application/json; charset=UTF-8")
    assert response is not None

    def frame(index: int, payload: str) -> str:
        # Without alt=sse, as the former SDK asks, the stream is one JSON array sent piece by piece.
        return f"data: {payload}\r\n\r\n" if events else (",\r\n" if index else "[") + payload

    fails_at = min(int(rule.get("after", 1)), len(chunks) - 1) if rule.kind in _MID_STREAM else None
    for index, chunk in enumerate(chunks):
        if index == fails_at:
            if rule.kind == "cut":
                _hang_up(request, call)
                return
            if rule.kind == "hang_mid_stream":
                await asyncio.Event().wait()
            failed = rule.kind == "error_in_stream"
            error = json.dumps(_error(rule, rule.get("error", "unavailable"))[1]) if failed else _BROKEN
            call.outcome = "failed"
            await response.send(frame(index, error) + ("" if events else "]"))
            await response.eof()
            return
        if index:
            await asyncio.sleep(pace.chunk_seconds)
        await response.send(frame(index, json.dumps(chunk, ensure_ascii=False)))
    await asyncio.sleep(float(rule.get("end_seconds", 0)))
    call.outcome = "completed"
    if not events:
        await response.send("]")
    await response.eof()


def _error(rule: Rule, kind: str) -> tuple[int, Json]:
    return error_body(kind, retry_delay=rule.get("retry_delay", "53.016s"))


def _hang_up(request: Request, call: Call) -> HTTPResponse:
    call.outcome = "failed"
    if request.transport:
        request.transport.close()
    return HTTPResponse()  # goes nowhere


def create_app(pace: Pace | None = None) -> Sanic[Any, Any]:
    # Sanic's own logging would greet and tell of each start; what is left says only what goes wrong.
    app: Sanic[Any, Any] = Sanic("gemini-stand-in", configure_logging=False)
    app.config.MOTD = False
    app.config.ACCESS_LOG = False
    app.config.FALLBACK_ERROR_FORMAT = "json"
    app.config.RESPONSE_TIMEOUT = 24 * 3600  # `hang` hangs
    app.config.KEEP_ALIVE_TIMEOUT = 75
    app.config.GRACEFUL_SHUTDOWN_TIMEOUT = 0.2
    stand_in = StandIn(pace or Pace(), Calls(), Faults())

    @app.post("/v1beta/models/<call:str>", unquote=True)
    async def generate(request: Request, call: str) -> HTTPResponse | None:
        model, _, method = call.partition(":")
        if method not in ("generateContent", "streamGenerateContent"):
            raise GoogleError("not_found")
        return await stand_in.generate(request, model, streamed=method == "streamGenerateContent")

    @app.get("/v1beta/models")
    async def models(_: Request) -> HTTPResponse:
        return json_response({"models": [_model(name) for name in MODELS]})

    @app.get("/v1beta/models/<name:str>")
    async def model(_: Request, name: str) -> HTTPResponse:
        if name not in MODELS:
            raise GoogleError("not_found")
        return json_response(_model(name))

    @app.get("/health")
    async def health(_: Request) -> HTTPResponse:
        return json_response({"status": "ok"})

    @app.post("/control/faults")
    async def add_fault(request: Request) -> HTTPResponse:
        try:
            stand_in.faults.add(request.json)
        except (TypeError, ValueError) as error:
            raise GoogleError("bad_request", str(error)) from None
        return json_response({}, 201)

    @app.delete("/control/faults")
    async def clear_faults(_: Request) -> HTTPResponse:
        stand_in.faults.rules.clear()
        return json_response({})

    @app.route("/control/pace", methods=["PUT", "POST"])
    async def set_pace(request: Request) -> HTTPResponse:
        try:
            stand_in.pace = replace(stand_in.pace, **request.json)
        except TypeError:
            names = ", ".join(stand_in.pace.__dict__)
            raise GoogleError("bad_request", f"A pace is an object of {names}.") from None
        return json_response(stand_in.pace.__dict__)

    @app.get("/control/calls")
    async def read_calls(request: Request) -> HTTPResponse:
        return json_response(stand_in.calls.as_json(int(request.args.get("limit", Calls.KEPT))))

    @app.delete("/control/calls")
    async def reset_calls(_: Request) -> HTTPResponse:
        stand_in.calls.reset()
        return json_response({})

    @app.exception(GoogleError)
    async def as_google_says_it(_: Request, error: GoogleError) -> HTTPResponse:
        return json_response(error.body, error.code)

    @app.exception(SanicException)
    async def unknown(_: Request, error: SanicException) -> HTTPResponse:
        code, body = error_body("not_found" if error.status_code in (404, 405) else "bad_request")
        return json_response(body, code)

    return app


def _model(name: str) -> Json:
    methods = ["generateContent", "streamGenerateContent"]
    return {"name": f"models/{name}", "displayName": f"Stand-in for {name}", "supportedGenerationMethods": methods}


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m entrypoints.local.gemini", description=__doc__)
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, required=True, help="0 takes a free one, named in the first line")
    arguments.add_argument("--first-chunk-seconds", type=float, default=Pace.first_chunk_seconds)
    arguments.add_argument("--chunk-seconds", type=float, default=Pace.chunk_seconds)
    arguments.add_argument("--chunks", type=int, default=Pace.chunks)
    given = arguments.parse_args()
    app = create_app(Pace(given.first_chunk_seconds, given.chunk_seconds, given.chunks))

    # Listening before the line is printed: whoever reads it may call at once.
    listener = socket.create_server((given.host, given.port), backlog=4096)
    print(f"Gemini's stand-in listens on http://{given.host}:{listener.getsockname()[1]}", flush=True)  # noqa: T201
    app.run(sock=listener, single_process=True, backlog=4096)


if __name__ == "__main__":
    main()
