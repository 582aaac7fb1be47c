"""Following a reply: reading it while it is written, or waiting for its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from application.patience import retry_until_available
from application.ports.chat import Messages, ReplyReader, ReplyStream
from application.watching import EndWatch
from domain.accounts import User
from domain.chat.messages import Message, MessageStatus
from domain.chat.streams import START, ReplyPiece, StreamPosition
from domain.errors import MessageNotFound
from domain.ids import ChatroomId, MessageId

#: The length in the end position of an attempt without text: what it wrote before, now void, had any length.
_VOID_LENGTH = 999_999_999
#: After every piece, for readers that are only woken.
_END_OF_STREAM = StreamPosition(attempt=_VOID_LENGTH)


@dataclass(frozen=True, slots=True)
class Delta:
    """More of the reply."""

    position: StreamPosition
    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """More of the model's thoughts, for connected readers only. In the end the message has all of them."""

    text: str


@dataclass(frozen=True, slots=True)
class Reset:
    """All text so far is void; the reply starts again."""

    position: StreamPosition


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event: the stored message, whose response is the text of the events."""

    position: StreamPosition
    message: Message


@dataclass(frozen=True, slots=True)
class Gone:
    """The last event: the message was deleted."""


ReplyEvent: TypeAlias = Delta | Thought | Reset | Ended | Gone


class ReplyWatch(EndWatch[MessageId]):
    """Wakes the readers of messages that have ended.

    So no reader hangs when the end could not be published because Redis was unavailable or the worker died.
    """

    def __init__(self, messages: Messages, *, seconds: float = 2.0) -> None:
        super().__init__(messages.ended, seconds=seconds)


class ReplyCursor:
    """One reader's progress through a reply, from `after` to its end.

    For a continuation, the kept text comes from the store, and what is added from the stream.
    """

    def __init__(self, message: Message, reload: Callable[[], Awaitable[Message]], reader: ReplyReader) -> None:
        self._message: Message | None = message
        self._is_new = True
        self._unread: Sequence[ReplyPiece] = ()
        self._reload = reload
        self._reader = reader
        self._floor = 0
        self.position = START
        #: There is nothing left to read.
        self.has_ended = False

    def begin(self, after: StreamPosition) -> None:
        assert self._message is not None
        self.has_ended = self._message.status.is_final and after == _end(self._message)
        self.position = after if after.attempt else START

    async def read(self) -> Sequence[ReplyEvent]:
        """All events that are there, at least one; none after the last.

        May be cancelled and called again without losing any.
        """
        while not self.has_ended:
            if self._message is None:
                try:
                    self._message = await retry_until_available(self._reload)
                    self._is_new = True
                except MessageNotFound:
                    self.has_ended = True
                    return [Gone()]
            if self._message.status.is_final:
                self.has_ended = True
                return self._rest(self._message)
            if self._is_new:
                self._is_new = False
                # What earlier attempts wrote is void, though the stream may still have it.
                self._floor = self._message.attempt + (self._message.status is MessageStatus.QUEUED)
                if events := self._kept(self._message):
                    return events
            pieces, self._unread = self._unread or await self._reader.read(), ()
            if not pieces:
                self._message = None
            elif events := self._events(pieces, self._message):
                return events
        return []

    def _events(self, pieces: Sequence[ReplyPiece], message: Message) -> list[ReplyEvent]:
        events: list[ReplyEvent] = []
        for index, piece in enumerate(pieces):
            if piece.position.attempt < self._floor:
                continue
            if piece.text:
                self.position = piece.position
                events.append(Delta(self.position, piece.text))
            elif piece.thought:
                events.append(Thought(piece.thought))
            elif not piece.position.characters:
                self._begin_attempt(piece.position.attempt, events)
            elif piece.position != StreamPosition(self._floor, message.kept_characters):
                # It continues a text that was not there yet at the last reload.
                self._message, self._unread = None, pieces[index + 1 :]
                break
        return events

    def _kept(self, message: Message) -> list[ReplyEvent]:
        """To the end of the kept text, unless the reader is already past it."""
        if not message.kept_characters or self.position.attempt == self._floor:
            return []
        events: list[ReplyEvent] = []
        if (known := _known(message, self.position)) is None:
            self._begin_attempt(message.kept_attempt, events)
            known = 0
        self.position = StreamPosition(message.kept_attempt, message.kept_characters)
        if rest := (message.response or "")[known : message.kept_characters]:
            events.append(Delta(self.position, rest))
        return events

    def _rest(self, message: Message) -> list[ReplyEvent]:
        events: list[ReplyEvent] = []
        text = message.response or ""
        if self.position.attempt != message.attempt or self.position.characters > len(text):
            if (known := _known(message, self.position)) is None:
                self._begin_attempt(message.attempt, events)
            else:
                self.position = StreamPosition(message.attempt, known)
        if rest := text[self.position.characters :]:
            events.append(Delta(replace(self.position, characters=len(text)), rest))
        self.position = _end(message)
        return [*events, Ended(self.position, message)]

    def _begin_attempt(self, attempt: int, events: list[ReplyEvent]) -> None:
        is_first, self.position = not self.position.attempt, StreamPosition(attempt)
        if not is_first:
            events.append(Reset(self.position))


@dataclass(frozen=True, slots=True)
class StreamReply:
    """Follow a reply while it is written, from the caller's position to its end.

    Whatever the stream loses, the store has in the end, so the reader gets exactly the stored text. An
    impossible `after` is answered with a reset and the whole reply. Raises MessageNotFound or
    DatabaseUnavailable at the beginning, and nothing afterwards.
    """

    messages: Messages
    stream: ReplyStream
    watch: ReplyWatch

    @asynccontextmanager
    async def __call__(
        self, *, user: User, chatroom_id: ChatroomId, message_id: MessageId, after: StreamPosition = START
    ) -> AsyncIterator[ReplyCursor]:
        async def reload() -> Message:
            return await self.messages.get(message_id, chatroom_id, user.id)

        async with self.stream.follow(message_id, after=after) as reader:
            with self.watch.watching(message_id, reader.wake):
                cursor = ReplyCursor(await reload(), reload, reader)
                cursor.begin(after)
                yield cursor


@dataclass(frozen=True, slots=True)
class AwaitReply:
    """Wait until the message has ended, at most `seconds`; returns it as it is then.

    Raises MessageNotFound, also if it is deleted meanwhile, or DatabaseUnavailable.
    """

    messages: Messages
    stream: ReplyStream
    watch: ReplyWatch

    async def __call__(self, *, user: User, chatroom_id: ChatroomId, message_id: MessageId, seconds: float) -> Message:
        give_up = asyncio.get_running_loop().time() + seconds
        async with self.stream.follow(message_id, after=_END_OF_STREAM) as reader:
            with self.watch.watching(message_id, reader.wake):
                while True:
                    message = await self.messages.get(message_id, chatroom_id, user.id)
                    if message.status.is_final:
                        return message
                    try:
                        async with asyncio.timeout_at(give_up):
                            while await reader.read():
                                pass
                    except TimeoutError:
                        return await self.messages.get(message_id, chatroom_id, user.id)


def _end(message: Message) -> StreamPosition:
    characters = len(message.response or "")
    is_without_text = message.response is None or characters == message.kept_characters
    return StreamPosition(message.attempt, _VOID_LENGTH if is_without_text else characters + 1)


def _known(message: Message, position: StreamPosition) -> int | None:
    """How much of the kept text a reader at `position` has: part of it, all of it and its end, or all of it and
    the end of an attempt that added nothing. None if what the reader has is void.
    """
    kept = message.kept_characters
    if kept and position.attempt == message.kept_attempt and position.characters <= kept + 1:
        return min(position.characters, kept)
    is_end = position.characters == _VOID_LENGTH and message.kept_attempt <= position.attempt <= message.attempt
    return kept if kept and is_end else None
