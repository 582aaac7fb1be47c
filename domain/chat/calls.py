"""Calls of the model: what a reply may take, what a call took, and how it is booked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from domain.errors import (
    DomainError,
    ReplyBlocked,
    ReplyEmpty,
)
from domain.ids import MessageId, UserId


class ThinkingLevel(StrEnum):
    """How long a model thinks before it answers. Not every model takes every level."""

    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class ReplyPlan:
    """The limits of one reply."""

    #: Of the reply; thoughts are not counted.
    reply_tokens: int
    thinking: ThinkingLevel


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """The tokens of one call of the model, as reported by it."""

    #: Of the prompt, including the cached ones.
    input: int = 0
    cached: int = 0
    #: Of the reply, including thoughts.
    output: int = 0
    thoughts: int = 0


class CallPurpose(StrEnum):
    REPLY = "reply"
    TITLE = "title"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """One call of the model, as it is booked: one per message, attempt and purpose.

    `outcome` is how it ended: completed, cancelled, blocked, empty or an error's code; interrupted, if the
    worker had to stop or lost the message; lost, if the worker died, and then nothing else is known.
    """

    user_id: UserId
    message_id: MessageId
    attempt: int
    purpose: CallPurpose
    model: str
    outcome: str
    #: As last reported; None if it never was.
    usage: TokenUsage | None = None
    #: The day whose usage includes its tokens. A title's tokens are not included.
    day: date


LOST = "lost"
INTERRUPTED = "interrupted"


def call_outcome(error: DomainError) -> str:
    """The booked outcome of a call that ended with this error."""
    match error:
        case ReplyBlocked():
            return "blocked"
        case ReplyEmpty():
            return "empty"
        case _:
            return error.code
