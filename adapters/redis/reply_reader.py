"""One reader of a reply: the pieces that wait for it, and whether the stream has more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from application.ports.chat import ReplyReader
from domain.chat.streams import ReplyPiece, StreamPosition

_QUEUE = 256  # pieces that wait for one reader


class Topic:
    """A message that is followed, with its readers in this process."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.readers: set[Reader] = set()
        self.published_during_read: list[ReplyPiece] | None = None
        """What was published while the stream is being read, since the answer may not have it."""

    def oldest(self) -> StreamPosition | None:
        """Where to read from for the waiting readers; a slow reader that does not ask has time."""
        return min((reader.end for reader in self.readers if reader.is_waiting or not reader.behind), default=None)


class Reader(ReplyReader):
    def __init__(self, fetch: Callable[[Topic], None], topic: Topic, after: StreamPosition) -> None:
        self.end = after
        """The end of the queued pieces."""
        self.behind = True
        """There may be more in the stream than in the queue."""
        self._read_to = after
        self._fetch = fetch
        self._topic = topic
        self._queue: list[ReplyPiece | None] = []  # None: check the store. Mostly empty, and a deque is 700 bytes
        self._wake_later = False
        self._woken = False
        self._waiter: asyncio.Future[None] | None = None

    async def read(self) -> Sequence[ReplyPiece]:
        while True:
            if self._woken:
                self._woken = False
                return ()
            if self._queue:
                return self._take()
            if self.behind:
                self._fetch(self._topic)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def wake(self) -> None:
        self._woken = True
        self._notify()

    @property
    def is_waiting(self) -> bool:
        return self._waiter is not None and not self._queue

    def offer(self, piece: ReplyPiece) -> bool:
        """Queue the new part of a piece. True if a piece before it is missing, which was not known yet."""
        end, position, start = self.end, piece.position, piece.start
        if position.attempt != end.attempt or start != end.characters or not piece.text:  # it does not just go on
            if position <= end:
                return False
            if position.attempt > end.attempt:
                if piece.text:  # its beginning is missing
                    return self._fall_behind()
                self._drop_pieces()
            elif start > end.characters:
                return self._fall_behind()
            else:
                piece = ReplyPiece(position, piece.text[end.characters - start :])
        if len(self._queue) >= _QUEUE:  # a slow reader: better to fetch this later than to keep it
            self._drop_pieces()
            self._wake_later, self.end = self._wake_later or bool(self._queue), self._read_to
            self._queue.clear()
            return self._fall_behind()
        self._queue.append(piece)
        self.end = position
        self._notify()
        return False

    def offer_thought(self, thought: ReplyPiece) -> None:
        """Queue a thought in its place, or drop it: it is not worth waiting for."""
        if thought.position == self.end and len(self._queue) < _QUEUE:
            self._queue.append(thought)
            self._notify()

    def wake_after_pieces(self) -> bool:
        """Wake it after all published pieces. True if those must be fetched first."""
        if self.behind:
            self._wake_later = True
            return self.is_waiting
        self._queue_wake()
        return False

    def caught_up(self) -> None:
        """The whole stream was offered, whether it fitted or not."""
        if self._wake_later:
            self._queue_wake()

    def _take(self) -> Sequence[ReplyPiece]:
        if self._queue[0] is None:
            del self._queue[0]
            return ()
        pieces: list[ReplyPiece] = []
        for piece in self._queue:
            if piece is None:
                break
            pieces.append(piece)
        del self._queue[: len(pieces)]
        self._read_to = pieces[-1].position
        return pieces

    def _fall_behind(self) -> bool:
        already, self.behind = self.behind, True
        return not already and self.is_waiting

    def _drop_pieces(self) -> None:
        wakes = [None] if None in self._queue else []
        self._queue.clear()
        self._queue.extend(wakes)

    def _queue_wake(self) -> None:
        self._wake_later = False
        if not self._queue or self._queue[-1] is not None:
            self._queue.append(None)
        self._notify()

    def _notify(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)
