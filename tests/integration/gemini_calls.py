"""Calls to Gemini's stand-in by plain HTTP."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.support.gemini_standin import GeminiStandIn

KEY = {"x-goog-api-key": "any"}
STREAM = "/v1beta/models/gemini-flash-latest:streamGenerateContent?alt=sse"
GENERATE = "/v1beta/models/gemini-flash-latest:generateContent"


def body(*texts: str, **more: Any) -> dict[str, Any]:
    roles = ("user", "model")
    contents = [{"role": roles[index % 2], "parts": [{"text": text}]} for index, text in enumerate(texts)]
    return {"contents": contents, **more}


def post(server: GeminiStandIn, path: str, content: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return httpx.post(server.url + path, content=data, headers=KEY if headers is None else headers, trust_env=False)


def events(response: httpx.Response) -> list[Any]:
    return [json.loads(event.removeprefix("data: ")) for event in response.text.split("\r\n\r\n") if event]


def text_of(chunk: Any) -> str:
    return "".join(part["text"] for part in chunk["candidates"][0]["content"].get("parts", []))


def ask(server: GeminiStandIn, text: str, model: str = "gemini-flash-latest", **config: Any) -> list[Any]:
    """The chunks of a streamed reply to this prompt."""
    path = f"/v1beta/models/{model}:streamGenerateContent?alt=sse"
    response = post(server, path, body(text, generationConfig=config))
    assert response.status_code == 200, response.text
    return events(response)


def text_in(chunks: list[Any]) -> str:
    """The reply's own text: thoughts are none of it."""
    parts = [part for chunk in chunks for part in chunk["candidates"][0]["content"].get("parts", [])]
    return "".join(part["text"] for part in parts if not part.get("thought"))
