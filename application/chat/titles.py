"""Titles: names for chatrooms whose owners gave them none."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass

from application.chat.model_calls import Call, CallModel
from application.patience import retry_until_available
from application.ports.chat import Chatrooms, MessageQueue, ReplyWriter
from domain.chat.calls import CallPurpose, ThinkingLevel
from domain.chat.conversation import Conversation, Role, Turn
from domain.chat.messages import Message
from domain.errors import DomainError

log = logging.getLogger(__name__)

MAX_TITLE_CHARACTERS = 60
_SECONDS = 20.0
_TOKENS = 256
_EXCERPT = 1_000  # characters of each side; the subject shows early
_INSTRUCTIONS = (
    "You name conversations. Answer with nothing but a title of at most six words, in the language of the conversation."
)


@dataclass(frozen=True, slots=True)
class SuggestTitle:
    """Name the chatroom after this message and its reply, if it still waits for a name.

    Best effort: failures are only logged, and the next message may try again.
    """

    chatrooms: Chatrooms
    messages: MessageQueue
    call_model: CallModel
    thinking: ThinkingLevel
    #: The budget for thoughts at each level, in tokens.
    thought_tokens: Mapping[ThinkingLevel, int]

    async def __call__(self, *, message: Message) -> None:
        excerpt = f"User: {message.input[:_EXCERPT]}\n\nAssistant: {(message.response or '')[:_EXCERPT]}\n\nTitle:"
        question = Conversation(
            (Turn(Role.USER, excerpt),), _TOKENS, _INSTRUCTIONS, self.thinking, self.thought_tokens[self.thinking]
        )
        call = Call(message.user_id)
        try:
            async with asyncio.timeout(_SECONDS):
                outcome = await self.call_model(question, call=call, writer=_NullWriter())
                is_whole = outcome.finish_reason == "STOP"
                if is_whole and (title := clean_title(outcome.response or "")):
                    await self.chatrooms.set_title(message.chatroom_id, title)
        except (DomainError, TimeoutError) as error:
            log.info("no_title: %s", type(error).__name__)
        except Exception as error:  # noqa: BLE001 - the reply is stored, and a title must not make it look failed
            log.warning("no_title: %s", type(error).__name__)
        finally:
            if booked := call.booked(message, CallPurpose.TITLE):
                await retry_until_available(lambda: self.messages.book(booked))


def clean_title(text: str) -> str:
    """One line without markup, quotes or a final stop, cut between words; "" if nothing is left."""
    line = next((line for line in text.splitlines() if re.search(r"\w", line)), "")
    line = re.sub(r"[*_`#>\"“”„«»]+", "", line)
    line = re.sub(r"^\s*title\s*:", "", line, flags=re.IGNORECASE)
    words = " ".join(line.split()).strip(" '‘’.-")
    if len(words) > MAX_TITLE_CHARACTERS:
        words = words[:MAX_TITLE_CHARACTERS].rsplit(" ", 1)[0][: MAX_TITLE_CHARACTERS - 1].rstrip(" ,;:-") + "…"
    return words


class _NullWriter(ReplyWriter):
    def add(self, text: str) -> None: ...

    def thought(self, text: str) -> None: ...

    async def close(self) -> None: ...
