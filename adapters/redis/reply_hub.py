"""Readers of replies: one hub a process, which listens on one connection for all of them.

What is published carries its text, so a reader that keeps up costs Redis nothing but the message.
The stream itself is read when somebody joins, has missed something or fell behind, when the
connection was lost, and now and then to be safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from itertools import islice
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection

from application.patience import Backoff
from application.ports.chat import ReplyReader
from domain.chat.streams import ReplyPiece, StreamPosition

log = structlog.get_logger(__name__)

FIELD = "t"
WAKE = b"wake"
#: Before the position and the text of a thought. No position begins with it, so older versions ignore them.
THOUGHT = b"thought"

_QUEUE = 256  # pieces that wait for one reader
_RANGE = 128  # pieces read at once from one stream; fewer than a queue takes
_STREAMS = 32  # read in one pipeline
_CHANNELS = 500  # in one SUBSCRIBE
_SAFETY_TICK = 0.1
_QUIET_SECONDS = 2.0  # without a word before the connection is asked whether it lives
_FAIR_SHARE = 64  # messages handled before others may use the loop: reading what has arrived never waits
_PAUSES = 0.05, 1.0  # seconds of a retry


class Outage:
    """Tells of an outage once, not at every try."""

    def __init__(self, part: str) -> None:
        self._part = part
        self.is_on = False

    def started(self, error: Exception) -> None:
        if not self.is_on:
            log.warning("reply_stream_lost", part=self._part, error=type(error).__name__)
        self.is_on = True

    def ended(self) -> None:
        if self.is_on:
            log.info("reply_stream_back", part=self._part)
        self.is_on = False


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel them, more than once if need be: the client sends within wait_for, which in 3.11 may swallow it."""
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=0.05)


class _Topic:
    """A message that is followed, with all who follow it here."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.readers: set[_Reader] = set()
        self.published_during_read: list[ReplyPiece] | None = None
        """What was published while the stream is being read: it may be too late for the answer."""

    def oldest(self) -> StreamPosition | None:
        """Where to read from, for those who wait; one who is slow and does not ask has time."""
        return min((r.end for r in self.readers if r.is_waiting or not r.behind), default=None)


class _Reader(ReplyReader):
    def __init__(self, hub: ReplyHub, topic: _Topic, after: StreamPosition) -> None:
        self.end = after
        """Of what is queued."""
        self.behind = True
        """There may be more in the stream than in the queue."""
        self._read_to = after
        self._hub = hub
        self._topic = topic
        self._queue: list[ReplyPiece | None] = []  # None: look at the store. Empty mostly, and a deque is 700 bytes
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
                self._hub.fetch(self._topic)
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
        """Queue it, or what is new of it. True if something before it is missing, which was not known yet."""
        end, position = self.end, piece.position
        if position <= end:
            return False
        if position.attempt > end.attempt:
            if piece.text:  # its beginning is missing
                return self._fall_behind()
            self._drop_pieces()
        elif piece.start != end.characters:
            if piece.start > end.characters:
                return self._fall_behind()
            piece = ReplyPiece(position, piece.text[end.characters - piece.start :])
        if len(self._queue) >= _QUEUE:  # nobody reads: better to fetch it again one day than to keep it
            self._drop_pieces()
            self._wake_later, self.end = self._wake_later or bool(self._queue), self._read_to
            self._queue.clear()
            return self._fall_behind()
        self._queue.append(piece)
        self.end = position
        self._notify()
        return False

    def pass_on(self, thought: ReplyPiece) -> None:
        """Queue it in its place or not at all: it is not worth waiting for."""
        if thought.position == self.end and len(self._queue) < _QUEUE:
            self._queue.append(thought)
            self._notify()

    def look_at_store(self) -> bool:
        """Have it woken after all that was published. True if that must be fetched first."""
        if self.behind:
            self._wake_later = True
            return self.is_waiting
        self._queue_wake()
        return False

    def caught_up(self) -> None:
        """All that the stream has was offered, whether it fitted or not."""
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


class ReplyHub:
    def __init__(self, redis: Redis, *, command_seconds: float, safety_seconds: float) -> None:
        self._redis = redis
        self._command_seconds = command_seconds
        self._safety_seconds = safety_seconds
        self._quiet_seconds = min(_QUIET_SECONDS, safety_seconds)
        self._topics: dict[bytes, _Topic] = {}
        self._connection: AbstractConnection | None = None
        self._changed: dict[bytes, None] = {}  # channels to subscribe to, or no longer
        self._asked: set[bytes] = set()  # of this connection
        self._heard: set[bytes] = set()  # those that it has confirmed
        self._unread: dict[_Topic, None] = {}
        self._checks: dict[_Topic, float] = {}  # when to read to be safe, the next one first
        self._next_check = 0.0
        self._wakeup = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._listening, self._reading = Outage("listening"), Outage("reading")

    @asynccontextmanager
    async def follow(self, key: str, after: StreamPosition) -> AsyncIterator[ReplyReader]:
        if not self._tasks and not self._closed:
            # In contexts of their own: they work for others, too.
            self._tasks = [asyncio.create_task(work(), context=Context()) for work in (self._listen, self._maintain)]
        channel = key.encode()
        topic = self._topics.get(channel)
        if topic is None:
            topic = self._topics[channel] = _Topic(channel)
            self._checks[topic] = asyncio.get_running_loop().time() + self._safety_seconds
            self._change(channel)
        reader = _Reader(self, topic, after)
        topic.readers.add(reader)
        try:
            yield reader
        finally:  # nothing to wait for, so that it can be left by cancellation
            topic.readers.discard(reader)
            if not topic.readers:
                del self._topics[channel], self._checks[topic]
                self._unread.pop(topic, None)
                self._change(channel)

    def fetch(self, topic: _Topic) -> None:
        """Read the stream for those who wait for it; if nothing is heard of it yet, then when it is."""
        if topic.key in self._heard:
            self._unread[topic] = None
            self._wakeup.set()

    async def close(self) -> None:
        self._closed = True
        await end(self._tasks)
        for topic in self._topics.values():
            for reader in topic.readers:
                reader.wake()

    # --- listening ---

    async def _listen(self) -> None:
        backoff = Backoff(*_PAUSES)
        while True:
            try:
                async with self._connected() as connection:
                    async for message in self._messages(connection):
                        backoff.reset()
                        self._handle(message)
            except Exception as error:  # noqa: BLE001 - Redis fails in many shapes; none ends the hub
                self._listening.started(error)
                await asyncio.sleep(backoff.jittered())

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AbstractConnection]:
        pool = self._redis.connection_pool
        async with asyncio.timeout(self._command_seconds):
            connection: AbstractConnection = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            self._connection = connection
            self._changed = dict.fromkeys(self._topics)
            self._wakeup.set()
            yield connection
        finally:
            self._connection = None
            self._asked.clear()
            self._heard.clear()
            await connection.disconnect(nowait=True)
            await pool.release(connection)

    async def _messages(self, connection: AbstractConnection) -> AsyncIterator[list[Any]]:
        """Ends by raising, when the connection does not answer either."""
        is_asked, handled = False, 0
        while True:
            message: Any = await connection.read_response(timeout=self._quiet_seconds, push_request=True)
            if message is None:
                if is_asked:
                    raise TimeoutError
                is_asked = True
                await connection.send_command("PING")
                continue
            is_asked = False
            if isinstance(message, list):
                yield message
            handled += 1
            if handled % _FAIR_SHARE == 0:
                await asyncio.sleep(0)

    def _handle(self, message: list[Any]) -> None:
        kind, channel, data = (*message, None, None)[:3]
        if kind == b"unsubscribe":
            self._heard.discard(channel)
            return
        topic = self._topics.get(channel) if channel else None
        if kind == b"subscribe":
            self._listening.ended()
            self._heard.add(channel)
            if topic:
                self._begin(topic)
        elif kind == b"message" and topic:
            if data == WAKE:
                missing = [reader.look_at_store() for reader in topic.readers]
            elif piece := _published(data):
                if topic.published_during_read is not None:
                    topic.published_during_read.append(piece)
                missing = [reader.offer(piece) for reader in topic.readers]
            else:
                if thought := _thought(data):
                    for reader in topic.readers:
                        reader.pass_on(thought)
                return
            if any(missing):
                self.fetch(topic)

    def _begin(self, topic: _Topic) -> None:
        """From now on it is heard; what came before must be read."""
        for reader in topic.readers:
            reader.behind = True
        if any(reader.is_waiting for reader in topic.readers):
            self.fetch(topic)

    # --- subscribing and reading ---

    async def _maintain(self) -> None:
        backoff = Backoff(*_PAUSES)
        while True:
            try:
                await self._until_needed()
                await self._subscribe()
                await self._read()
                backoff.reset()
            except Exception as error:  # noqa: BLE001 - as above
                self._reading.started(error)
                await asyncio.sleep(backoff.jittered())

    async def _until_needed(self) -> None:
        if not self._unread:
            wait = None
            if self._checks:
                wait = max(_SAFETY_TICK, next(iter(self._checks.values())) - asyncio.get_running_loop().time())
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wakeup.wait()
        self._wakeup.clear()
        self._check()

    def _check(self) -> None:
        """Have those read that it is time for, and not too many at once: then they are spread out ever after."""
        now = asyncio.get_running_loop().time()
        if now < self._next_check:
            return
        self._next_check = now + _SAFETY_TICK
        at_most = 1 + int(len(self._checks) * 2 * _SAFETY_TICK / self._safety_seconds)
        for topic in [topic for topic, due in islice(self._checks.items(), at_most) if due <= now]:
            del self._checks[topic]
            self._checks[topic] = now + self._safety_seconds
            self._unread[topic] = None

    def _change(self, channel: bytes) -> None:
        self._changed[channel] = None
        self._wakeup.set()

    async def _subscribe(self) -> None:
        while self._changed and self._connection:
            channels = list(islice(self._changed, _CHANNELS))
            for channel in channels:
                del self._changed[channel]
            wanted = [channel for channel in channels if channel in self._topics and channel not in self._asked]
            unwanted = [channel for channel in channels if channel not in self._topics and channel in self._asked]
            self._asked.update(wanted)
            self._asked.difference_update(unwanted)
            connection = self._connection
            if wanted:
                await connection.send_command("SUBSCRIBE", *wanted)
            if unwanted:
                await connection.send_command("UNSUBSCRIBE", *unwanted)

    async def _read(self) -> None:
        topics = list(islice(self._unread, _STREAMS))
        for topic in topics:
            del self._unread[topic]
        starts = [(topic, start) for topic in topics if (start := topic.oldest()) is not None]
        if not starts:
            return
        pipeline = self._redis.pipeline(transaction=False)
        covered: list[list[_Reader]] = []
        for topic, start in starts:
            pipeline.xrange(topic.key, min=f"({start}", count=_RANGE)
            covered.append([reader for reader in topic.readers if reader.end >= start])
            topic.published_during_read = []
        try:
            async with asyncio.timeout(self._command_seconds):
                replies: list[Any] = await pipeline.execute(raise_on_error=False)
            errors = [reply for reply in replies if isinstance(reply, Exception)]
            if len(errors) == len(replies):
                raise errors[0]
        except Exception:
            self._unread.update((topic, None) for topic, _ in starts if topic.readers)
            raise
        else:
            self._reading.ended()
            for (topic, _), readers, entries in zip(starts, covered, replies, strict=True):
                if not isinstance(entries, Exception):
                    self._deliver(topic, readers, entries)
        finally:
            for topic, _ in starts:
                topic.published_during_read = None

    def _deliver(self, topic: _Topic, covered: list[_Reader], entries: Sequence[Any]) -> None:
        is_all = len(entries) < _RANGE
        pieces = [*_stored(entries), *(topic.published_during_read or ())]
        if is_all:
            for reader in covered:
                reader.behind = False
        for piece in pieces:
            for reader in topic.readers:
                reader.offer(piece)
        if is_all:
            for reader in covered:
                reader.caught_up()
        # Who was covered and still misses something waits for the store: the stream does not have it.
        known = set(covered) if is_all else set()
        if any(reader.behind and reader.is_waiting and reader not in known for reader in topic.readers):
            self.fetch(topic)


def _published(data: bytes) -> ReplyPiece | None:
    position, _, text = data.partition(b" ")
    return _piece(position, text)


def _thought(data: bytes) -> ReplyPiece | None:
    prefix, _, rest = data.partition(b" ")
    position, _, text = rest.partition(b" ")
    piece = _piece(position, text) if prefix == THOUGHT else None
    return ReplyPiece(piece.position, thought=piece.text) if piece and piece.text else None


def _stored(entries: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> list[ReplyPiece]:
    pieces = (_piece(position, fields.get(FIELD.encode(), b"")) for position, fields in entries)
    return [piece for piece in pieces if piece]


def _piece(position: bytes, text: bytes) -> ReplyPiece | None:
    """None for what no writer of ours has written."""
    try:
        parsed = StreamPosition.parse(position.decode())
        return ReplyPiece(parsed, text.decode(errors="surrogatepass")) if parsed else None
    except UnicodeDecodeError:
        return None
