"""What every LanguageModel promises: Gemini over each transport against the stand-in, and the scripted one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol

import pytest

from adapters.gemini.google_genai import GoogleGenaiTransport
from adapters.gemini.google_generativeai import GoogleGenerativeaiTransport
from adapters.gemini.model import Endpoint, GeminiModel, Transport
from adapters.gemini.rest import RestTransport
from adapters.memory.language_model import ScriptedLanguageModel, ScriptedReply
from application.ports.chat import LanguageModel
from domain.chat.calls import ThinkingLevel, TokenUsage
from domain.chat.conversation import Conversation, ReplyChunk, Role, Turn
from domain.errors import (
    ModelError,
    ModelNotConfigured,
    ModelOverloaded,
    ModelQuotaExhausted,
    ModelRateLimited,
    ModelRejectedRequest,
    ModelUnavailable,
    ReplyBlocked,
    ReplyEmpty,
)
from tests.support.gemini_standin import GeminiStandIn
from tests.support.patience import HANG

MODEL = "gemini-flash-latest"
FOREVER = 3600.0


class Stage(Protocol):
    """Where a model, of whichever kind, gets its script."""

    model: LanguageModel

    def say(self, *pieces: str, thought: str = "", finish_reason: str = "STOP", seconds: float = 0) -> None: ...
    def hang(self, *pieces: str) -> None: ...
    def asked(self) -> list[tuple[str, str]]: ...
    def given(self) -> str | None: ...
    async def left(self) -> int: ...
    def open(self) -> int: ...


class Scripted:
    def __init__(self) -> None:
        self._model = ScriptedLanguageModel()
        self.model: LanguageModel = self._model

    def say(self, *pieces: str, thought: str = "", finish_reason: str = "STOP", seconds: float = 0) -> None:
        thoughts = (thought,) if thought else ()
        self._model.add(ScriptedReply(thoughts=thoughts, pieces=pieces, finish_reason=finish_reason, seconds=seconds))

    def hang(self, *pieces: str) -> None:
        self._model.add(ScriptedReply(pieces=pieces, finish_reason=None))

    def asked(self) -> list[tuple[str, str]]:
        return [(turn.role.value, turn.text) for turn in self._model.asked[-1].turns]

    def given(self) -> str | None:
        return self._model.asked[-1].instructions

    async def left(self) -> int:
        return self._model.left

    def open(self) -> int:
        return self._model.open


class OverHttp:
    def __init__(self, model: LanguageModel, server: GeminiStandIn) -> None:
        self.model = model
        self.server = server

    def say(self, *pieces: str, thought: str = "", finish_reason: str = "STOP", seconds: float = 0) -> None:
        given: dict[str, Any] = {"thought": thought} if thought else {}
        given |= {"first_chunk_seconds": seconds, "chunk_seconds": seconds}
        self.server.reply("".join(pieces), chunks=list(pieces), finish_reason=finish_reason, **given)

    def hang(self, *pieces: str) -> None:
        if pieces:
            self.server.reply("", chunks=[*pieces, "never"], chunk_seconds=FOREVER)
        else:
            self.server.fault("hang")

    def asked(self) -> list[tuple[str, str]]:
        contents = self.server.log()["lastBody"]["contents"]
        return [(content["role"], content["parts"][0]["text"]) for content in contents]

    def given(self) -> str | None:
        body = self.server.log()["lastBody"]
        assert "system_instruction" not in body
        return (
            "".join(part["text"] for part in body["systemInstruction"]["parts"])
            if "systemInstruction" in body
            else None
        )

    async def left(self) -> int:
        log = await self.server.until(lambda log: log["open"] == 0)
        return int(log["counts"]["client_left"])

    def open(self) -> int:
        return int(self.server.log(0)["open"])


TRANSPORTS: dict[str, Callable[[Endpoint], Transport]] = {
    "rest": RestTransport,
    "google-genai": GoogleGenaiTransport,
    "google-generativeai": GoogleGenerativeaiTransport,
}


def gemini(transport: str, url: str, *, model: str = MODEL, key: str = "any", proxy: str = "") -> GeminiModel:
    endpoint = Endpoint(api_key=key, model=model, base_url=url, proxy=proxy)
    return GeminiModel(endpoint, TRANSPORTS[transport](endpoint))


@pytest.fixture(params=["scripted", *TRANSPORTS])
async def stage(request: pytest.FixtureRequest, gemini_standin: GeminiStandIn) -> AsyncIterator[Stage]:
    if request.param == "scripted":
        yield Scripted()
        return
    model = gemini(request.param, gemini_standin.url)
    await model.start()  # importing an SDK takes long on a slow machine, and must not be broken off
    yield OverHttp(model, gemini_standin)
    await model.close()


@pytest.fixture(params=list(TRANSPORTS))
async def wire(request: pytest.FixtureRequest, gemini_standin: GeminiStandIn) -> AsyncIterator[OverHttp]:
    model = gemini(request.param, gemini_standin.url)
    await model.start()  # importing an SDK takes long on a slow machine, and must not be broken off
    yield OverHttp(model, gemini_standin)
    await model.close()


def conversation(*texts: str, max_output_tokens: int = 2_048) -> Conversation:
    roles = (Role.USER, Role.MODEL)
    turns = tuple(Turn(roles[index % 2], text) for index, text in enumerate(texts or ("Hello?",)))
    return Conversation(turns, max_output_tokens)


async def read(model: LanguageModel, asked: Conversation | None = None, *, seconds: float = HANG) -> list[ReplyChunk]:
    """All chunks; a hang fails the test."""
    async with asyncio.timeout(seconds), aclosing(model.stream(asked or conversation())) as chunks:
        return [chunk async for chunk in chunks]


async def failure(model: LanguageModel, expected: type[ModelError]) -> tuple[str, Any]:
    """The text that came before the error, and the error."""
    text = ""

    async def read_on() -> None:
        nonlocal text
        async with asyncio.timeout(HANG), aclosing(model.stream(conversation())) as chunks:
            async for chunk in chunks:
                text += chunk.text

    with pytest.raises(expected) as raised:
        await read_on()
    assert type(raised.value) is expected
    assert raised.value.detail == expected.detail
    return text, raised.value


# What all of them do


async def test_a_reply_comes_in_pieces(stage: Stage) -> None:
    stage.say("Grüße ", "aus ", "Wien — ", '🙂 line\u2028separator,\nnew "line" and \\.')
    chunks = await read(stage.model)
    assert len([chunk for chunk in chunks if chunk.text]) > 1
    assert "".join(chunk.text for chunk in chunks) == 'Grüße aus Wien — 🙂 line\u2028separator,\nnew "line" and \\.'


async def test_the_last_chunk_alone_tells_the_finish_reason(stage: Stage) -> None:
    stage.say("One ", "two.")
    chunks = await read(stage.model)
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["STOP"]
    assert chunks[-1].finish_reason == "STOP"


async def test_token_counts_grow_and_the_last_ones_are_the_replys(stage: Stage) -> None:
    stage.say("12345678", "12345678", "12345678")
    chunks = await read(stage.model, conversation("abcdefgh"))
    counts = [chunk.usage.output for chunk in chunks if chunk.usage]
    assert counts == sorted(counts)
    assert chunks[-1].usage == TokenUsage(input=2, output=6)


async def test_the_conversation_arrives_as_it_was_given(stage: Stage) -> None:
    stage.say("Fine.")
    await read(stage.model, conversation("first", "second", "third"))
    assert stage.asked() == [("user", "first"), ("model", "second"), ("user", "third")]


@pytest.mark.parametrize("instructions", [None, 'Answer in "Wienerisch" 🙂.\n\nBe brief.'])
async def test_the_instructions_are_apart_from_the_turns(stage: Stage, instructions: str | None) -> None:
    stage.say("Fine.")
    await read(stage.model, replace(conversation("first", "second", "third"), instructions=instructions))
    assert stage.given() == instructions
    assert stage.asked() == [("user", "first"), ("model", "second"), ("user", "third")]


async def test_no_more_is_written_than_allowed(stage: Stage) -> None:
    stage.say("a" * 40, "b" * 40)
    chunks = await read(stage.model, conversation(max_output_tokens=15))
    assert "".join(chunk.text for chunk in chunks) == "a" * 40 + "b" * 20
    assert chunks[-1].finish_reason == "MAX_TOKENS"


@pytest.mark.parametrize("level", [None, *ThinkingLevel])
async def test_thoughts_are_no_part_of_the_reply_but_are_paid_for(stage: Stage, level: ThinkingLevel | None) -> None:
    stage.say("1234", "5678", thought="Hmm, let me think about it.")
    asked = replace(conversation("abcdefgh"), thinking=level, thought_tokens=1_000)
    chunks = await read(stage.model, asked)
    assert "".join(chunk.text for chunk in chunks) == "12345678"
    assert "".join(chunk.thought for chunk in chunks) == "Hmm, let me think about it."
    assert not any(chunk.text and chunk.thought for chunk in chunks)
    assert chunks[-1].usage == TokenUsage(input=2, output=2 + 7, thoughts=7)


async def test_white_space_alone_is_no_reply(stage: Stage) -> None:
    stage.say("\n", " \u00a0")
    _, error = await failure(stage.model, ReplyEmpty)
    assert error.reason == "STOP"


async def test_a_check_costs_nothing(stage: Stage) -> None:
    await stage.model.check()
    assert stage.open() == 0


@pytest.mark.parametrize("reason", ["STOP", "MAX_TOKENS"])
async def test_a_reply_without_text_is_an_error(stage: Stage, reason: str) -> None:
    stage.say("", finish_reason=reason)
    _, error = await failure(stage.model, ReplyEmpty)
    assert error.reason == reason


async def test_streams_run_side_by_side(stage: Stage) -> None:
    for number in range(20):
        stage.say(f"{number} ", "end", seconds=0.1)
    replies = await asyncio.gather(*(read(stage.model) for _ in range(20)))
    texts = {"".join(chunk.text for chunk in chunks) for chunks in replies}
    assert texts == {f"{number} end" for number in range(20)}


async def test_closing_the_stream_leaves_the_model(stage: Stage) -> None:
    stage.hang("One ")
    async with asyncio.timeout(HANG):
        chunks = stage.model.stream(conversation())
        assert (await anext(chunks)).text == "One "
        assert stage.open() == 1
        await chunks.aclose()
        assert await stage.left() == 1
    assert stage.open() == 0


@pytest.mark.parametrize("pieces", [(), ("One ",)], ids=["before the first byte", "in the middle"])
async def test_cancelling_leaves_the_model(stage: Stage, pieces: tuple[str, ...]) -> None:
    stage.hang(*pieces)
    task = asyncio.create_task(read(stage.model))
    async with asyncio.timeout(HANG):
        while not stage.open():  # noqa: ASYNC110 - the stand-in is another process
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await stage.left() == 1


async def test_a_deadline_of_the_caller_leaves_the_model(stage: Stage) -> None:
    await read(stage.model)  # started, so that the deadline meets the call
    stage.hang()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await read(stage.model)
    assert await stage.left() == 1


async def test_it_works_on_after_streams_that_were_left(stage: Stage) -> None:
    for number in range(5):
        stage.hang("One ")
        chunks = stage.model.stream(conversation())
        await anext(chunks)
        await chunks.aclose()
        stage.say("Still here.")
        assert "".join(chunk.text for chunk in await read(stage.model)) == "Still here.", number


# What goes wrong on the wire

FAULTS: list[tuple[str, dict[str, Any], type[ModelError]]] = [
    ("unavailable", {}, ModelOverloaded),
    ("internal", {}, ModelUnavailable),
    ("timeout", {}, ModelUnavailable),
    ("disconnect", {}, ModelUnavailable),
    ("cut", {"after": 0}, ModelUnavailable),
    ("cut", {"after": 2}, ModelUnavailable),
    ("broken_json", {"after": 0}, ModelUnavailable),
    ("broken_json", {"after": 2}, ModelUnavailable),
    ("error_in_stream", {"after": 0, "error": "unavailable"}, ModelOverloaded),
    ("error_in_stream", {"after": 2, "error": "internal"}, ModelUnavailable),
    ("error_in_stream", {"after": 2, "error": "daily_quota"}, ModelQuotaExhausted),
    ("error_in_stream", {"after": 2, "error": "bad_request"}, ModelRejectedRequest),
    ("daily_quota", {}, ModelQuotaExhausted),
    ("bad_request", {}, ModelRejectedRequest),
    ("bad_key", {}, ModelNotConfigured),
    ("not_found", {}, ModelNotConfigured),
]


@pytest.mark.parametrize(("kind", "parameters", "expected"), FAULTS, ids=[f"{f[0]} {f[1]}" for f in FAULTS])
async def test_each_failure_is_the_domains_own_and_asked_once(
    wire: OverHttp, kind: str, parameters: dict[str, Any], expected: type[ModelError]
) -> None:
    wire.server.fault(kind, **parameters)
    text, _ = await failure(wire.model, expected)
    assert bool(text) == (parameters.get("after", 0) > 0)
    log = await wire.server.until(lambda log: log["open"] == 0)
    assert log["total"] == 1, "the adapter must not repeat a request"


@pytest.mark.parametrize("kind", ["rate_limit", "error_in_stream"])
@pytest.mark.parametrize("seconds", [53.016, 0.25, 7.0])
async def test_a_rate_limit_names_its_wait_to_the_fraction(wire: OverHttp, kind: str, seconds: float) -> None:
    if kind == "rate_limit":
        wire.server.fault(kind, retry_delay=f"{seconds}s")
    else:
        wire.server.fault(kind, error="rate_limit", retry_delay=f"{seconds}s")
    _, error = await failure(wire.model, ModelRateLimited)
    assert error.retry_after == seconds


async def test_a_retry_after_header_is_honoured(wire: OverHttp) -> None:
    wire.server.fault("unavailable", retry_after="17")
    _, error = await failure(wire.model, ModelOverloaded)
    assert error.retry_after == 17.0


async def test_nobody_listening_is_unavailable(wire: OverHttp) -> None:
    for name in TRANSPORTS:
        model = gemini(name, "http://127.0.0.1:9")
        await failure(model, ModelUnavailable)
        await model.close()


async def test_a_blocked_prompt(wire: OverHttp) -> None:
    wire.server.fault("blocked", reason="PROHIBITED_CONTENT")
    text, error = await failure(wire.model, ReplyBlocked)
    assert (text, error.reason) == ("", "PROHIBITED_CONTENT")


@pytest.mark.parametrize("reason", ["SAFETY", "RECITATION", "PROHIBITED_CONTENT"])
async def test_a_reply_that_is_blocked_on_its_way(wire: OverHttp, reason: str) -> None:
    wire.server.fault("blocked_mid_stream", after=2, reason=reason)
    text, error = await failure(wire.model, ReplyBlocked)
    assert text
    assert error.reason == reason


async def test_an_empty_candidate(wire: OverHttp) -> None:
    wire.server.fault("empty", reason="MAX_TOKENS")
    _, error = await failure(wire.model, ReplyEmpty)
    assert error.reason == "MAX_TOKENS"


async def test_the_limit_is_sent_along(wire: OverHttp) -> None:
    await read(wire.model, conversation(max_output_tokens=1_234))
    assert wire.server.calls()[-1]["maxOutputTokens"] == 1_234
    assert wire.server.calls()[-1]["model"] == MODEL


async def test_an_end_that_does_not_come_is_not_waited_for_long(wire: OverHttp) -> None:
    wire.server.reply("All said.", chunks=1, end_seconds=FOREVER)
    chunks = await read(wire.model)
    assert chunks[-1].finish_reason == "STOP"
    assert (await wire.server.until(lambda log: log["open"] == 0))["counts"]["client_left"] == 1


async def test_the_environment_does_not_redirect_the_call(wire: OverHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("GOOGLE_API_KEY", "another")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_GENAI_API_VERSION", "v9")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:9")
    assert await read(wire.model)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_check_of_a_wrong_key_says_so(transport: str, gemini_standin: GeminiStandIn) -> None:
    for key, reason in (("invalid", "API_KEY_INVALID"), ("disabled", "SERVICE_DISABLED")):
        with pytest.raises(ModelNotConfigured) as raised:
            await gemini(transport, gemini_standin.url, key=key).check()
        assert raised.value.reason == reason


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", ["gemini-2.0-flash", "gemini-2.5-flash-lite", "gemini-3-pro", "gemini-3.8-flash"])
async def test_whatever_a_model_takes_it_answers_at_every_level(
    transport: str, name: str, gemini_standin: GeminiStandIn
) -> None:
    model = gemini(transport, gemini_standin.url, model=name)
    for level in [*ThinkingLevel, *ThinkingLevel]:
        assert await read(model, replace(conversation(), thinking=level, thought_tokens=8_192))
    refused = [call for call in gemini_standin.calls() if call["outcome"] == "failed"]
    levels = {"gemini-2.0-flash": 4, "gemini-2.5-flash-lite": 0, "gemini-3-pro": 2, "gemini-3.8-flash": 1}
    assert len(gemini_standin.calls()) == 8 + levels[name], refused
    await model.close()


async def test_more_streams_at_once_than_a_client_pools_by_default(wire: OverHttp) -> None:
    wire.server.fault("hang", times=150)
    asking = [asyncio.create_task(read(wire.model, seconds=120)) for _ in range(150)]
    try:
        await wire.server.until(lambda log: log["open"] == 150, seconds=60)
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
