"""Replies while they are written, in this process alone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from application.ports.chat import ReplyReader, ReplyStream, ReplyWriter
from domain.chat.streams import START, ReplyPiece, StreamPosition
from domain.ids import MessageId


class _Reader(ReplyReader):
    def __init__(self, after: StreamPosition) -> None:
        self._end = after
        self._queue: deque[ReplyPiece | None] = deque()  # None: check the store
        self._woken = False
        self._woken_up = asyncio.Event()

    async def read(self) -> Sequence[ReplyPiece]:
        while not self._woken and not self._queue:
            self._woken_up.clear()
            await self._woken_up.wait()
        pieces: list[ReplyPiece] = []
        if self._woken:
            self._woken = False
            return pieces
        while self._queue and (piece := self._queue[0]):
            pieces.append(piece)
            self._queue.popleft()
        if not pieces:
            self._queue.popleft()
        return pieces

    def wake(self) -> None:
        self._woken = True
        self._woken_up.set()

    def offer(self, piece: ReplyPiece) -> None:
        if piece.position <= self._end:
            return
        if piece.position.attempt > self._end.attempt:
            if piece.text:  # its beginning was lost with the stream
                return
            self._queue = deque(None for queued in self._queue if queued is None)
        else:
            known = self._end.characters - piece.start
            if known < 0:  # what is before it was lost
                return
            piece = ReplyPiece(piece.position, piece.text[known:])
        self._queue.append(piece)
        self._end = piece.position
        self._woken_up.set()

    def offer_thought(self, thought: ReplyPiece) -> None:
        if thought.position == self._end:
            self._queue.append(thought)
            self._woken_up.set()

    def wake_after_pieces(self) -> None:
        self._queue.append(None)
        self._woken_up.set()


@dataclass(eq=False)
class _Reply:
    attempt: int = 0
    pieces: list[ReplyPiece] = field(default_factory=list)
    readers: set[_Reader] = field(default_factory=set)


class _Writer(ReplyWriter):
    """Keeps the attempt's whole text, as what is written may be lost."""

    def __init__(self, reply: _Reply, attempt: int, kept: int) -> None:
        self._reply = reply
        self._attempt = attempt
        self._kept = kept
        self._text = ""
        self._is_closed = False
        if attempt > reply.attempt:
            reply.attempt = attempt
            reply.pieces.clear()
            self._publish("")

    def add(self, text: str) -> None:
        if self._is_closed or not text or self._attempt < self._reply.attempt:
            return
        self._text += text
        if self._reply.attempt:
            self._publish(text)
        else:  # it has been lost
            self._reply.attempt = self._attempt
            for part in ("", self._text):
                self._publish(part)

    def thought(self, text: str) -> None:
        if not self._is_closed and text and self._attempt == self._reply.attempt:
            thought = ReplyPiece(StreamPosition(self._attempt, self._kept + len(self._text)), thought=text)
            for reader in self._reply.readers:
                reader.offer_thought(thought)

    async def close(self) -> None:
        self._is_closed = True

    def _publish(self, text: str) -> None:
        ends = self._kept + (len(self._text) if text else 0)
        piece = ReplyPiece(StreamPosition(self._attempt, ends), text)
        self._reply.pieces.append(piece)
        for reader in self._reply.readers:
            reader.offer(piece)


class MemoryReplyStream(ReplyStream):
    def __init__(self) -> None:
        self._replies: dict[MessageId, _Reply] = {}

    async def start(self) -> None:
        """There is nothing to open."""

    async def close(self) -> None:
        for reply in self._replies.values():
            for reader in reply.readers:
                reader.wake()

    def write(self, message_id: MessageId, attempt: int, *, kept: int = 0) -> ReplyWriter:
        return _Writer(self._reply(message_id), attempt, kept)

    def follow(
        self, message_id: MessageId, *, after: StreamPosition = START
    ) -> AbstractAsyncContextManager[ReplyReader]:
        return self._follow(self._reply(message_id), after)

    async def wake(self, message_id: MessageId) -> None:
        for reader in self._reply(message_id).readers:
            reader.wake_after_pieces()

    def lose_all(self) -> None:
        """As ten minutes after the last piece, or when Redis has lost its data."""
        for reply in self._replies.values():
            reply.attempt = 0
            reply.pieces.clear()

    @property
    def followed(self) -> int:
        """How many messages have readers."""
        return sum(bool(reply.readers) for reply in self._replies.values())

    @asynccontextmanager
    async def _follow(self, reply: _Reply, after: StreamPosition) -> AsyncIterator[ReplyReader]:
        reader = _Reader(after)
        for piece in reply.pieces:
            reader.offer(piece)
        reply.readers.add(reader)
        try:
            yield reader
        finally:
            reply.readers.discard(reader)

    def _reply(self, message_id: MessageId) -> _Reply:
        return self._replies.setdefault(message_id, _Reply())
