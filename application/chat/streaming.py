"""Following a reply: reading it while it is written, or waiting for its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from application.patience import patiently
from application.ports.chat import Messages, ReplyReader, ReplyStream
from application.ports.runtime import Resource
from domain.accounts import User
from domain.chat import START, Message, MessageStatus, ReplyPiece, StreamPosition
from domain.errors import MessageNotFound, Unavailable
from domain.ids import ChatroomId, MessageId

log = logging.getLogger(__name__)

#: Of an end without a reply: what was said of it until then, and is void now, may have had any length.
_ENDLESS = 999_999_999
#: After every piece: to be woken, and to read nothing.
_NO_PIECES = StreamPosition(attempt=_ENDLESS)


@dataclass(frozen=True, slots=True)
class Delta:
    """The reply goes on."""

    position: StreamPosition
    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """The model goes on thinking. Only who is connected gets it; in the end the message has all its thoughts."""

    text: str


@dataclass(frozen=True, slots=True)
class Reset:
    """All text so far is void; the reply begins anew."""

    position: StreamPosition


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event: the message as it is stored, whose response is what was said."""

    position: StreamPosition
    message: Message


@dataclass(frozen=True, slots=True)
class Gone:
    """The last event: the message was deleted."""


ReplyEvent: TypeAlias = Delta | Thought | Reset | Ended | Gone


class ReplyWatch(Resource):
    """Asks the store now and then which of the followed messages have ended, and wakes who follows them.

    So nobody hangs on a reply whose end could not be announced: with Redis away, or its worker dead.
    One statement a tick for the whole process.
    """

    def __init__(self, messages: Messages, *, seconds: float = 2.0) -> None:
        self._messages = messages
        self._seconds = seconds
        self._wakes: dict[MessageId, list[Callable[[], None]]] = {}
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Messages that are followed."""
        return len(self._wakes)

    async def start(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @contextmanager
    def of(self, message_id: MessageId, wake: Callable[[], None]) -> Iterator[None]:
        """Have `wake` called from time to time once the message has ended."""
        wakes = self._wakes.setdefault(message_id, [])
        wakes.append(wake)
        try:
            yield
        finally:
            wakes.remove(wake)
            if not wakes:
                del self._wakes[message_id]

    async def look(self) -> None:
        """Raises DatabaseUnavailable."""
        if self._wakes:
            for message_id in await self._messages.ended(list(self._wakes)):
                for wake in self._wakes.get(message_id, ()):
                    wake()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self.look()
            except Unavailable:
                pass  # it will be back, and nobody learns anything without it
            except Exception:
                log.exception("reply_watch_failed")


class Following:
    """One reader's way through a reply, from `after` to its end."""

    def __init__(self, message: Message, look: Callable[[], Awaitable[Message]], reader: ReplyReader) -> None:
        self._message: Message | None = message
        self._look = look
        self._reader = reader
        self._floor = 0
        self.position = START
        #: Nothing is left to be read.
        self.has_ended = False

    def begin(self, after: StreamPosition) -> None:
        assert self._message is not None
        self.has_ended = self._message.status.is_final and after == _end(self._message)
        self.position = after if after.attempt else START

    async def read(self) -> Sequence[ReplyEvent]:
        """The next events, at least one; all that are there. None after the last.

        May be cancelled and called again: nothing is lost by it.
        """
        while not self.has_ended:
            if self._message is None:
                try:
                    self._message = await patiently(self._look)
                except MessageNotFound:
                    self.has_ended = True
                    return [Gone()]
            if self._message.status.is_final:
                self.has_ended = True
                return self._rest(self._message)
            # What an attempt has said that is over is void, though the stream may still have it.
            self._floor = self._message.attempt + (self._message.status is MessageStatus.QUEUED)
            pieces = await self._reader.read()
            if not pieces:
                self._message = None
            elif events := self._events(pieces):
                return events
        return []

    def _events(self, pieces: Sequence[ReplyPiece]) -> list[ReplyEvent]:
        events: list[ReplyEvent] = []
        for piece in pieces:
            if piece.position.attempt < self._floor:
                continue
            if piece.position.attempt > self.position.attempt:
                self._begin_attempt(piece.position.attempt, events)
            if piece.text:
                self.position = piece.position
                events.append(Delta(self.position, piece.text))
            elif piece.thought:
                events.append(Thought(piece.thought))
        return events

    def _rest(self, message: Message) -> list[ReplyEvent]:
        events: list[ReplyEvent] = []
        text = message.response or ""
        if self.position.attempt != message.attempt or self.position.characters > len(text):
            self._begin_attempt(message.attempt, events)
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
    """Follow a reply while it is written, from wherever the caller has got to, to its end.

    What the stream does not bring the store has in the end: the very same text, whatever was lost on
    the way. An `after` that nobody can have got to is answered with a reset and the whole reply.
    Raises MessageNotFound or DatabaseUnavailable at the beginning, and nothing after it.
    """

    messages: Messages
    stream: ReplyStream
    watch: ReplyWatch

    @asynccontextmanager
    async def __call__(
        self, *, user: User, chatroom_id: ChatroomId, message_id: MessageId, after: StreamPosition = START
    ) -> AsyncIterator[Following]:
        async def look() -> Message:
            return await self.messages.get(message_id, chatroom_id, user.id)

        async with self.stream.follow(message_id, after=after) as reader:
            with self.watch.of(message_id, reader.wake):
                following = Following(await look(), look, reader)
                following.begin(after)
                yield following


@dataclass(frozen=True, slots=True)
class AwaitReply:
    """Wait until the message has ended, `seconds` at most; returns it as it is then.

    Raises MessageNotFound, also when it is deleted meanwhile, or DatabaseUnavailable.
    """

    messages: Messages
    stream: ReplyStream
    watch: ReplyWatch

    async def __call__(self, *, user: User, chatroom_id: ChatroomId, message_id: MessageId, seconds: float) -> Message:
        give_up = asyncio.get_running_loop().time() + seconds
        async with self.stream.follow(message_id, after=_NO_PIECES) as reader:
            with self.watch.of(message_id, reader.wake):
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
    return StreamPosition(message.attempt, _ENDLESS if message.response is None else len(message.response) + 1)
