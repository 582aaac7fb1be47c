"""Each fault of the stand-in, by a control call and by a directive in the prompt."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from local.gemini.faults import Faults
from local.gemini.question import Question
from tests.integration.gemini_calls import GENERATE, STREAM, ask, body, events, post, text_in
from tests.support.gemini_standin import GeminiStandIn


def finish_of(chunks: list[Any]) -> str:
    return str(chunks[-1]["candidates"][0]["finishReason"])


def title(text: str) -> dict[str, Any]:
    return body(f"User: {text}\n\nAssistant: Fine.\n\nTitle:")


ERRORS = [
    ("bad_request", 400),
    ("bad_key", 400),
    ("permission_denied", 403),
    ("service_disabled", 403),
    ("not_found", 404),
    ("rate_limit", 429),
    ("daily_quota", 429),
    ("cancelled", 499),
    ("internal", 500),
    ("unavailable", 503),
    ("timeout", 504),
]


@pytest.mark.parametrize(("kind", "code"), ERRORS, ids=[kind for kind, _ in ERRORS])
def test_an_error_by_directive_is_that_prompts_alone(gemini_standin: GeminiStandIn, kind: str, code: int) -> None:
    for _ in range(2):
        response = post(gemini_standin, STREAM, body(f"[[{kind}]] please"))
        assert (response.status_code, response.json()["error"]["code"]) == (code, code)
    assert post(gemini_standin, STREAM, body("please")).status_code == 200
    assert post(gemini_standin, STREAM, body(f"[[{kind}]] please", "No.", "Why not?")).status_code == 200


def test_a_directive_counts_its_times_per_prompt(gemini_standin: GeminiStandIn) -> None:
    codes = [
        post(gemini_standin, STREAM, body(f"[[unavailable times=2]] Prompt {number}")).status_code
        for number in (1, 1, 2, 1, 2, 2)
    ]
    assert codes == [503, 503, 503, 200, 503, 200]
    gemini_standin.clear()
    assert post(gemini_standin, STREAM, body("[[unavailable times=2]] Prompt 1")).status_code == 503


def test_faults_follow_one_another(gemini_standin: GeminiStandIn) -> None:
    prompt = "[[unavailable times=1]] [[empty times=1]] [[internal times=1]] Hi"
    codes = [post(gemini_standin, STREAM, body(prompt)).status_code for _ in range(4)]
    assert codes == [503, 200, 500, 200]


def test_a_fault_for_some_seconds_ends_by_itself() -> None:
    now = 0.0
    faults = Faults(clock=lambda: now)
    faults.add({"kind": "unavailable", "for_seconds": 30, "match": "storm"})
    calm, storm, prompt = (
        Question([{"parts": [{"text": text}]}], None, None, None)
        for text in ("calm", "a storm", "[[timeout for_seconds=5]]")
    )
    assert [faults.take(question).kind for question in (calm, storm, storm)] == ["", "unavailable", "unavailable"]
    assert faults.take(prompt).kind == "timeout"
    now = 5.0
    assert faults.take(prompt).kind == ""
    assert faults.take(storm).kind == "unavailable"
    now = 30.0
    assert faults.take(storm).kind == ""


def test_the_counts_of_prompts_are_bounded() -> None:
    faults = Faults()
    faults.KEPT_PROMPTS = 10
    for number in range(50):
        faults.take(Question([{"parts": [{"text": f"[[blank]] {number}"}]}], None, None, None))
    assert len(faults._of_prompts) == 10  # noqa: SLF001 - the bound is of what is kept inside


def test_a_titles_request_is_spared_unless_meant(gemini_standin: GeminiStandIn) -> None:
    assert post(gemini_standin, STREAM, title("[[unavailable]] Hi")).status_code == 200
    assert post(gemini_standin, STREAM, title("[[unavailable on=any]] Hi")).status_code == 503
    cut = "[[max_tokens tokens=1 on=title]] The colour of the sky"
    chunks = events(post(gemini_standin, STREAM, title(cut)))
    assert (text_in(chunks), finish_of(chunks)) == ("The ", "MAX_TOKENS")
    assert finish_of(ask(gemini_standin, cut)) == "STOP"
    gemini_standin.fault("empty", on="title", reason="MAX_TOKENS")
    assert finish_of(ask(gemini_standin, "Hi")) == "STOP"
    assert finish_of(events(post(gemini_standin, STREAM, title("Hi")))) == "MAX_TOKENS"


@pytest.mark.parametrize("kind", ["latency", "silent"])
def test_it_may_be_silent_first(gemini_standin: GeminiStandIn, kind: str) -> None:
    chunks = ask(gemini_standin, f"[[{kind} seconds=0.2]] Hi")
    assert "You wrote: “Hi”" in text_in(chunks)
    [call] = gemini_standin.calls()
    assert call["closedAt"] - call["openedAt"] >= 0.2


def test_headers_may_come_long_before_the_first_byte(gemini_standin: GeminiStandIn) -> None:
    url, content = gemini_standin.url + STREAM, body("[[silent seconds=3600]] Hi")
    with httpx.stream("POST", url, json=content, headers={"x-goog-api-key": "any"}, trust_env=False) as response:
        assert response.status_code == 200


def test_it_may_think_for_long(gemini_standin: GeminiStandIn) -> None:
    prompt = "[[think seconds=0.3 every=0.1]] Hi"
    shown = ask(gemini_standin, prompt, thinkingConfig={"includeThoughts": True})
    assert [bool(chunk["candidates"][0]["content"]["parts"][0].get("thought")) for chunk in shown[:4]] == [True] * 3 + [
        False
    ]
    assert shown[-1]["usageMetadata"]["thoughtsTokenCount"] == 30
    hidden = ask(gemini_standin, prompt)
    assert text_in(hidden) == text_in(shown)
    assert len(hidden) == len(shown) - 3
    assert all(call["closedAt"] - call["openedAt"] >= 0.3 for call in gemini_standin.calls())


def test_a_reply_may_have_no_candidates(gemini_standin: GeminiStandIn) -> None:
    [chunk] = events(post(gemini_standin, STREAM, body("[[no_candidates]]")))
    assert "candidates" not in chunk
    assert "promptFeedback" not in chunk
    assert chunk["usageMetadata"]["promptTokenCount"] > 0
    assert "candidates" not in post(gemini_standin, GENERATE, body("[[no_candidates]]")).json()


@pytest.mark.parametrize("reason", ["STOP", "OTHER", "MALFORMED_RESPONSE", "MAX_TOKENS", "REASON_OF_TOMORROW"])
def test_a_reply_may_have_no_text_once_and_then_some(gemini_standin: GeminiStandIn, reason: str) -> None:
    prompt = f"[[empty reason={reason} times=1]] Hi"
    chunks = ask(gemini_standin, prompt, maxOutputTokens=700)
    assert (text_in(chunks), finish_of(chunks)) == ("", reason)
    assert "candidatesTokenCount" not in chunks[-1]["usageMetadata"]
    if reason == "MAX_TOKENS":
        assert chunks[-1]["usageMetadata"]["thoughtsTokenCount"] == 700
    assert text_in(ask(gemini_standin, prompt))


def test_a_reply_may_be_white_space(gemini_standin: GeminiStandIn) -> None:
    chunks = ask(gemini_standin, "[[blank]]")
    assert text_in(chunks)
    assert not text_in(chunks).strip()
    assert finish_of(chunks) == "STOP"


def test_a_block_may_have_a_reason_that_nobody_knows(gemini_standin: GeminiStandIn) -> None:
    [chunk] = events(post(gemini_standin, STREAM, body("[[blocked reason=REASON_OF_TOMORROW]]")))
    assert chunk["promptFeedback"] == {"blockReason": "REASON_OF_TOMORROW"}
    chunks = ask(gemini_standin, "[[reply text=Fine. finish_reason=REASON_OF_TOMORROW]]")
    assert (text_in(chunks), finish_of(chunks)) == ("Fine.", "REASON_OF_TOMORROW")


def test_an_error_may_come_in_a_list(gemini_standin: GeminiStandIn) -> None:
    response = post(gemini_standin, STREAM, body("[[rate_limit as_list=true retry_delay=7s]]"))
    [given] = response.json()
    assert response.status_code == 429
    assert given["error"]["details"][1]["retryDelay"] == "7s"
    *_, last = events(post(gemini_standin, STREAM, body("[[error_in_stream error=rate_limit after=2]]")))
    assert last["error"]["code"] == 429


def test_a_chunk_may_be_huge(gemini_standin: GeminiStandIn) -> None:
    chunks = ask(gemini_standin, "[[huge_chunk bytes=1000000]] Hi", maxOutputTokens=1_000)
    assert 999_000 < max(len(str(chunk)) for chunk in chunks) < 1_010_000
    assert finish_of(chunks) == "STOP"


def test_bytes_may_come_one_by_one(gemini_standin: GeminiStandIn) -> None:
    url, content = gemini_standin.url + STREAM, body('[[drip text="Grüße 🙂" chunks=1]]')
    with httpx.stream("POST", url, json=content, headers={"x-goog-api-key": "any"}, trust_env=False) as response:
        pieces = list(response.iter_raw())
    assert len(pieces) > 100
    [chunk] = [one for one in b"".join(pieces).split(b"\r\n\r\n") if one]
    assert "Grüße 🙂".encode() in chunk


@pytest.mark.parametrize("length", [1, 100, 1_000])
def test_a_connection_may_be_cut_after_any_byte(gemini_standin: GeminiStandIn, length: int) -> None:
    received: list[bytes] = []
    url, content = gemini_standin.url + STREAM, body(f"[[cut bytes={length}]] Hi")
    stream = httpx.stream("POST", url, json=content, headers={"x-goog-api-key": "any"}, trust_env=False)
    with stream as response, pytest.raises(httpx.RemoteProtocolError):
        received.extend(response.iter_raw())
    assert len(b"".join(received)) == length
    [call] = gemini_standin.sold()["calls"]
    assert (call["outcome"], call["complete"]) == ("failed", False)
    assert call["reported"] == (length == 1_000)


def test_a_control_call_takes_the_same_parameters(gemini_standin: GeminiStandIn) -> None:
    gemini_standin.fault("max_tokens", tokens=2, thoughts=300)
    chunks = ask(gemini_standin, "Hi")
    assert (text_in(chunks), finish_of(chunks)) == ("Hello! I", "MAX_TOKENS")
    assert chunks[-1]["usageMetadata"]["thoughtsTokenCount"] == 300
    gemini_standin.fault("reply", text="One two", chunks=2, thought="Hm.", match="[[echo]]")
    chunks = ask(gemini_standin, "[[echo]] Hi")
    assert (text_in(chunks), len(chunks)) == ("One two", 4)


@pytest.mark.parametrize("given", [{"kind": "blank", "on": "nothing"}, {"kind": "error_in_stream", "error": "blank"}])
def test_a_rule_that_makes_no_sense_is_refused(gemini_standin: GeminiStandIn, given: dict[str, Any]) -> None:
    assert post(gemini_standin, "/control/faults", given).status_code == 400


def test_a_directive_that_makes_no_sense_is_an_invalid_argument(gemini_standin: GeminiStandIn) -> None:
    assert post(gemini_standin, STREAM, body("[[blank on=nothing]]")).status_code == 400
