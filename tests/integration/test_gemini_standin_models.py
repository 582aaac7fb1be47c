"""The stand-in thinks, refuses, caches and accounts as Gemini does."""

from __future__ import annotations

from typing import Any

import pytest

from local.gemini.caching import PromptCache
from local.gemini.models import model_named
from local.gemini.thinking import thinking_of
from tests.integration.gemini_calls import GENERATE, KEY, STREAM, ask, body, events, post, text_in, text_of
from tests.support.gemini_standin import GeminiStandIn

THOUGHTS = "thoughtsTokenCount"


@pytest.fixture
def real(gemini_standin: GeminiStandIn) -> GeminiStandIn:
    """The stand-in as `make run` has it, without waiting."""
    gemini_standin.directives("")
    return gemini_standin


# Thinking


def test_a_model_thinks_at_its_default_unless_configured(real: GeminiStandIn) -> None:
    for model, least, most in (
        ("gemini-flash-latest", 1_000, 15_000),
        ("gemini-3-pro-preview", 1_000, 15_000),
        ("gemini-2.5-pro", 200, 8_192),
        ("gemini-2.5-flash-lite", 0, 0),
        ("gemini-2.0-flash", 0, 0),
    ):
        for number in range(5):
            usage = ask(real, f"Question {number}", model)[-1]["usageMetadata"]
            assert least <= usage.get(THOUGHTS, 0) <= most, model
            counted = usage["promptTokenCount"] + usage["candidatesTokenCount"] + usage.get(THOUGHTS, 0)
            assert usage["totalTokenCount"] == counted


@pytest.mark.parametrize(("level", "least", "most"), [("minimal", 0, 100), ("LOW", 100, 1_500), ("medium", 500, 5_000)])
def test_a_level_sets_how_much_and_a_prompt_always_gets_the_same(
    real: GeminiStandIn, level: str, least: int, most: int
) -> None:
    config: dict[str, Any] = {"thinkingConfig": {"thinkingLevel": level}}
    amounts = [ask(real, f"Question {n}", **config)[-1]["usageMetadata"].get(THOUGHTS, 0) for n in range(20)]
    assert least <= min(amounts) < max(amounts) <= most
    assert len(set(amounts)) > 10
    again = ask(real, "Question 0", **config)[-1]["usageMetadata"].get(THOUGHTS, 0)
    assert again == amounts[0]


def test_a_budget_is_kept_and_zero_is_none() -> None:
    model = model_named("gemini-2.5-flash")
    kept = [thinking_of(model, {"thinkingBudget": 800}).tokens(share / 10) for share in range(10)]
    assert max(kept) <= 800
    assert thinking_of(model, {"thinkingBudget": 0}).tokens(0.99) == 0
    assert thinking_of(model, {"thinkingBudget": -1}).most == 8_192


def test_summaries_come_first_and_only_if_asked_for(real: GeminiStandIn) -> None:
    shown = ask(real, "Why?", thinkingConfig={"thinkingLevel": "high", "includeThoughts": True})
    kinds = [chunk["candidates"][0]["content"]["parts"][0].get("thought", False) for chunk in shown]
    assert kinds[0]
    assert kinds == sorted(kinds, reverse=True)
    counts = [chunk["usageMetadata"][THOUGHTS] for chunk in shown]
    assert counts == sorted(counts)
    assert len(set(counts)) == kinds.count(True)
    silent = ask(real, "Why?", thinkingConfig={"thinkingLevel": "high"})
    assert "thought" not in str([chunk["candidates"][0]["content"]["parts"][0].keys() for chunk in silent[:-1]])
    assert text_in(silent) == text_in(shown)
    assert silent[-1]["usageMetadata"] == shown[-1]["usageMetadata"]


def test_the_last_chunk_of_a_model_that_thought_has_a_signature_and_no_text(real: GeminiStandIn) -> None:
    [part] = ask(real, "Why?")[-1]["candidates"][0]["content"]["parts"]
    assert part["text"] == ""
    assert part["thoughtSignature"]


def test_thoughts_are_taken_from_the_limit_first(real: GeminiStandIn) -> None:
    texts = set()
    for number in range(12):
        chunks = ask(real, f"Question {number}", maxOutputTokens=500)
        usage = chunks[-1]["usageMetadata"]
        assert chunks[-1]["candidates"][0]["finishReason"] == "MAX_TOKENS"
        assert 480 <= usage[THOUGHTS] <= 500
        assert usage[THOUGHTS] + usage.get("candidatesTokenCount", 0) <= 500
        texts.add(bool(text_in(chunks)))
    assert texts == {True, False}, "some prompts get a few words, others none"
    enough = ask(real, "Question 0", maxOutputTokens=20_000)
    assert enough[-1]["candidates"][0]["finishReason"] == "STOP"


def test_thinking_takes_its_share_of_the_latency(real: GeminiStandIn) -> None:
    real.pace(first_chunk_seconds=0.05, chunk_seconds=0)
    chunks = ask(real, "[[thoughts tokens=1400]] Why?", thinkingConfig={"includeThoughts": True})
    assert [part["thought"] for part in chunks[1]["candidates"][0]["content"]["parts"]] == [True]
    [call] = real.calls()
    assert call["closedAt"] - call["openedAt"] >= 0.05 + 0.05 * 1_400 / 500


# What models refuse


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("gemini-3-pro-preview", {"thinkingLevel": "minimal"}, "Thinking level MINIMAL is not supported for this model"),
    ("gemini-3-pro-preview", {"thinkingLevel": "medium"}, "Thinking level MEDIUM is not supported for this model"),
    ("gemini-3.8-flash", {"thinkingLevel": "minimal"}, "Thinking level MINIMAL is not supported for this model"),
    ("gemini-flash-latest", {"thinkingLevel": "enormous"}, "Invalid value"),
    ("gemini-flash-latest", {"thinkingLevel": "low", "thinkingBudget": 100}, "only one of thinking budget and"),
    ("gemini-flash-latest", {"thinkingBudget": 0}, "Budget 0 is invalid"),
    ("gemini-flash-latest", {"thoughts": True}, "Unknown name"),
    ("gemini-2.5-flash", {"thinkingLevel": "low"}, "Thinking level is not supported for this model."),
    ("gemini-2.5-flash", {"thinkingBudget": 99_999}, "is invalid"),
    ("gemini-2.5-flash", {"thinkingBudget": "many"}, "TYPE_INT32"),
    ("gemini-2.5-pro", {"thinkingBudget": 0}, "This model only works in thinking mode"),
    ("gemini-2.0-flash", {"thinkingBudget": 100}, "thinking is not supported by this model"),
    ("gemini-1.5-pro", {"includeThoughts": True}, "thinking is not supported by this model"),
]


@pytest.mark.parametrize(("model", "config", "message"), REFUSED, ids=[f"{r[0]} {r[1]}" for r in REFUSED])
def test_a_thinking_config_that_a_model_does_not_take_is_an_invalid_argument(
    real: GeminiStandIn, model: str, config: dict[str, Any], message: str
) -> None:
    given = body("Hi", generationConfig={"thinkingConfig": config})
    response = post(real, f"/v1beta/models/{model}:streamGenerateContent?alt=sse", given)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert message in error["message"]
    [call] = real.calls()
    assert (call["status"], call["outcome"]) == (400, "failed")


@pytest.mark.parametrize(
    ("model", "config"),
    [
        ("gemini-3-flash-preview", {"thinkingLevel": "minimal"}),
        ("gemini-3.1-pro", {"thinkingLevel": "medium"}),
        ("gemini-3-pro", {"thinkingLevel": "low"}),
        ("gemini-3.6-flash", {"thinkingBudget": 512}),
        ("gemini-2.5-flash", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", {"thinkingBudget": 128, "includeThoughts": True}),
    ],
)
def test_one_that_it_takes_is_accepted(real: GeminiStandIn, model: str, config: dict[str, Any]) -> None:
    assert text_in(ask(real, "Hi", model, thinkingConfig=config, temperature=0.5, topP=0.9, topK=3))


@pytest.mark.parametrize(
    "given",
    [
        body("Hi", thinkingConfig={}),
        body("Hi", generationConfig={"thinkingLevel": "low"}),
        {"contents": [{"role": "user", "parts": [{"words": "Hi"}]}]},
    ],
)
def test_a_field_that_nobody_knows_is_refused(real: GeminiStandIn, given: dict[str, Any]) -> None:
    assert post(real, GENERATE, given).status_code == 400


def test_pictures_are_taken_and_counted(real: GeminiStandIn) -> None:
    parts = [{"text": "What is it?"}, {"inlineData": {"mimeType": "image/png", "data": "aGVsbG8="}}]
    reply = post(real, GENERATE, {"contents": [{"role": "user", "parts": parts}]}).json()
    assert reply["usageMetadata"]["promptTokenCount"] == 3 + 258


@pytest.mark.parametrize(
    ("key", "code", "status", "reason"),
    [
        ("invalid-key", 400, "INVALID_ARGUMENT", "API_KEY_INVALID"),
        ("disabled-key", 403, "PERMISSION_DENIED", "SERVICE_DISABLED"),
        ("denied-key", 403, "PERMISSION_DENIED", "API_KEY_SERVICE_BLOCKED"),
    ],
)
def test_a_bad_key_is_refused_with_its_reason(
    real: GeminiStandIn, key: str, code: int, status: str, reason: str
) -> None:
    response = post(real, STREAM, body("Hi"), {"x-goog-api-key": key})
    error = response.json()["error"]
    info, localized = error["details"]
    assert (response.status_code, error["code"], error["status"]) == (code, code, status)
    assert info == {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "googleapis.com",
        "metadata": {"service": "generativelanguage.googleapis.com"},
    }
    assert localized["message"] == error["message"]
    assert key not in response.text


# Caching


def test_an_equal_beginning_is_cached_from_4096_tokens_on(real: GeminiStandIn) -> None:
    long, system = "word " * 4_000, {"systemInstruction": {"parts": [{"text": "Be kind."}]}}
    first = events(post(real, STREAM, body(long, "Yes.", "And then?", **system)))[-1]["usageMetadata"]
    assert "cachedContentTokenCount" not in first
    second = events(post(real, STREAM, body(long, "Yes.", "And now?", **system)))[-1]["usageMetadata"]
    assert 4_096 <= second["cachedContentTokenCount"] <= second["promptTokenCount"]
    other = {"systemInstruction": {"parts": [{"text": "Be brief."}]}}
    differs = post(real, GENERATE, body(long, "Yes.", "Now?", **other)).json()["usageMetadata"]
    assert "cachedContentTokenCount" not in differs
    short = "word " * 3_000
    for _ in range(2):
        assert "cachedContentTokenCount" not in ask(real, short)[-1]["usageMetadata"]
    ask(real, short, "gemini-2.5-flash")
    assert ask(real, short, "gemini-2.5-flash")[-1]["usageMetadata"]["cachedContentTokenCount"] >= 1_024


def test_the_cache_forgets_after_minutes_and_holds_so_many_blocks() -> None:
    now = 0.0
    cache = PromptCache(seconds=300, entries=40, clock=lambda: now)
    first, second = "a" * 20_000, "b" * 20_000
    assert cache.cached_tokens("m", first, 4_096) == 0
    assert cache.cached_tokens("m", first, 4_096) == 4_864
    assert cache.cached_tokens("m", first[:17_000] + "c" * 3_000, 4_096) == 4_096
    assert cache.cached_tokens("n", first, 4_096) == 0
    now = 301.0
    assert cache.cached_tokens("m", first, 4_096) == 0
    for number in range(10):
        cache.cached_tokens(f"m{number}", second, 4_096)
    assert cache.cached_tokens("m", first, 4_096) == 0


# The account


def test_the_account_has_what_each_call_reported_last(real: GeminiStandIn) -> None:
    chunks = ask(real, "Why?", thinkingConfig={"thinkingLevel": "low"})
    usage = chunks[-1]["usageMetadata"]
    whole = post(real, GENERATE, body("Why not?", generationConfig={"maxOutputTokens": 300})).json()
    post(real, STREAM, body("[[unavailable]]"))
    post(real, STREAM, body("[[error_in_stream after=2]] [[thoughts tokens=0]]"))
    sold = real.sold()
    first, second, third, fourth = sold["calls"]
    assert first == {
        "number": 1,
        "id": chunks[0]["responseId"],
        "model": "gemini-flash-latest",
        "prompt": usage["promptTokenCount"],
        "cached": 0,
        "thoughts": usage[THOUGHTS],
        "candidates": usage["candidatesTokenCount"],
        "finish": "STOP",
        "outcome": "completed",
        "status": 200,
        "complete": True,
        "reported": True,
    }
    assert (second["id"], second["finish"]) == (whole["responseId"], "MAX_TOKENS")
    assert (third["status"], third["reported"], third["complete"], third["outcome"]) == (503, False, False, "failed")
    assert (fourth["reported"], fourth["complete"], fourth["finish"]) == (True, False, None)
    assert fourth["candidates"] > 0
    assert (sold["open"], sold["sums"]["calls"], sold["sums"]["complete"], sold["sums"]["reported"]) == (0, 4, 2, 3)
    for kind in ("prompt", "cached", "thoughts", "candidates"):
        assert sold["sums"][kind] == sum(call[kind] for call in sold["calls"])
    assert sold["models"] == {"gemini-flash-latest": sold["sums"]}
    assert len(real.sold(1)["calls"]) == 1
    real.clear()
    assert real.sold()["sums"]["calls"] == 0


def test_without_a_stream_it_is_the_same_in_one(real: GeminiStandIn) -> None:
    config: dict[str, Any] = {"thinkingConfig": {"thinkingLevel": "low", "includeThoughts": True}}
    whole = post(real, GENERATE, body("Why?", generationConfig=config)).json()
    chunks = ask(real, "Why?", **config)
    thought, text = whole["candidates"][0]["content"]["parts"]
    assert thought["thought"]
    assert text["text"] == text_in(chunks)
    assert text_of(whole) == thought["text"] + text["text"]
    assert whole["usageMetadata"] == chunks[-1]["usageMetadata"]
    assert KEY["x-goog-api-key"] not in str(whole)
