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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from sanic import HTTPResponse, Request, Sanic
from sanic import json as json_response
from sanic.exceptions import SanicException

from entrypoints.local.gemini_faults import ERRORS, Call, Calls, Faults, Json, Rule, error_body

MODELS = ("gemini-flash-latest", "gemini-flash-lite-latest", "gemini-pro-latest")
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Pace:
    """How a reply is written. Its chunks are about equal in words."""

    first_chunk_seconds: float = 0.25
    chunk_seconds: float = 0.06
    chunks: int = 9


class GoogleError(Exception):
    def __init__(self, kind: str, message: str = "") -> None:
        self.code, self.body = error_body(kind, message=message)


@dataclass(frozen=True)
class Question:
    """What of a request's body matters here. Raises GoogleError for one that Google would not take."""

    contents: list[Json]
    system: str | None
    limit: int | None

    @classmethod
    def read(cls, body: bytes) -> Question:
        try:
            given = json.loads(body)
            contents = given["contents"]
            limit = given.get("generationConfig", {}).get("maxOutputTokens")
            system = given.get("systemInstruction") or given.get("system_instruction")
            question = cls(contents, _text(system) if system else None, None if limit is None else int(limit))
            if not contents or not all(content["parts"] for content in contents):
                raise GoogleError("bad_request", "* GenerateContentRequest.contents: contents is not specified\n")
            if any(content.get("role", "user") not in ("user", "model") for content in contents):
                raise GoogleError("bad_request", "Please use a valid role: user, model.")
            question.last_user_text  # noqa: B018 - parts that are no text are refused here, not later
        except (ValueError, TypeError, KeyError, AttributeError):
            raise GoogleError("bad_request", "Invalid JSON payload received.") from None
        if limit is not None and question.limit is not None and question.limit < 1:
            raise GoogleError("bad_request", "max_output_tokens must be positive.")
        return question

    @property
    def last_user_text(self) -> str:
        return next((_text(turn) for turn in reversed(self.contents) if turn.get("role", "user") == "user"), "")

    @property
    def input_tokens(self) -> int:
        return sum(_tokens(_text(content)) for content in self.contents) + _tokens(self.system or "")

    def answer(self) -> str:
        asked = " ".join(self.last_user_text.split())
        turns = len(self.contents)
        seen = "the first turn of our conversation" if turns == 1 else f"turn {turns} of our conversation"
        return (
            "Hello! I am the local stand-in for Gemini, not the model itself. "
            f"You wrote: “{asked if len(asked) <= 400 else asked[:400] + '…'}” — good of you to ask. This is {seen}. "
            "To talk with the real Gemini, set GEMINI_API_KEY and start again."
        )


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
            self.calls.last_body = request.json
            rule = self.faults.take(text)
            call.fault = rule.kind if rule else None
            return await self._reply(request, model, question, rule or Rule("", None, None, {}), call, streamed)

    async def _reply(
        self, request: Request, model: str, question: Question, rule: Rule, call: Call, streamed: bool
    ) -> HTTPResponse | None:
        pace, pieces, finish_reason = self._plan(question, rule)
        if rule.kind in ERRORS:
            call.outcome = "failed"
            code, body = _error(rule, rule.kind)
            return json_response(
                body, code, headers={"Retry-After": wait} if (wait := rule.get("retry_after", "")) else {}
            )
        if rule.kind == "hang":
            await asyncio.Event().wait()  # the client's leaving cancels it
        if rule.kind == "disconnect":
            return _hang_up(request, call)
        await asyncio.sleep(float(rule.get("seconds", 1)) if rule.kind == "latency" else pace.first_chunk_seconds)

        chunks = _chunks(model, question, pieces, finish_reason, rule)
        if not streamed:
            await asyncio.sleep(pace.chunk_seconds * (len(chunks) - 1))
            if rule.kind in ("cut", "hang_mid_stream", "broken_json", "error_in_stream"):
                return _hang_up(request, call)
            call.outcome = "completed"
            return json_response(_joined(chunks))

        events = request.args.get("alt") == "sse"
        response = await request.respond(
            content_type="text/event-stream" if events else "application/json; charset=UTF-8"
        )
        assert response is not None

        def frame(index: int, payload: str) -> str:
            # Without alt=sse, as the former SDK asks, the stream is one JSON array sent piece by piece.
            return f"data: {payload}\r\n\r\n" if events else (",\r\n" if index else "[") + payload

        fails_at = int(rule.get("after", 1)) if rule.kind in _MID_STREAM else None
        for index, chunk in enumerate(chunks):
            if index == fails_at:
                if rule.kind == "cut":
                    _hang_up(request, call)
                    return None
                if rule.kind == "hang_mid_stream":
                    await asyncio.Event().wait()
                failed = rule.kind == "error_in_stream"
                error = json.dumps(_error(rule, rule.get("error", "unavailable"))[1]) if failed else _BROKEN
                call.outcome = "failed"
                await response.send(frame(index, error) + ("" if events else "]"))
                await response.eof()
                return None
            if index:
                await asyncio.sleep(pace.chunk_seconds)
            await response.send(frame(index, json.dumps(chunk, ensure_ascii=False)))
        await asyncio.sleep(float(rule.get("end_seconds", 0)))
        call.outcome = "completed"
        if not events:
            await response.send("]")
        await response.eof()
        return None

    def _plan(self, question: Question, rule: Rule) -> tuple[Pace, list[str], str]:
        """The pace, the pieces of text and the finish reason of a reply."""
        pace, text, finish_reason = self.pace, question.answer(), "STOP"
        pieces: list[str] | None = None
        if rule.kind == "reply":
            text = rule.get("text", text)
            chunks = rule.get("chunks", pace.chunks)
            if isinstance(chunks, list):
                pieces, chunks = chunks, len(chunks)
            seconds = {name: rule.get(name, getattr(pace, name)) for name in ("first_chunk_seconds", "chunk_seconds")}
            pace = replace(pace, chunks=chunks, **seconds)
            finish_reason = rule.get("finish_reason", finish_reason)
        if rule.kind == "empty":
            return pace, [""], rule.get("reason", finish_reason)
        if question.limit is not None and question.limit * CHARACTERS_PER_TOKEN < len("".join(pieces or [text])):
            text, finish_reason, pieces = text[: question.limit * CHARACTERS_PER_TOKEN], "MAX_TOKENS", None
        return pace, pieces if pieces is not None else _split(text, pace.chunks), finish_reason


_MID_STREAM = ("cut", "hang_mid_stream", "error_in_stream", "broken_json")
_BROKEN = '{"candidates": [{"content": {"parts": [{"text": }]}}]}'


def _error(rule: Rule, kind: str) -> tuple[int, Json]:
    return error_body(kind, retry_delay=rule.get("retry_delay", "53.016s"))


def _chunks(model: str, question: Question, pieces: Sequence[str], finish_reason: str, rule: Rule) -> list[Json]:
    """The bodies of a streamed reply. Counts are cumulative, as Google's are."""
    response_id, thought = uuid4().hex, rule.get("thought", "")
    written, chunks = 0, []
    input_tokens = question.input_tokens

    def body(candidates: list[Json], **more: Any) -> Json:
        usage = {"promptTokenCount": input_tokens, "candidatesTokenCount": _tokens_of(written)}
        usage |= {"thoughtsTokenCount": _tokens(thought)} if thought else {}
        return {
            **({"candidates": candidates} if candidates else {}),
            **more,
            "usageMetadata": usage | {"totalTokenCount": sum(usage.values())},
            "modelVersion": model,
            "responseId": response_id,
        }

    def candidate(text: str, **more: Any) -> Json:
        parts = {"parts": [{"text": text} | more]} if text else {}
        return {"content": parts | {"role": "model"}, "index": 0}

    if rule.kind == "blocked":
        return [body([], promptFeedback={"blockReason": rule.get("reason", "SAFETY")})]
    if thought:
        chunks.append(body([candidate(thought, thought=True)]))
    if rule.kind == "blocked_mid_stream":
        pieces, finish_reason = [*pieces[: int(rule.get("after", 1))], ""], rule.get("reason", "SAFETY")
    for index, piece in enumerate(pieces):
        written += len(piece)
        last = {"finishReason": finish_reason} if index + 1 == len(pieces) else {}
        chunks.append(body([candidate(piece) | last]))
    return chunks


def _joined(chunks: Sequence[Json]) -> Json:
    """The one body that a stream's chunks make."""
    whole = dict(chunks[-1])
    if candidates := whole.get("candidates"):
        parts = [p for chunk in chunks for c in chunk["candidates"] for p in c["content"].get("parts", [])]
        whole["candidates"] = [candidates[0] | {"content": {"parts": parts, "role": "model"}}]
    return whole


def _split(text: str, count: int) -> list[str]:
    words = text.split(" ")
    size = -(-len(words) // max(1, count))
    pieces = [" ".join(words[at : at + size]) for at in range(0, len(words), size)]
    return [*(piece + " " for piece in pieces[:-1]), pieces[-1]]


def _text(content: Json) -> str:
    return "".join(part["text"] for part in content["parts"])


def _tokens_of(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)


def _tokens(text: str) -> int:
    return _tokens_of(len(text))


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
        except ValueError as error:
            raise GoogleError("bad_request", str(error)) from None
        return json_response({}, 201)

    @app.delete("/control/faults")
    async def clear_faults(_: Request) -> HTTPResponse:
        stand_in.faults.rules.clear()
        return json_response({})

    @app.route("/control/pace", methods=["PUT", "POST"])
    async def set_pace(request: Request) -> HTTPResponse:
        stand_in.pace = replace(stand_in.pace, **request.json)
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
