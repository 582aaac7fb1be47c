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
    """What a reply may take."""

    #: Tokens of the reply; thoughts are not counted.
    reply_tokens: int
    thinking: ThinkingLevel


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one call of the model, as it reported them."""

    #: Of the prompt; those that the model took from its cache are among them.
    input: int = 0
    cached: int = 0
    #: Of what it wrote; its thoughts are among them.
    output: int = 0
    thoughts: int = 0


class CallPurpose(StrEnum):
    REPLY = "reply"
    TITLE = "title"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """One call of the model, as it is booked: one a message, attempt and purpose.

    `outcome` is how it ended: completed, cancelled, blocked, empty or the code of an error; interrupted, if
    whoever asked had to stop or lost the message; lost, if they died, and then nothing else is known of it.
    """

    user_id: UserId
    message_id: MessageId
    attempt: int
    purpose: CallPurpose
    model: str
    outcome: str
    #: As it was last reported; None if it never was.
    usage: TokenUsage | None = None
    #: The day of the allowance that its tokens are counted in. A title's are not.
    day: date


LOST = "lost"
INTERRUPTED = "interrupted"


def call_outcome(error: DomainError) -> str:
    """What a call is booked as that ended with this error."""
    match error:
        case ReplyBlocked():
            return "blocked"
        case ReplyEmpty():
            return "empty"
        case _:
            return error.code
