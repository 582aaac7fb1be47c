"""Chatrooms, messages and their states, and the conversation given to the model.

queued ──claim──▶ generating ──▶ completed | failed | blocked | cancelled
   ▲                  │
   └──retry, release──┘

A completed reply that was cut off can be continued: queued again, it keeps its text and ends as completed, whatever
becomes of the continuation.
"""

from __future__ import annotations

import math
import random
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from itertools import accumulate
from typing import TypeVar
from uuid import UUID

from domain.errors import (
    DomainError,
    MessageNotContinuable,
    MessageNotEnded,
    ModelDeferred,
    ModelOverloaded,
    ModelRateLimited,
    ModelTimedOut,
    ModelUnavailable,
    ReplyBlocked,
    ReplyEmpty,
)
from domain.ids import ChatroomId, MessageId, UserId

MAX_INPUT_CHARACTERS = 8_000
MAX_INSTRUCTIONS_CHARACTERS = 4_000
MAX_WINDOW_EXCHANGES = 30
MAX_WINDOW_TOKENS = 32_000
MAX_THOUGHT_CHARACTERS = 32_000
MAX_DEATHS = 3
#: Of a reply that may still be continued: it is shown, stored and given to the model as a whole.
MAX_CONTINUED_CHARACTERS = 500_000
CUT_OFF = "MAX_TOKENS"
"""The finish reason of a reply that had reached its cap."""
GO_ON = (
    "Continue your reply from the exact character where it was cut off, even if that is in the middle of a word, a"
    " list, a table or a block of code. What you write now is appended to it as it is: repeat nothing, announce"
    " nothing, do not open again what is still open, and keep its language and format."
)
MIN_CONTINUED_TOKENS = 1_000
"""Of a continued reply's end, which the model is given whatever else there is."""
DEFERRED_SPREAD = 5.0  # seconds over which those return that were put off together


@dataclass(frozen=True, slots=True, kw_only=True)
class Chatroom:
    id: ChatroomId
    user_id: UserId
    name: str
    #: What the model is told before every conversation of this room.
    instructions: str | None = None
    #: The name is to be replaced by one that the model suggests from the first exchange.
    auto_title: bool = False
    created_at: datetime


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


@dataclass(frozen=True, slots=True)
class Exchange:
    """A message that was answered, as far as later ones build on it."""

    id: MessageId
    input: str
    response: str
    #: The first exchange that the model was given with it.
    window_from: MessageId | None = None

    @property
    def tokens(self) -> int:
        return estimated_tokens(self.input) + estimated_tokens(self.response)


@dataclass(frozen=True, slots=True)
class Context:
    """What a chatroom adds to a message that the model is asked: `earlier` exchanges, newest first."""

    earlier: Sequence[Exchange] = ()
    instructions: str | None = None
    #: The room waits for a name of the model's making.
    auto_title: bool = False


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


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is tried again. Times in seconds."""

    max_attempts: int = 5
    #: A timeout has cost as much as a reply.
    max_timeouts: int = 2
    max_empty: int = 3
    max_age: timedelta = timedelta(minutes=10)
    base_delay: float = 1.0
    overload_delay: float = 2.0
    max_delay: float = 60.0

    def delay(self, message: Message, error: DomainError, now: datetime) -> float | None:
        """Seconds to wait before the next attempt, or None when there shall be none.

        The wait is never shorter than what the model asked for; beyond that it has full jitter, so
        that a crowd of failed calls does not return as a crowd. It grows with the failures, and
        where the message has none, because the model was overloaded, with the age of the message.
        """
        if message.failures + 1 >= self._max_failures(error):
            return None
        asked = getattr(error, "retry_after", None) or 0.0
        match error:
            case ModelDeferred():
                delay = asked + random.uniform(0, DEFERRED_SPREAD)
            case ModelOverloaded() | ModelRateLimited():
                age = (now - message.queued_at).total_seconds()
                delay = max(asked, self._jitter(max(self.overload_delay, age)))
            case ReplyEmpty():
                delay = self._jitter(self.base_delay)
            case _:
                delay = max(asked, self._jitter(self.base_delay * 2**message.failures))
        if now + timedelta(seconds=delay) > message.queued_at + self.max_age:
            return None
        return delay

    @staticmethod
    def is_failure(error: DomainError) -> bool:
        """Whether it counts among the failures of its message. What the model refuses to everybody does not."""
        return not isinstance(error, ModelDeferred | ModelOverloaded | ModelRateLimited)

    def _max_failures(self, error: DomainError) -> float:
        """With how many failures such an error is the last one."""
        match error:
            case ModelDeferred() | ModelOverloaded() | ModelRateLimited():
                return math.inf
            case ModelTimedOut():
                return min(self.max_timeouts, self.max_attempts)
            case ReplyEmpty(may_differ=True):
                return min(self.max_empty, self.max_attempts)
            case ModelUnavailable():
                return self.max_attempts
            case _:
                return 1

    def _jitter(self, longest: float) -> float:
        return random.uniform(0, min(self.max_delay, longest))

    def is_poison(self, message: Message) -> bool:
        """Whether a message that was just claimed has taken too many workers with it."""
        return message.deaths >= MAX_DEATHS


class Role(StrEnum):
    USER = "user"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class Turn:
    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the model is asked: turns in order, the last one the user's."""

    turns: tuple[Turn, ...]
    #: Of the reply. Thoughts have `thought_tokens` of their own.
    max_output_tokens: int
    instructions: str | None = None
    thinking: ThinkingLevel | None = None
    thought_tokens: int = 0
    #: The first exchange in it.
    window_from: MessageId | None = None


@dataclass(frozen=True, slots=True)
class ReplyChunk:
    """A piece of a reply, or of the summary of the model's thoughts, as the model streams it.

    Usage is cumulative: the last one seen is the call's.
    """

    text: str = ""
    thought: str = ""
    finish_reason: str | None = None
    usage: TokenUsage | None = None


def estimated_tokens(text: str) -> int:
    """A safe guess without the model's tokenizer: four ASCII characters, or one of another script, a token."""
    plain = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
    return -(-plain // 4) + len(text) - plain


def conversation_window(
    message: Message,
    context: Context,
    *,
    instructions: str | None = None,
    thought_tokens: int = 0,
    max_exchanges: int = MAX_WINDOW_EXCHANGES,
    max_tokens: int = MAX_WINDOW_TOKENS,
) -> Conversation:
    """The room's last exchanges that fit, each whole, then `message` itself.

    Always given whole are the message, the `instructions` of the deployment, and after them the
    room's; they count, too. The context has one exchange more than `max_exchanges`, if the room has. A reply that is
    continued follows its message, at least its end, with the request to go on.
    """
    told = "\n\n".join(text for text in (instructions, context.instructions) if text) or None
    budget = max_tokens - estimated_tokens(told or "") - estimated_tokens(message.input)
    asked = [Turn(Role.USER, message.input)]
    if message.kept_characters:
        text = _last_tokens((message.response or "")[: message.kept_characters], max(budget, MIN_CONTINUED_TOKENS))
        budget -= estimated_tokens(text)
        asked += [Turn(Role.MODEL, text), Turn(Role.USER, GO_ON)]
    kept = context.earlier[: _window(context.earlier, budget, max_exchanges)]
    turns = [turn for past in reversed(kept) for turn in (Turn(Role.USER, past.input), Turn(Role.MODEL, past.response))]
    return Conversation(
        (*turns, *asked),
        message.max_output_tokens,
        told,
        message.thinking,
        thought_tokens,
        kept[-1].id if kept else None,
    )


def _last_tokens(text: str, tokens: int) -> str:
    """The end of the text, about as much as fits."""
    while estimated_tokens(text) > tokens:
        text = text[len(text) // 8 + 1 :]
    return text


def _window(earlier: Sequence[Exchange], budget: int, max_exchanges: int) -> int:
    """How many of the newest exchanges to give.

    All, if they fit. Else the window begins where that of the last exchange did, since the model reads at a
    fraction of the price what a prompt has in common with the one before, from its beginning on. When it gets too long
    its older third is dropped at once, and then it grows again.
    """
    tokens = list(accumulate(past.tokens for past in earlier))
    fitting = bisect_right(tokens, budget)
    if fitting == len(earlier) <= max_exchanges:
        return fitting
    beginning = earlier[0].window_from
    count = next((number for number, past in enumerate(earlier, 1) if past.id == beginning), len(earlier))
    while count > max_exchanges:
        count -= max(1, max_exchanges // 3)
    if count > fitting:
        count = max(bisect_right(tokens, budget * 2 // 3), min(fitting, 1))
    return count


@dataclass(frozen=True, slots=True, order=True)
class StreamPosition:
    """How far somebody has read a reply: so many characters of that attempt. Written `<attempt>-<characters>`.

    One more character than the reply has is the position of its end. Counting characters, not
    pieces, a reader can go on from the stored reply when the pieces are gone.
    """

    attempt: int = 0
    characters: int = 0

    @classmethod
    def parse(cls, text: str) -> StreamPosition | None:
        """None for anything that is no position."""
        found = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", text)
        return cls(int(found[1]), int(found[2])) if found else None

    def __str__(self) -> str:
        return f"{self.attempt}-{self.characters}"


START = StreamPosition()


@dataclass(frozen=True, slots=True)
class ReplyPiece:
    """A piece of a reply that is being written; `position` is where it ends.

    An attempt begins with a piece without text: at position 0, or at the end of the text that it
    continues. A piece with a `thought` has no text of the reply, so its position is that of the one before it.
    """

    position: StreamPosition
    text: str = ""
    thought: str = ""

    @property
    def start(self) -> int:
        return self.position.characters - len(self.text)
