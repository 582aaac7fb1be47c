"""The events of a streamed reply, and its outcome."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import Struct

from adapters.gemini.failures import failure_in_stream
from domain.chat.calls import TokenUsage
from domain.chat.conversation import ReplyChunk
from domain.errors import ModelError, ModelUnavailable, ReplyBlocked, ReplyEmpty

#: Finish reasons of Google's filters. RECITATION is one of them: the text was too close to a protected source, and
#: another attempt ends the same way.
_BLOCKED = frozenset({
    "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR",
    "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
})  # fmt: skip


class _Received(Struct, rename="camel", gc=False):
    """Unknown fields are skipped. Reasons stay text, since Google adds new ones."""


class Part(_Received):
    text: str | None = None
    thought: bool | None = None


class Content(_Received):
    parts: list[Part] | None = None


class Candidate(_Received):
    content: Content | None = None
    finish_reason: str | None = None


class PromptFeedback(_Received):
    block_reason: str | None = None


class UsageMetadata(_Received):
    prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None


class Event(_Received):
    candidates: list[Candidate] | None = None
    prompt_feedback: PromptFeedback | None = None
    usage_metadata: UsageMetadata | None = None
    error: Any = None


_decode = msgspec.json.Decoder(Event, strict=False).decode


def event_of(data: bytes) -> Event:
    """Raises msgspec's or json's error for unreadable data."""
    try:
        return _decode(data)
    except msgspec.DecodeError:
        # Google sends lone surrogates, which msgspec refuses and Python's reader accepts.
        return msgspec.convert(json.loads(data), Event, strict=False)


class Reply:
    """Reads a stream's events, and decides at its end how the reply ended.

    The finish reason is kept for `end()`: some models repeat it on every chunk, so only the end of the
    stream means that the reply is complete.
    """

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        #: To be raised after its chunk, which has the usage so far.
        self.failure: ModelError | None = None
        self._has_candidate = False
        self._has_text = False
        self._counts = UsageMetadata()
        self._usage: TokenUsage | None = None

    def read(self, data: bytes) -> ReplyChunk:
        """Every event is a chunk, since each is a sign of life."""
        event = event_of(data)
        if event.usage_metadata is not None:
            self._count(event.usage_metadata)
        if event.error is not None:
            if self.finish_reason is None:  # else the reply is complete
                self.failure = failure_in_stream(event.error).error
            return ReplyChunk(usage=self._usage)
        candidate = event.candidates[0] if event.candidates else None
        feedback = event.prompt_feedback
        blocked = (feedback.block_reason if feedback else None) or (
            candidate.finish_reason if candidate and candidate.finish_reason in _BLOCKED else None
        )
        if blocked:
            self.failure = ReplyBlocked(blocked)
            return ReplyChunk(usage=self._usage)
        return ReplyChunk(usage=self._usage) if candidate is None else self._read(candidate)

    def end(self) -> ReplyChunk:
        """The last chunk. Raises ModelUnavailable for a stream that was cut off, and ReplyEmpty."""
        if not self._has_candidate:
            raise ReplyEmpty("NO_CANDIDATES")
        if self.finish_reason is None:
            raise ModelUnavailable
        if not self._has_text:
            raise ReplyEmpty(self.finish_reason)
        return ReplyChunk(finish_reason=self.finish_reason, usage=self._usage)

    def _read(self, candidate: Candidate) -> ReplyChunk:
        self._has_candidate = True
        self.finish_reason = candidate.finish_reason or self.finish_reason
        text = thought = ""
        for part in (candidate.content.parts if candidate.content else None) or ():
            if part.thought:
                thought += part.text or ""
            else:
                text += part.text or ""
        self._has_text = self._has_text or bool(text and not text.isspace())
        return ReplyChunk(text, thought, usage=self._usage)

    def _count(self, latest: UsageMetadata) -> None:
        """Counts are cumulative. A missing one keeps its value. Thoughts are billed as output."""
        counts = self._counts
        for name in UsageMetadata.__struct_fields__:
            if (number := getattr(latest, name)) is not None:
                setattr(counts, name, number)
        thoughts = counts.thoughts_token_count or 0
        self._usage = TokenUsage(
            input=counts.prompt_token_count or 0,
            cached=counts.cached_content_token_count or 0,
            output=(counts.candidates_token_count or 0) + thoughts,
            thoughts=thoughts,
        )
