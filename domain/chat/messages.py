"""Messages: their states, and the verbs that lead from one to the next.

queued ──claim──▶ generating ──▶ completed | failed | blocked | cancelled
   ▲                  │
   └──retry, release──┘

A completed reply that was cut off can be continued: queued again, it keeps its text and ends as completed, whatever
becomes of the continuation.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from domain.chat.calls import CallPurpose, ModelCall, ThinkingLevel, TokenUsage
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
class MessageView:
    """A message as its user sees it."""

    id: MessageId
    chatroom_id: ChatroomId
    input: str
    created_at: datetime
    status: MessageStatus = MessageStatus.QUEUED
    response: str | None = None
    #: The model's own summary of its thoughts before the reply, and how long it thought.
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
    charged: bool = True
    completed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(MessageView):
    """One input and its reply. Verbs return the next state.

    `attempt` counts claims and is the fencing token: only its holder may write. `failures` counts
    attempts that the model failed, `deaths` those that ended in an expired lease, that is, in a dead
    worker. `allowance_day` is the UTC day that paid for it while it is `charged`; a refund ends that.
    Retries are counted in time from `queued_at`. `cancel_requested` asks the worker to stop.

    A reply that is continued keeps its first `kept_characters`, which attempt `kept_attempt` ended with.
    Both are 0 for a reply without a kept text. While it is continued, `response`, usage and thoughts are
    those of the kept text; in the end they cover the whole.
    """

    user_id: UserId
    failures: int = 0
    deaths: int = 0
    allowance_day: date
    cancel_requested: bool = False
    queued_at: datetime
    #: For the reply; thoughts are not counted.
    max_output_tokens: int
    thinking: ThinkingLevel | None = None
    kept_characters: int = 0
    kept_attempt: int = 0
    #: Of the request that queued it again, if that request may be repeated: it takes effect once.
    request_id: UUID | None = None
    #: The first exchange that the model was given with it.
    window_from: MessageId | None = None

    @property
    def view(self) -> MessageView:
        return MessageView(**{field.name: getattr(self, field.name) for field in fields(MessageView)})

    @property
    def has_reply(self) -> bool:
        """It has a reply that later messages may build on, though perhaps not the whole of it yet."""
        return self.status is MessageStatus.COMPLETED or self.kept_characters > 0

    @property
    def is_continuable(self) -> bool:
        is_cut = self.status is MessageStatus.COMPLETED and self.finish_reason == CUT_OFF
        return is_cut and 0 < len(self.response or "") <= MAX_CONTINUED_CHARACTERS

    def was_queued_by(self, request_id: UUID | None) -> bool:
        """Whether this request has had its effect already."""
        return request_id is not None and self.request_id == request_id

    def claimed(self) -> Message:
        """For one attempt. If it is generating, the worker of its last attempt died."""
        died = self.status is MessageStatus.GENERATING
        return replace(self, status=MessageStatus.GENERATING, attempt=self.attempt + 1, deaths=self.deaths + died)

    def returned(self, *, failed: bool) -> Message:
        """To the queue, after an attempt that the model failed or that did not end."""
        return replace(self, status=MessageStatus.QUEUED, failures=self.failures + failed)

    def ended(self, outcome: Outcome, at: datetime, *, refunded: bool) -> Message:
        """As an attempt ended it."""
        whole = self.in_all(outcome)
        values = {field.name: getattr(whole, field.name) for field in fields(whole)}
        values["window_from"] = whole.window_from or self.window_from
        return replace(self, completed_at=at, charged=self.charged and not refunded, **values)

    def cancelled(self, at: datetime, *, refunded: bool) -> Message:
        """Ended while nobody works on it. One that was being continued is completed again, with what it had."""
        return replace(
            self,
            status=MessageStatus.COMPLETED if self.kept_characters else MessageStatus.CANCELLED,
            finish_reason=CUT_OFF if self.kept_characters else None,
            cancel_requested=True,
            charged=self.charged and not refunded,
            completed_at=at,
        )

    def requeued(self, at: datetime) -> Message | None:
        """Queued as if it had just been sent, but without charge. None unless it failed."""
        return self._queued(at) if self.status is MessageStatus.FAILED else None

    def regenerated(
        self, *, at: datetime, max_output_tokens: int, thinking: ThinkingLevel | None, request_id: UUID | None = None
    ) -> Message:
        """Queued again, without its reply. Raises MessageNotEnded, unless it was this request that queued it."""
        if not self.status.is_final and not self.was_queued_by(request_id):
            raise MessageNotEnded
        nothing = dict.fromkeys(_OF_REPLY)
        return self._queued(
            at,
            allowance_day=at.date(),
            charged=True,
            max_output_tokens=max_output_tokens,
            thinking=thinking,
            request_id=request_id,
            kept_characters=0,
            kept_attempt=0,
            **nothing,
        )

    def continued(
        self, *, at: datetime, max_output_tokens: int, thinking: ThinkingLevel | None, request_id: UUID | None = None
    ) -> Message:
        """Queued to go on from its text. Raises MessageNotEnded or MessageNotContinuable."""
        if not self.status.is_final:
            raise MessageNotEnded
        if not self.is_continuable:
            raise MessageNotContinuable
        characters = len(self.response or "")
        return self._queued(
            at,
            allowance_day=at.date(),
            charged=True,
            max_output_tokens=max_output_tokens,
            thinking=thinking,
            request_id=request_id,
            kept_characters=characters,
            # The last attempt may have added nothing to what it continued.
            kept_attempt=self.kept_attempt if characters == self.kept_characters else self.attempt,
        )

    def _queued(self, at: datetime, **changes: Any) -> Message:
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
            queued_at=at,
            **changes,
        )

    def in_all(self, outcome: Outcome) -> Outcome:
        """An attempt's outcome together with what was kept, which stays completed and cut off."""
        if not self.kept_characters:
            return outcome
        is_completed = outcome.status is MessageStatus.COMPLETED
        thoughts = "\n\n".join(filter(None, (self.thoughts, outcome.thoughts)))
        sums = {name: _sum(getattr(self, name), getattr(outcome, name)) for name in _SUMMED}
        return replace(
            outcome,
            status=MessageStatus.COMPLETED,
            response=(self.response or "") + (outcome.response or ""),
            thoughts=thoughts[:MAX_THOUGHT_CHARACTERS] or None,
            finish_reason=outcome.finish_reason if is_completed else CUT_OFF,
            window_from=outcome.window_from or self.window_from,
            **sums,
        )

    def call(
        self, *, purpose: CallPurpose = CallPurpose.REPLY, model: str, outcome: str, usage: TokenUsage | None = None
    ) -> ModelCall:
        """A call of the model by the present attempt, as it is booked."""
        return ModelCall(
            user_id=self.user_id,
            message_id=self.id,
            attempt=self.attempt,
            purpose=purpose,
            model=model,
            outcome=outcome,
            usage=usage,
            day=self.allowance_day,
        )


_SUMMED = ("thinking_seconds", "input_tokens", "cached_tokens", "output_tokens", "thought_tokens")
_OF_REPLY = ("response", "thoughts", "window_from", *_SUMMED)


def _sum(first: float | None, second: float | None) -> Any:
    """None is unknown, and adds nothing."""
    return second if first is None else first if second is None else first + second


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
        """The length limit was reached before the first word, usually because of the prompt."""
        return self.error_code == ReplyEmpty.code and self.finish_reason == CUT_OFF

    @classmethod
    def of_error(cls, error: DomainError) -> Outcome:
        if isinstance(error, ModelDeferred):  # until the message was too old: to its sender, the model was unavailable
            error = ModelUnavailable()
        return cls(
            status=MessageStatus.BLOCKED if isinstance(error, ReplyBlocked) else MessageStatus.FAILED,
            finish_reason=error.reason if isinstance(error, ReplyBlocked | ReplyEmpty) else None,
            error_code=error.code,
            error_detail=error.detail,
        )
