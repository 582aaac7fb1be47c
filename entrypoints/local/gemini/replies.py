"""What Gemini's stand-in reads and writes: a question, a reply in chunks, and its token counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from entrypoints.local.gemini.faults import GoogleError, Json, Rule

CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Pace:
    """How a reply is written. Its chunks are about equal in words."""

    first_chunk_seconds: float = 0.25
    chunk_seconds: float = 0.06
    chunks: int = 9


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
        if asked.endswith("Title:"):  # a chatroom waits for a name: its first words do
            return " ".join(asked.removeprefix("User:").partition("Assistant:")[0].split()[:6]) or "A conversation"
        turns = len(self.contents)
        seen = "the first turn of our conversation" if turns == 1 else f"turn {turns} of our conversation"
        return (
            "Hello! I am the local stand-in for Gemini, not the model itself. "
            f"You wrote: “{asked if len(asked) <= 400 else asked[:400] + '…'}” — good of you to ask. This is {seen}. "
            "To talk with the real Gemini, set GEMINI_API_KEY and start again."
        )


def plan(standard: Pace, question: Question, rule: Rule) -> tuple[Pace, list[str], str]:
    """The pace, the pieces of text and the finish reason of a reply."""
    pace, text, finish_reason = standard, question.answer(), "STOP"
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


def chunks_of(model: str, question: Question, pieces: Sequence[str], finish_reason: str, rule: Rule) -> list[Json]:
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


def joined(chunks: Sequence[Json]) -> Json:
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
