"""Gemini over each transport against bytes as they may come: what the stand-in, a well-behaved server, cannot send."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from adapters.gemini.model import GeminiModel
from domain.chat.calls import ThinkingLevel, TokenUsage
from domain.chat.conversation import ReplyChunk
from domain.errors import (
    ModelError,
    ModelNotConfigured,
    ModelOverloaded,
    ModelQuotaExhausted,
    ModelRateLimited,
    ModelRejectedRequest,
    ModelTimedOut,
    ModelUnavailable,
    ReplyBlocked,
    ReplyEmpty,
)
from tests.contracts.test_language_model import TRANSPORTS, conversation, gemini, read
from tests.support.raw_http import RawReply, RawServer, in_bytes, raw_server

KEY = "the-key-that-nobody-sees"
PROMPT = "a prompt that nobody sees"
TYPE = "type.googleapis.com/google.rpc."


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with raw_server() as server:
        yield server


@pytest.fixture(params=list(TRANSPORTS))
async def model(request: pytest.FixtureRequest, server: RawServer) -> AsyncIterator[GeminiModel]:
    model = gemini(request.param, server.url, key=KEY)
    yield model
    await model.close()


def said(*texts: str, thought: bool = False, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """An event with one candidate."""
    parts = [{"text": text} | ({"thought": True} if thought else {}) for text in texts]
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    return {"candidates": [candidate | ({"finishReason": finish} if finish else {})], **more}


def usage(**counts: int) -> dict[str, Any]:
    return {"usageMetadata": {f"{name}TokenCount": number for name, number in counts.items()}}


def error(status: str | None = None, message: str = "", reason: str = "", *details: Any) -> dict[str, Any]:
    info = [{"@type": f"{TYPE}ErrorInfo", "reason": reason, "domain": "googleapis.com"}] if reason else []
    return {"error": {"status": status, "message": message, "details": [*info, *details]}}


def text_of(chunks: list[ReplyChunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


async def failed(model: GeminiModel, expected: type[ModelError]) -> tuple[list[ReplyChunk], Any]:
    """What came before the error, and the error."""
    chunks = []

    async def read_on() -> None:
        async for chunk in model.stream(conversation(PROMPT)):
            chunks.append(chunk)  # noqa: PERF401 - those before the error are wanted

    with pytest.raises(expected) as raised:
        await read_on()
    assert type(raised.value) is expected
    return chunks, raised.value


# The request


async def test_the_request_is_the_documented_one_and_nothing_more(model: GeminiModel, server: RawServer) -> None:
    server.events(said("Fine.", finish="STOP"))
    turns = conversation("one", 'two "🙂"\u2028', "three", max_output_tokens=100)
    await read(model, replace(turns, instructions="Be brief.", thought_tokens=50))
    (asked,) = server.asked
    assert asked.method == "POST"
    path, _, query = asked.target.partition("?")
    assert path == "/v1beta/models/gemini-flash-latest:streamGenerateContent"
    assert query == "alt=sse"
    assert asked.headers["x-goog-api-key"] == KEY
    assert asked.headers["content-type"] == "application/json"
    assert asked.json == {
        "contents": [
            {"role": "user", "parts": [{"text": "one"}]},
            {"role": "model", "parts": [{"text": 'two "🙂"\u2028'}]},
            {"role": "user", "parts": [{"text": "three"}]},
        ],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "generationConfig": {"maxOutputTokens": 150},
    }


async def test_connections_are_kept_between_calls(model: GeminiModel, server: RawServer) -> None:
    for _ in range(3):
        server.events(said("Fine.", finish="STOP"))
        await read(model)
    assert (len(server.asked), server.connections) == (3, 1)


async def test_a_redirect_is_not_followed(model: GeminiModel, server: RawServer) -> None:
    async with raw_server() as elsewhere:
        server.reply(RawReply(status=307, headers={"Location": f"{elsewhere.url}/v1beta/models/any"}))
        _, raised = await failed(model, ModelNotConfigured)
    assert raised.reason == "HTTP_307"
    assert elsewhere.asked == []


@pytest.mark.parametrize("transport", list(TRANSPORTS))
async def test_the_proxy_that_is_named_is_used(transport: str, server: RawServer) -> None:
    model = gemini(transport, "http://gemini.invalid", proxy=server.url.replace("//", "//me:hunter2@"))
    server.events(said("Fine.", finish="STOP"))
    assert text_of(await read(model)) == "Fine."
    assert server.asked[0].target.startswith("http://gemini.invalid/v1beta/models/")
    assert server.asked[0].headers["proxy-authorization"].startswith("Basic ")
    server.error(407, "")
    _, raised = await failed(model, ModelNotConfigured)
    assert raised.reason == "HTTP_407"
    await model.close()


@pytest.mark.parametrize("transport", list(TRANSPORTS))
@pytest.mark.parametrize(
    ("name", "path"),
    [("tunedModels/mine", "tunedModels/mine"), ("models/gemini-x", "models/gemini-x"), ("gemini-x", "models/gemini-x")],
)
async def test_a_models_name_may_be_a_resource(transport: str, name: str, path: str, server: RawServer) -> None:
    model = gemini(transport, server.url, model=name)
    server.events(said("Fine.", finish="STOP"))
    await read(model)
    assert server.asked[0].target.startswith(f"/v1beta/{path}:streamGenerateContent")
    await model.close()


# The stream


STREAM = [said("Grüße ", "aus "), said("Wien 🙂\u2028", finish="STOP")]
FIRST, SECOND = (json.dumps(event, ensure_ascii=False).encode() for event in STREAM)
FORMS = {
    "CRLF": b"data: %b\r\n\r\ndata: %b\r\n\r\n",
    "LF": b"data: %b\n\ndata: %b\n\n",
    "CR": b"data: %b\r\rdata: %b\r\r",
    "no space": b"data:%b\n\ndata:%b\n\n",
    "comments": b": hello\n\n:\n\n: {\ndata: %b\n: between\n\n\n\ndata: %b\n\n: bye\n\n",
    "other fields": b"id: 1\nevent: message\nretry: 5\ndata: %b\n\nid\nx-data: no\ndata: %b\n\n",
    "no empty line at the end": b"data: %b\r\n\r\ndata: %b\r\n",
    "no line end at the end": b"data: %b\r\n\r\ndata: %b",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cut", ["whole", "bytes", "in two"])
async def test_every_form_of_a_stream_is_read(model: GeminiModel, server: RawServer, form: str, cut: str) -> None:
    stream = FORMS[form] % (FIRST, SECOND)
    half = len(stream) // 2
    pieces = {"whole": [stream], "bytes": list(in_bytes(stream)), "in two": [stream[:half], stream[half:]]}[cut]
    server.reply(RawReply(pieces))
    chunks = await read(model)
    assert text_of(chunks) == "Grüße aus Wien 🙂\u2028"
    assert chunks[-1].finish_reason == "STOP"


async def test_an_event_may_have_many_lines(model: GeminiModel, server: RawServer) -> None:
    lines = json.dumps(said("Fine.", finish="STOP"), indent=2).encode().splitlines()
    server.reply(RawReply([b"".join(b"data: " + line + b"\r\n" for line in lines) + b"\r\n"]))
    assert text_of(await read(model)) == "Fine."


@pytest.mark.parametrize("size", [65_536, 10_000_000])
async def test_a_large_event_is_read_in_one_go(model: GeminiModel, server: RawServer, size: int) -> None:
    """In time that grows with its square ten megabytes would take hours."""
    event = b"data: " + json.dumps(said("ab" * (size // 2), finish="STOP")).encode() + b"\r\n\r\n"
    server.reply(RawReply([event[at : at + size] for at in range(0, len(event), size)]))
    assert len(text_of(await read(model))) == size


async def test_what_is_younger_than_the_adapter_does_no_harm(model: GeminiModel, server: RawServer) -> None:
    younger = {"text": "Fine.", "mood": "good", "thoughtSignature": "AAAA"}
    server.events(
        {"createTime": "2031-01-01T00:00:00Z", "usageMetadata": {"serviceTier": "STANDARD"}},
        {"candidates": [{"content": {"parts": [younger, {"hologram": {}}]}, "groundingMetadata": {"x": []}}]},
        {"candidates": [{"finishReason": "OF_THE_FUTURE", "finishMessage": "Well."}], "modelStatus": {"stage": "X"}},
    )
    chunks = await read(model)
    assert text_of(chunks) == "Fine."
    assert chunks[-1].finish_reason == "OF_THE_FUTURE"


async def test_an_unknown_block_reason_blocks(model: GeminiModel, server: RawServer) -> None:
    server.events({"promptFeedback": {"blockReason": "OF_THE_FUTURE"}})
    _, raised = await failed(model, ReplyBlocked)
    assert raised.reason == "OF_THE_FUTURE"


async def test_half_a_surrogate_pair_costs_no_reply(model: GeminiModel, server: RawServer) -> None:
    server.events(said("Fine \ud83d."), said("", finish="STOP"))
    assert text_of(await read(model)) == "Fine \ud83d."


async def test_every_event_is_a_sign_of_life(model: GeminiModel, server: RawServer) -> None:
    server.events({}, usage(prompt=3), {"candidates": []}, said(), said("Fine.", finish="STOP"))
    assert len(await read(model)) == 5 + 1


async def test_the_latest_counts_are_the_calls(model: GeminiModel, server: RawServer) -> None:
    server.events(
        usage(prompt=10, cachedContent=4),
        said("Hm", thought=True, **usage(prompt=10, thoughts=5)),
        said("Fine", **usage(prompt=12, candidates=1, thoughts=7, total=20)),
        said(".", finish="STOP", **usage(candidates=2)),
    )
    chunks = await read(model)
    assert chunks[0].usage == TokenUsage(input=10, cached=4)
    assert chunks[-1].usage == TokenUsage(input=12, cached=4, output=2 + 7, thoughts=7)
    assert "".join(chunk.thought for chunk in chunks) == "Hm"
    assert text_of(chunks) == "Fine."


ENDINGS: list[tuple[str, list[dict[str, Any]], bool, type[ModelError], str | None]] = [
    ("blocked prompt", [{"promptFeedback": {"blockReason": "SAFETY"}} | usage(prompt=9)], True, ReplyBlocked, "SAFETY"),
    ("blocked reply", [said("So", finish="SPII", **usage(prompt=9))], True, ReplyBlocked, "SPII"),
    ("error", [usage(prompt=9), {"error": {"code": 500}}], True, ModelUnavailable, None),
    ("error in a list", [error("UNAVAILABLE") | usage(prompt=9)], True, ModelUnavailable, None),
    ("cut", [said("So", **usage(prompt=9))], False, ModelUnavailable, None),
    ("no finish reason", [said("So", **usage(prompt=9))], True, ModelUnavailable, None),
    ("no candidates", [usage(prompt=9)], True, ReplyEmpty, "NO_CANDIDATES"),
    ("no text", [said(finish="MALFORMED_RESPONSE", **usage(prompt=9))], True, ReplyEmpty, "MALFORMED_RESPONSE"),
    ("white space", [said(" \n\u00a0\t", finish="STOP", **usage(prompt=9))], True, ReplyEmpty, "STOP"),
    ("thoughts", [said("Hm", thought=True, finish="MAX_TOKENS", **usage(prompt=9))], True, ReplyEmpty, "MAX_TOKENS"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("events", "ends", "expected", "reason"), [e[1:] for e in ENDINGS], ids=[e[0] for e in ENDINGS]
)
async def test_what_was_used_is_known_before_the_error(
    model: GeminiModel,
    server: RawServer,
    events: list[dict[str, Any]],
    ends: bool,
    expected: type[ModelError],
    reason: str | None,
) -> None:
    server.events(*events, ends=ends)
    chunks, raised = await failed(model, expected)
    assert chunks[-1].usage == TokenUsage(input=9)
    assert getattr(raised, "reason", None) == reason
    assert len(server.asked) == 1


async def test_a_stream_without_any_event_has_no_candidates(model: GeminiModel, server: RawServer) -> None:
    server.reply(RawReply())
    _, raised = await failed(model, ReplyEmpty)
    assert raised.reason == "NO_CANDIDATES"


async def test_a_page_of_something_on_the_way_is_no_reply(model: GeminiModel, server: RawServer) -> None:
    server.reply(RawReply([b"<html>Please log in"], headers={"Content-Type": "text/html"}))
    await failed(model, ModelUnavailable)


async def test_an_error_after_the_finish_reason_does_no_harm(model: GeminiModel, server: RawServer) -> None:
    server.events(said("Fine.", finish="STOP"), {"error": {"code": 503}}, ends=False)
    assert (await read(model))[-1].finish_reason == "STOP"


# Errors


QUOTA = {"@type": f"{TYPE}QuotaFailure", "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}]}
MINUTE = {"@type": f"{TYPE}QuotaFailure", "violations": [{"quotaId": "GenerateRequestsPerMinute"}]}
RETRY = {"@type": f"{TYPE}RetryInfo", "retryDelay": "53.016s"}
INVALID = "INVALID_ARGUMENT"
DENIED = "PERMISSION_DENIED"

ERRORS: list[tuple[int, Any, type[ModelError], dict[str, Any]]] = [
    (429, [error("RESOURCE_EXHAUSTED", "", "", MINUTE, RETRY)], ModelRateLimited, {"retry_after": 53.016}),
    (429, error("RESOURCE_EXHAUSTED", "", "", MINUTE, RETRY), ModelRateLimited, {"retry_after": 53.016}),
    (429, [error("RESOURCE_EXHAUSTED", "", "", QUOTA, RETRY)], ModelQuotaExhausted, {}),
    (429, error("RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."), ModelQuotaExhausted, {}),
    (429, "Too many", ModelRateLimited, {"retry_after": None}),
    (429, {"error": {"details": [None, 5, {"@type": 5}, {"@type": f"{TYPE}RetryInfo", "retryDelay": 5}]}},
     ModelRateLimited, {"retry_after": None}),
    (400, error(INVALID, "", "API_KEY_INVALID"), ModelNotConfigured, {"reason": "API_KEY_INVALID"}),
    (400, error("FAILED_PRECONDITION"), ModelNotConfigured, {"reason": "FAILED_PRECONDITION"}),
    (401, error("UNAUTHENTICATED"), ModelNotConfigured, {"reason": "UNAUTHENTICATED"}),
    (403, error(DENIED, "", "SERVICE_DISABLED"), ModelNotConfigured, {"reason": "SERVICE_DISABLED"}),
    (403, error(DENIED, "", "BILLING_DISABLED"), ModelNotConfigured, {"reason": "BILLING_DISABLED"}),
    (403, [error(DENIED)], ModelNotConfigured, {"reason": DENIED}),
    (403, "<html>", ModelNotConfigured, {"reason": "HTTP_403"}),
    (404, error("NOT_FOUND"), ModelNotConfigured, {"reason": "MODEL_NOT_FOUND"}),
    (404, "<html>", ModelNotConfigured, {"reason": "HTTP_404"}),
    (400, error(INVALID, "The input is too long."), ModelRejectedRequest, {}),
    (413, "", ModelRejectedRequest, {}),
    (408, "", ModelUnavailable, {}),
    (499, error("CANCELLED"), ModelOverloaded, {"retry_after": None}),
    (500, error("INTERNAL"), ModelUnavailable, {}),
    (500, error("INTERNAL", "The model is overloaded."), ModelOverloaded, {}),
    (502, "<html>", ModelUnavailable, {}),
    (503, error("UNAVAILABLE", "", "", RETRY), ModelOverloaded, {"retry_after": 53.016}),
    (504, error("DEADLINE_EXCEEDED"), ModelUnavailable, {}),
    (529, "", ModelOverloaded, {}),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "expected", "known"), ERRORS)
async def test_each_error_is_what_it_means(
    model: GeminiModel, server: RawServer, status: int, body: Any, expected: type[ModelError], known: dict[str, Any]
) -> None:
    server.error(status, body)
    _, raised = await failed(model, expected)
    assert {name: getattr(raised, name) for name in known} == known
    assert len(server.asked) == 1


async def test_the_log_has_googles_reason_and_neither_key_nor_prompt(model: GeminiModel, server: RawServer) -> None:
    said = f"API key not valid: {KEY}. You asked: {PROMPT}"
    server.error(400, error(INVALID, said, "API_KEY_INVALID"))
    server.error(403, error(said, said, said))
    server.reply(RawReply([f"data: {said}\n\n".encode()]))
    with capture_logs() as logs:
        await failed(model, ModelNotConfigured)
        await failed(model, ModelNotConfigured)
        await failed(model, ModelUnavailable)
    assert [entry.get("reason") for entry in logs] == ["API_KEY_INVALID", None, None]
    assert KEY not in str(logs)
    assert PROMPT not in str(logs)


# Thinking


def thinking(level: ThinkingLevel, tokens: int = 0) -> Any:
    return replace(conversation(), thinking=level, thought_tokens=tokens)


def sent(server: RawServer) -> list[Any]:
    """The thinkingConfig of each request."""
    return [asked.json["generationConfig"].get("thinkingConfig") for asked in server.asked]


LOW = {"thinkingLevel": "low", "includeThoughts": True}
SUMMARIES = {"includeThoughts": True}
BAD_LEVEL = error(
    INVALID, "Thinking level LOW is not supported for this model. Please retry with other thinking level."
)
UNKNOWN = error(INVALID, "Unknown name \"thinkingConfig\" at 'generation_config': Cannot find field.")
NO_THINKING = error(INVALID, "Thinking is not enabled for models/gemini-flash-latest")


async def test_a_level_is_asked_for_with_summaries_and_room(model: GeminiModel, server: RawServer) -> None:
    server.events(said("Fine.", finish="STOP"))
    await read(model, replace(thinking(ThinkingLevel.LOW, 1_000), max_output_tokens=500))
    assert server.asked[0].json["generationConfig"] == {"maxOutputTokens": 1_500, "thinkingConfig": LOW}


@pytest.mark.parametrize("name", ["gemini-2.5-flash", "models/gemini-2.5-pro-latest"])
async def test_a_model_that_takes_budgets_gets_one_that_fits(name: str, server: RawServer) -> None:
    model = gemini("rest", server.url, model=name)
    for tokens in (0, 20_000, 700):
        server.events(said("Fine.", finish="STOP"))
        await read(model, thinking(ThinkingLevel.MEDIUM, tokens))
    assert sent(server) == [{"thinkingBudget": budget, "includeThoughts": True} for budget in (8_192, 8_192, 700)]
    await model.close()


async def test_a_refused_level_is_left_out_and_that_is_remembered(model: GeminiModel, server: RawServer) -> None:
    server.error(400, BAD_LEVEL)
    for _ in range(3):
        server.events(said("Fine.", finish="STOP"))
    with capture_logs() as logs:
        assert text_of(await read(model, thinking(ThinkingLevel.LOW))) == "Fine."
        await read(model, thinking(ThinkingLevel.LOW))
    await read(model, thinking(ThinkingLevel.HIGH))
    assert sent(server) == [LOW, SUMMARIES, SUMMARIES, LOW | {"thinkingLevel": "high"}]
    logged = [entry for entry in logs if entry["event"] == "model_level_refused"]
    assert [(entry["model"], entry["level"]) for entry in logged] == [("gemini-flash-latest", "low")]


@pytest.mark.parametrize("refusals", [[NO_THINKING], [UNKNOWN], [BAD_LEVEL, NO_THINKING]])
async def test_a_model_that_does_not_think_is_not_asked_to(
    model: GeminiModel, server: RawServer, refusals: list[dict[str, Any]]
) -> None:
    for refusal in refusals:
        server.error(400, refusal)
    for _ in range(2):
        server.events(said("Fine.", finish="STOP"))
        await read(model, thinking(ThinkingLevel.LOW))
    assert sent(server)[-2:] == [None, None]
    assert len(server.asked) == len(refusals) + 2


async def test_a_refusal_without_a_reason_is_believed_the_second_time(model: GeminiModel, server: RawServer) -> None:
    for refused in (True, False, True, True, False):
        if refused:
            server.error(400, error(INVALID, "Request contains an invalid argument."))
        server.events(said("Fine.", finish="STOP"))
        assert text_of(await read(model, thinking(ThinkingLevel.LOW))) == "Fine."
    assert sent(server) == [LOW, None, LOW, LOW, None, LOW, None, None]


async def test_a_prompt_that_is_refused_anyway_says_nothing_about_thinking(
    model: GeminiModel, server: RawServer
) -> None:
    for _ in range(2):
        server.error(400, error(INVALID, "The input is too long."))
    with pytest.raises(ModelRejectedRequest):
        await read(model, thinking(ThinkingLevel.LOW))
    server.events(said("Fine.", finish="STOP"))
    await read(model, thinking(ThinkingLevel.LOW))
    assert sent(server) == [LOW, None, LOW]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_other_errors_are_not_asked_again_without_thinking(
    model: GeminiModel, server: RawServer, status: int
) -> None:
    server.error(status, error(message="Thinking level"))
    with pytest.raises(ModelUnavailable):
        await read(model, thinking(ThinkingLevel.LOW))
    assert len(server.asked) == 1


# The check


async def test_a_check_asks_for_the_model_and_nothing_else(model: GeminiModel, server: RawServer) -> None:
    server.reply(RawReply([b'{"name": "models/gemini-flash-latest"}'], headers={"Content-Type": "application/json"}))
    await model.check()
    (asked,) = server.asked
    assert (asked.method, asked.target) == ("GET", "/v1beta/models/gemini-flash-latest")
    assert asked.headers["x-goog-api-key"] == KEY


async def test_a_check_says_googles_reason(model: GeminiModel, server: RawServer) -> None:
    server.error(400, error(INVALID, "", "API_KEY_INVALID"))
    server.error(404, error("NOT_FOUND"))
    for reason in ("API_KEY_INVALID", "MODEL_NOT_FOUND"):
        with pytest.raises(ModelNotConfigured) as raised:
            await model.check()
        assert raised.value.reason == reason


async def test_a_check_does_not_wait_for_a_silent_model(model: GeminiModel, server: RawServer) -> None:
    server.reply(RawReply(hang=True, status=503))
    with pytest.raises(ModelTimedOut):
        await model.check()


async def test_a_check_of_nothing() -> None:
    with pytest.raises(ModelUnavailable):
        await gemini("rest", "http://127.0.0.1:9").check()
    with pytest.raises(ModelNotConfigured) as raised:
        await gemini("rest", "http://127.0.0.1:9", key="").check()
    assert raised.value.reason == "API_KEY_MISSING"
