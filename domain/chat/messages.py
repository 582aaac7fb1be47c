"""Messages and their states.

queued ──claim──▶ generating ──▶ completed | failed | blocked | cancelled
   ▲                  │
   └──retry, release──┘

A completed reply that was cut off can be continued: queued again, it keeps its text and ends as completed, whatever
becomes of the continuation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

from domain.chat.calls import ThinkingLevel
from domain.errors import (
    DomainError,
    MessageNotContinuable,
    MessageNotEnded,
    ModelDeferred,
    ModelUnavailable,
    ReplyBlocked,
    ReplyEmpty,
)
from domain.ids import ChatroomId, MessageId, UserId

MAX_INPUT_CHARACTERS = 8_000
MAX_THOUGHT_CHARACTERS = 32_000
MAX_DEATHS = 3
#: Of a reply that may still be continued: it is shown, stored and given to the model as a whole.
MAX_CONTINUED_CHARACTERS = 500_000
CUT_OFF = "MAX_TOKENS"
"""The finish reason of a reply that had reached its cap."""


class MessageStatus(StrEnum):
    QUEUED = "queued"
    GENERATING = "generating"
    COMPLETED = "completed"
    FAILED = "failed"
    BLOCKED = "blocked"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self not in (MessageStatus.QUEUED, MessageStatus.GENERATING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One input and its reply.

    `attempt` counts claims and is the fencing token: whoever writes must still hold it.
    `failures` counts attempts that the model failed, `deaths` those that ended in an expired
    lease, that is, in a dead worker. `allowance_day` is the UTC day that paid for it, as long as it
    is `charged`; giving the allowance back ends that. Retries are counted in time from `queued_at`.
    `cancel_requested` asks whoever is answering to stop.

    A reply that is continued keeps its first `kept_characters`, which attempt `kept_attempt` ended with.
    Both are 0 for one that begins at its beginning. While it is continued `response` has that text, and
    usage and thoughts are those of it; in the end they are of it all.
    """

    id: MessageId
    chatroom_id: ChatroomId
    user_id: UserId
    input: str
    created_at: datetime
    status: MessageStatus = MessageStatus.QUEUED
    response: str | None = None
    #: The model's own summary of what it thought before it answered, and how long it took.
    thoughts: str | None = None
    thinking_seconds: float | None = None
    finish_reason: str | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    thought_tokens: int | None = None
    error_code: str | None = None
    error_detail: str | None = None
    attempt: int = 0
    failures: int = 0
    deaths: int = 0
    allowance_day: date
    charged: bool = True
    cancel_requested: bool = False
    queued_at: datetime
    #: Of the reply; thoughts are not counted.
    max_output_tokens: int
    thinking: ThinkingLevel | None = None
    kept_characters: int = 0
    kept_attempt: int = 0
    #: Of the request that queued it anew, if that may come again: it takes effect once.
    request_id: UUID | None = None
    #: The first exchange that the model was given with it.
    window_from: MessageId | None = None
    completed_at: datetime | None = None

    @property
    def has_reply(self) -> bool:
        """It has a reply that later messages may build on, though perhaps not yet the whole of it."""
        return self.status is MessageStatus.COMPLETED or self.kept_characters > 0

    @property
    def is_continuable(self) -> bool:
        is_cut = self.status is MessageStatus.COMPLETED and self.finish_reason == CUT_OFF
        return is_cut and 0 < len(self.response or "") <= MAX_CONTINUED_CHARACTERS

    def continued(
        self,
        *,
        at: datetime,
        max_output_tokens: int,
        thinking: ThinkingLevel | None,
        request_id: UUID | None = None,
    ) -> Message:
        """Queued to go on from its text. Raises MessageNotEnded or MessageNotContinuable."""
        if not self.status.is_final:
            raise MessageNotEnded
        if not self.is_continuable:
            raise MessageNotContinuable
        characters = len(self.response or "")
        return replace(
            self,
            status=MessageStatus.QUEUED,
            finish_reason=None,
            error_code=None,
            error_detail=None,
            completed_at=None,
            failures=0,
            deaths=0,
            cancel_requested=False,
            allowance_day=at.date(),
            charged=True,
            queued_at=at,
            max_output_tokens=max_output_tokens,
            thinking=thinking,
            request_id=request_id,
            kept_characters=characters,
            # The last attempt may have added nothing to what it continued.
            kept_attempt=self.kept_attempt if characters == self.kept_characters else self.attempt,
        )

    def in_all(self, outcome: Outcome) -> Outcome:
        """What an attempt's outcome is of the message: with what was kept, which stays completed and cut off."""
        if not self.kept_characters:
            return outcome
        is_completed = outcome.status is MessageStatus.COMPLETED
        thoughts = "\n\n".join(filter(None, (self.thoughts, outcome.thoughts)))
        return replace(
            outcome,
            status=MessageStatus.COMPLETED,
            response=(self.response or "") + (outcome.response or ""),
            thoughts=thoughts[:MAX_THOUGHT_CHARACTERS] or None,
            thinking_seconds=_sum(self.thinking_seconds, outcome.thinking_seconds),
            finish_reason=outcome.finish_reason if is_completed else CUT_OFF,
            input_tokens=_sum(self.input_tokens, outcome.input_tokens),
            cached_tokens=_sum(self.cached_tokens, outcome.cached_tokens),
            output_tokens=_sum(self.output_tokens, outcome.output_tokens),
            thought_tokens=_sum(self.thought_tokens, outcome.thought_tokens),
            window_from=outcome.window_from or self.window_from,
        )


N = TypeVar("N", int, float)


def _sum(one: N | None, other: N | None) -> N | None:
    """None is unknown, and adds nothing."""
    return other if one is None else one if other is None else one + other


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended for good."""

    status: MessageStatus
    response: str | None = None
    thoughts: str | None = None
    thinking_seconds: float | None = None
    finish_reason: str | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    thought_tokens: int | None = None
    error_code: str | None = None
    error_detail: str | None = None
    #: The first exchange that the model was given with the message.
    window_from: MessageId | None = None

    @property
    def is_empty_cut(self) -> bool:
        """Its length was used up before the first word, which is the prompt's doing as a rule."""
        return self.error_code == ReplyEmpty.code and self.finish_reason == CUT_OFF

    @classmethod
    def of_error(cls, error: DomainError) -> Outcome:
        if isinstance(error, ModelDeferred):  # for as long as a message may wait: to its sender, it was away
            error = ModelUnavailable()
        return cls(
            status=MessageStatus.BLOCKED if isinstance(error, ReplyBlocked) else MessageStatus.FAILED,
            finish_reason=error.reason if isinstance(error, ReplyBlocked | ReplyEmpty) else None,
            error_code=error.code,
            error_detail=error.detail,
        )
