"""The conversation that the model is given."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate

from domain.chat.calls import ThinkingLevel, TokenUsage
from domain.chat.messages import Message
from domain.ids import MessageId

MAX_WINDOW_EXCHANGES = 30
MAX_WINDOW_TOKENS = 32_000
GO_ON = (
    "Continue your reply from the exact character where it was cut off, even if that is in the middle of a word, a"
    " list, a table or a block of code. What you write now is appended to it as it is: repeat nothing, announce"
    " nothing, do not open again what is still open, and keep its language and format."
)
MIN_CONTINUED_TOKENS = 1_000
"""Of the end of a continued reply, which the model is always given."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """An answered message, as later conversations include it."""

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
    """What a chatroom adds to a message for the model: its `earlier` exchanges, newest first."""

    earlier: Sequence[Exchange] = ()
    instructions: str | None = None
    #: The room waits for a name suggested by the model.
    auto_title: bool = False


class Role(StrEnum):
    USER = "user"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class Turn:
    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the model is given: turns in order, the last one the user's."""

    turns: tuple[Turn, ...]
    #: Of the reply; thoughts have `thought_tokens`.
    max_output_tokens: int
    instructions: str | None = None
    thinking: ThinkingLevel | None = None
    thought_tokens: int = 0
    #: The first exchange in it.
    window_from: MessageId | None = None


@dataclass(frozen=True, slots=True)
class ReplyChunk:
    """A piece of a reply, or of the summary of the model's thoughts, as the model streams it.

    Usage is cumulative: the last one is the call's.
    """

    text: str = ""
    thought: str = ""
    finish_reason: str | None = None
    usage: TokenUsage | None = None


def estimated_tokens(text: str) -> int:
    """A safe estimate without the model's tokenizer: four ASCII characters, or one other character, per token."""
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

    The message, the deployment's `instructions` and then the room's are always included in full, and
    count. The context has one exchange more than `max_exchanges`, if the room has. For a continuation, the
    reply so far, or at least its end, follows its message, and then the request to continue.
    """
    system_instruction = "\n\n".join(text for text in (instructions, context.instructions) if text) or None
    budget = max_tokens - estimated_tokens(system_instruction or "") - estimated_tokens(message.input)
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
        system_instruction,
        message.thinking,
        thought_tokens,
        kept[-1].id if kept else None,
    )


def _last_tokens(text: str, tokens: int) -> str:
    """The end of the text, roughly as much as fits."""
    while estimated_tokens(text) > tokens:
        text = text[len(text) // 8 + 1 :]
    return text


def _window(earlier: Sequence[Exchange], budget: int, max_exchanges: int) -> int:
    """How many of the newest exchanges to include.

    All, if they fit. Else the window begins where that of the last exchange did, because a prompt's common
    beginning with the last one costs a fraction of the price. When the window gets too long, its older third is
    dropped at once, and then it grows again.
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
