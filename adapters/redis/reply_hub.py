"""Reading replies: one hub per process, which listens on one connection for all readers.

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

from adapters.redis.reply_reader import Reader, Topic
from adapters.redis.subscription import Subscription
from adapters.redis_causes import cause_of
from adapters.redis_clients import Demoted
from application.patience import Backoff
from application.ports.chat import ReplyReader
from domain.chat.streams import ReplyPiece, StreamPosition

log = structlog.get_logger(__name__)

FIELD = "t"
WAKE = b"wake"
#: Before the position and the text of a thought. No position begins with it, so older versions ignore them.
THOUGHT = b"thought"

_RANGE = 128  # pieces read at once from one stream; fewer than a queue takes
_STREAMS = 32  # read in one pipeline
_CHANNELS = 500  # in one SUBSCRIBE
_SAFETY_TICK = 0.1
_QUIET_SECONDS = 2.0  # of silence, after which the connection is pinged
_PAUSES = 0.05, 1.0  # seconds of a retry
_ROLE_SECONDS = 2.0  # between the questions whether the server is a replica by now


class Outage:
    """Logs an outage once, not at every try."""

    def __init__(self, part: str) -> None:
        self._part = part
        self.is_on = False

    def started(self, error: Exception) -> None:
        if not self.is_on:
            cause = cause_of(error).words
            log.warning("reply_stream_lost", part=self._part, error=type(error).__name__, cause=cause)
        self.is_on = True

    def ended(self) -> None:
        if self.is_on:
            log.info("reply_stream_back", part=self._part)
        self.is_on = False


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel the tasks, repeatedly if necessary: the client uses wait_for, which in 3.11 may swallow a cancellation."""
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=0.05)


class ReplyHub:
    def __init__(self, redis: Redis, *, command_seconds: float, safety_seconds: float) -> None:
        self._redis = redis
        self._command_seconds = command_seconds
        self._safety_seconds = safety_seconds
        self._quiet_seconds = min(_QUIET_SECONDS, safety_seconds)
        self._topics: dict[bytes, Topic] = {}
        self._subscription: Subscription | None = None
        self._changed: dict[bytes, None] = {}  # channels to subscribe to or unsubscribe from
        self._asked: set[bytes] = set()  # subscribed on this connection
        self._heard: set[bytes] = set()  # channels that the server has confirmed
        self._unread: dict[Topic, None] = {}
        self._checks: dict[Topic, float] = {}  # when to read to be safe, the earliest first
        self._next_check = 0.0
        self._next_role_check = 0.0
        self._wakeup = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._listening, self._reading = Outage("listening"), Outage("reading")

    @asynccontextmanager
    async def follow(self, key: str, after: StreamPosition) -> AsyncIterator[ReplyReader]:
        if not self._tasks and not self._closed:
            # In new contexts, since they work for all readers.
            self._tasks = [asyncio.create_task(work(), context=Context()) for work in (self._listen, self._maintain)]
        channel = key.encode()
        topic = self._topics.get(channel)
        if topic is None:
            topic = self._topics[channel] = Topic(channel)
            self._checks[topic] = asyncio.get_running_loop().time() + self._safety_seconds
            self._change(channel)
        reader = Reader(self.fetch, topic, after)
        topic.readers.add(reader)
        try:
            yield reader
        finally:  # awaits nothing, so that a cancellation can leave it
            topic.readers.discard(reader)
            if not topic.readers:
                del self._topics[channel], self._checks[topic]
                self._unread.pop(topic, None)
                self._change(channel)

    def fetch(self, topic: Topic) -> None:
        """Read the stream for the waiting readers, at the latest when its subscription is confirmed."""
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
                async with self._subscribed(backoff) as subscription:
                    await subscription.keep(self._quiet_seconds)
            except Exception as error:  # noqa: BLE001 - Redis fails in many shapes; none ends the hub
                self._listening.started(error)
                await asyncio.sleep(backoff.jittered())

    @asynccontextmanager
    async def _subscribed(self, backoff: Backoff) -> AsyncIterator[Subscription]:
        def handle(message: list[Any]) -> None:
            backoff.reset()
            self._handle(message)

        pool = self._redis.connection_pool
        async with asyncio.timeout(self._command_seconds):
            connection: AbstractConnection = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            self._subscription = Subscription(connection, handle)
            self._changed = dict.fromkeys(self._topics)
            self._wakeup.set()
            yield self._subscription
        finally:
            self._subscription = None
            self._asked.clear()
            self._heard.clear()
            await connection.disconnect(nowait=True)
            await pool.release(connection)

    def _handle(self, message: list[Any]) -> None:
        kind, channel = message[:2]
        if kind == b"message":
            if topic := self._topics.get(channel):
                self._take(topic, message[2])
        elif kind == b"unsubscribe":
            self._heard.discard(channel)
        elif kind == b"subscribe":
            self._listening.ended()
            self._heard.add(channel)
            if topic := self._topics.get(channel):
                self._begin(topic)

    def _take(self, topic: Topic, data: bytes) -> None:
        is_missing = False
        if data == WAKE:
            for reader in topic.readers:
                is_missing |= reader.wake_after_pieces()
        elif piece := _published(data):
            if topic.published_during_read is not None:
                topic.published_during_read.append(piece)
            for reader in topic.readers:
                is_missing |= reader.offer(piece)
        elif thought := _thought(data):
            for reader in topic.readers:
                reader.offer_thought(thought)
        if is_missing:
            self.fetch(topic)

    def _begin(self, topic: Topic) -> None:
        """Its channel is subscribed now; what was published before must be read."""
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
                self._subscribe()
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
        """Have the due topics read, but few at once, which spreads them out from then on."""
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

    def _subscribe(self) -> None:
        while self._changed and self._subscription:
            channels = list(islice(self._changed, _CHANNELS))
            for channel in channels:
                del self._changed[channel]
            wanted = [channel for channel in channels if channel in self._topics and channel not in self._asked]
            unwanted = [channel for channel in channels if channel not in self._topics and channel in self._asked]
            self._asked.update(wanted)
            self._asked.difference_update(unwanted)
            if wanted:
                self._subscription.send(b"SUBSCRIBE", *wanted)
            if unwanted:
                self._subscription.send(b"UNSUBSCRIBE", *unwanted)

    async def _read(self) -> None:
        topics = list(islice(self._unread, _STREAMS))
        for topic in topics:
            del self._unread[topic]
        starts = [(topic, start) for topic in topics if (start := topic.oldest()) is not None]
        if not starts:
            return
        pipeline = self._redis.pipeline(transaction=False)
        covered: list[list[Reader]] = []
        for topic, start in starts:
            pipeline.xrange(topic.key, min=f"({start}", count=_RANGE)
            covered.append([reader for reader in topic.readers if reader.end >= start])
            topic.published_during_read = []
        asks_role = self._role_is_due()
        if asks_role:
            pipeline.execute_command("HELLO")
        try:
            async with asyncio.timeout(self._command_seconds):
                replies: list[Any] = await pipeline.execute(raise_on_error=False)
            if asks_role and _is_replica(replies.pop()):
                # We only read, so nothing else tells us: writers may have gone to another server long ago.
                await self._redis.connection_pool.disconnect(inuse_connections=False)
                if self._subscription:
                    self._subscription.close()
                raise Demoted("the server is a replica")
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

    def _role_is_due(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now < self._next_role_check:
            return False
        self._next_role_check = now + _ROLE_SECONDS
        return True

    def _deliver(self, topic: Topic, covered: list[Reader], entries: Sequence[Any]) -> None:
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
        # A covered reader that still misses a piece waits for the store: the stream does not have it.
        known = set(covered) if is_all else set()
        if any(reader.behind and reader.is_waiting and reader not in known for reader in topic.readers):
            self.fetch(topic)


def _is_replica(hello: Any) -> bool:
    """HELLO needs no permission. A proxy may not know it."""
    if not isinstance(hello, list):
        return False
    fields = dict(zip(hello[::2], hello[1::2], strict=False))
    return fields.get(b"role") == b"replica"


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
    """None for an entry that our writers did not write."""
    try:
        parsed = StreamPosition.parse(position.decode())
        return ReplyPiece(parsed, text.decode(errors="surrogatepass")) if parsed else None
    except UnicodeDecodeError:
        return None
