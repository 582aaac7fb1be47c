"""The stand-in answers as Gemini does, over plain HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.integration.gemini_calls import GENERATE, KEY, STREAM, body, events, post, text_of
from tests.support.gemini_standin import GeminiStandIn


def test_a_stream_is_server_sent_events_with_growing_counts(gemini_standin: GeminiStandIn) -> None:
    response = post(gemini_standin, STREAM, body("How are you?", systemInstruction={"parts": [{"text": "Be kind."}]}))
    assert response.headers["content-type"].startswith("text/event-stream")
    chunks = events(response)
    text = "".join(text_of(chunk) for chunk in chunks)
    assert 6 <= len(chunks) <= 12
    assert "stand-in" in text
    assert "How are you?" in text
    assert "GEMINI_API_KEY" in text
    assert "first turn" in text
    assert [chunk["candidates"][0].get("finishReason") for chunk in chunks] == [None] * (len(chunks) - 1) + ["STOP"]
    counts = [chunk["usageMetadata"]["candidatesTokenCount"] for chunk in chunks]
    assert counts == sorted(counts)
    assert len({chunk["responseId"] for chunk in chunks}) == 1
    [call] = gemini_standin.calls()
    assert (call["systemInstruction"], call["outcome"], call["turns"]) == ("Be kind.", "completed", 1)


def test_without_sse_the_stream_is_one_json_array(gemini_standin: GeminiStandIn) -> None:
    chunks = post(gemini_standin, STREAM.split("?")[0], body("Hi")).json()
    assert "stand-in" in "".join(text_of(chunk) for chunk in chunks)


def test_generate_answers_whole_and_counts_the_turns(gemini_standin: GeminiStandIn) -> None:
    reply = post(gemini_standin, GENERATE, body("One", "Two", "Three")).json()
    assert "turn 2" in text_of(reply)
    assert "Three" in text_of(reply)
    assert reply["candidates"][0]["finishReason"] == "STOP"


def test_the_key_may_come_in_the_query(gemini_standin: GeminiStandIn) -> None:
    assert post(gemini_standin, f"{GENERATE}?key=any", body("Hi"), headers={}).status_code == 200


@pytest.mark.parametrize(
    ("path", "content", "headers", "code", "status"),
    [
        (GENERATE, body("Hi"), {}, 403, "PERMISSION_DENIED"),
        (GENERATE, b"{", KEY, 400, "INVALID_ARGUMENT"),
        (GENERATE, b"[]", KEY, 400, "INVALID_ARGUMENT"),
        (GENERATE, {}, KEY, 400, "INVALID_ARGUMENT"),
        (GENERATE, body(), KEY, 400, "INVALID_ARGUMENT"),
        (GENERATE, {"contents": [{"role": "robot", "parts": [{"text": "Hi"}]}]}, KEY, 400, "INVALID_ARGUMENT"),
        (GENERATE, body("Hi", generationConfig={"maxOutputTokens": 0}), KEY, 400, "INVALID_ARGUMENT"),
        ("/v1beta/models/other:generateContent", body("Hi"), KEY, 404, "NOT_FOUND"),
        ("/v1beta/models/gemini-flash-latest:fly", body("Hi"), KEY, 404, "NOT_FOUND"),
        ("/v2/nowhere", body("Hi"), KEY, 404, "NOT_FOUND"),
    ],
)
def test_what_google_refuses_is_refused_in_its_form(
    gemini_standin: GeminiStandIn, path: str, content: Any, headers: dict[str, str], code: int, status: str
) -> None:
    response = post(gemini_standin, path, content, headers)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["status"]) == (code, code, status)


def test_a_rate_limit_says_how_long_to_wait_and_a_daily_quota_that_it_is_one(gemini_standin: GeminiStandIn) -> None:
    gemini_standin.fault("rate_limit", retry_delay="1.5s")
    gemini_standin.fault("daily_quota")
    for window, delay in (("PerMinute", "1.5s"), ("PerDay", "53.016s")):
        response = post(gemini_standin, STREAM, body("Hi"))
        quota, retry = response.json()["error"]["details"]
        assert response.status_code == 429
        assert window in quota["violations"][0]["quotaId"]
        assert retry["retryDelay"] == delay


def test_faults_fit_by_text_and_wear_out(gemini_standin: GeminiStandIn) -> None:
    gemini_standin.fault("unavailable", times=2, match="storm")
    texts = ["calm", "storm", "a storm", "storm"]
    assert [post(gemini_standin, STREAM, body(text)).status_code for text in texts] == [200, 503, 503, 200]
    gemini_standin.fault("internal", times=None)
    assert {post(gemini_standin, STREAM, body("Hi")).status_code for _ in range(5)} == {500}
    gemini_standin.clear()
    assert post(gemini_standin, STREAM, body("Hi")).status_code == 200


def test_an_unknown_fault_is_refused(gemini_standin: GeminiStandIn) -> None:
    assert post(gemini_standin, "/control/faults", {"kind": "earthquake"}).status_code == 400


@pytest.mark.parametrize("kind", ["cut", "disconnect"])
def test_a_broken_connection_has_no_proper_end(gemini_standin: GeminiStandIn, kind: str) -> None:
    gemini_standin.fault(kind)
    with pytest.raises(httpx.RemoteProtocolError):
        post(gemini_standin, STREAM, body("Hi"))
    [call] = gemini_standin.calls()
    assert (call["fault"], call["outcome"]) == (kind, "failed")


async def test_a_client_that_leaves_is_seen(gemini_standin: GeminiStandIn) -> None:
    gemini_standin.fault("hang")
    async with httpx.AsyncClient(timeout=0.2, trust_env=False) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(gemini_standin.url + STREAM, json=body("Hi"), headers=KEY)
    log = await gemini_standin.until(lambda log: log["open"] == 0)
    assert log["counts"] == {"completed": 0, "client_left": 1, "failed": 0}


def test_the_models_are_listed(gemini_standin: GeminiStandIn) -> None:
    url = gemini_standin.url
    [first, *_] = httpx.get(f"{url}/v1beta/models", headers=KEY, trust_env=False).json()["models"]
    assert httpx.get(f"{url}/v1beta/{first['name']}", headers=KEY, trust_env=False).json() == first
    assert httpx.get(f"{url}/v1beta/models", headers={"x-goog-api-key": "invalid"}, trust_env=False).status_code == 400
    assert httpx.get(gemini_standin.url + "/health", trust_env=False).status_code == 200
