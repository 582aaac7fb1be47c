"""Replies while they are written: one Redis stream per message, and a channel of the same name.

An entry's id is the position at which its text ends, `<attempt>-<characters>`, so it orders pieces,
shows gaps and fences earlier attempts, all in one. Writers are here, readers in reply_hub.py.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import Context
from itertools import islice
from typing import Any

from redis.asyncio import Redis

from adapters.redis.reply_hub import FIELD, THOUGHT, WAKE, Outage, ReplyHub, end
from adapters.redis_clients import redis_client
from application.patience import Backoff
from application.ports.chat import ReplyReader, ReplyStream, ReplyWriter
from domain.chat.streams import START, StreamPosition
from domain.ids import MessageId

_BATCH = 256  # streams in one pipeline: packing more would block the loop
_LIFETIME_MS = 600_000
_MAX_ENTRIES = 4_096  # more than the longest reply has, at 20 a second
_MAX_THOUGHT = 16_384  # characters that wait for a flush
_PAUSES = 0.05, 1.0  # seconds of a retry
_FENCED = -1

# Appends a piece if it begins where the stream ends. Returns how many characters of the attempt the
# stream has now, so that a writer whose last call ended unknown, or whose stream was lost, learns where to
# continue. One script, so that a refused piece is not published.
# ARGV[5] is where the attempt begins, 0 by default. A thought, ARGV[6], is only published, for connected readers.
_APPEND = f"""
local key, attempt, start, ends, text = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local kept = tonumber(ARGV[5] or '0')
local newest, holder, held = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1], 0, 0
if newest then
  holder, held = string.match(newest[1], '(%d+)-(%d+)')
  holder, held = tonumber(holder), tonumber(held)
end
if holder > attempt then
  return {_FENCED}
end
if holder < attempt then
  if start > kept then
    return kept
  end
  local id = ARGV[1] .. '-' .. kept
  redis.call('XADD', key, 'MINID', id, id, '{FIELD}', '')
  redis.call('PUBLISH', key, id .. ' ')
  held = kept
end
if ARGV[6] then
  redis.call('PUBLISH', key, '{THOUGHT.decode()} ' .. ARGV[1] .. '-' .. held .. ' ' .. ARGV[6])
end
if ends > held and start == held then
  local id = ARGV[1] .. '-' .. ARGV[3]
  redis.call('XADD', key, 'MAXLEN', '~', {_MAX_ENTRIES}, id, '{FIELD}', text)
  redis.call('PUBLISH', key, id .. ' ' .. text)
  held = ends
end
redis.call('PEXPIRE', key, {_LIFETIME_MS})
return held
"""
_APPEND_SHA = hashlib.sha1(_APPEND.encode(), usedforsecurity=False).hexdigest()


class RedisReplyStream(ReplyStream):
    """At most three connections: one writes, one reads, one listens.

    Pieces wait `flush_seconds` for others, to go together; what is followed is read every `safety_seconds`.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str,
        command_seconds: float,
        flush_seconds: float = 0.05,
        safety_seconds: float = 5.0,
    ) -> None:
        self._prefix = f"{namespace}:reply"
        # A separate pool, so that neither waits for the other.
        self._redis = redis_client(url, command_seconds=command_seconds, max_connections=3)
        self._flusher = _Flusher(self._redis, command_seconds=command_seconds, flush_seconds=flush_seconds)
        self._hub = ReplyHub(self._redis, command_seconds=command_seconds, safety_seconds=safety_seconds)

    async def start(self) -> None:
        """Connects at the first write or read."""

    async def close(self) -> None:
        await self._flusher.close()
        await self._hub.close()
        await self._redis.aclose(close_connection_pool=True)

    def write(self, message_id: MessageId, attempt: int, *, kept: int = 0) -> ReplyWriter:
        writer = _Writer(self._flusher, self._key(message_id), attempt, kept)
        self._flusher.mark(writer, at_once=attempt > 1)  # there may be readers of an earlier one
        return writer

    def follow(
        self, message_id: MessageId, *, after: StreamPosition = START
    ) -> AbstractAsyncContextManager[ReplyReader]:
        return self._hub.follow(self._key(message_id), after)

    async def wake(self, message_id: MessageId) -> None:
        await self._flusher.wake(self._key(message_id))

    def _key(self, message_id: MessageId) -> str:
        return f"{self._prefix}:{message_id}"


class _Writer(ReplyWriter):
    """Keeps the attempt's whole text: the stream may lose it at any time and is then written again."""

    def __init__(self, flusher: _Flusher, key: str, attempt: int, kept: int) -> None:
        self.key = key
        self.attempt = attempt
        self.kept = kept
        self.text = ""
        self.thoughts = ""
        self.begun = False
        self.sent = 0
        self.closed = False
        self.discarded = False
        self.settled = asyncio.Event()
        self._flusher = flusher

    @property
    def pending(self) -> bool:
        return not self.discarded and (not self.begun or self.sent < len(self.text) or bool(self.thoughts))

    def add(self, text: str) -> None:
        if self.closed or self.discarded or not text:
            return
        is_first = not self.text
        self.text += text
        self._flusher.mark(self, at_once=is_first)

    def thought(self, text: str) -> None:
        if not self.closed and not self.discarded and text:
            self.thoughts = (self.thoughts + text)[:_MAX_THOUGHT]
            self._flusher.mark(self)

    def arguments(self) -> list[str | int | bytes]:
        """The script's arguments. A thought is sent once; if that fails, it is lost."""
        start, ends = self.kept + self.sent, self.kept + len(self.text)
        # A reply that was cut between two surrogates must not stop other replies.
        piece = self.text[self.sent :].encode(errors="surrogatepass")
        arguments: list[str | int | bytes] = [self.attempt, start, ends, piece]
        if self.kept or self.thoughts:
            arguments.append(self.kept)
        if self.thoughts:
            arguments.append(self.thoughts.encode(errors="surrogatepass"))
            self.thoughts = ""
        return arguments

    async def close(self) -> None:
        self.closed = True
        tries_on = self.pending and await self._flusher.finish(self)
        if not (tries_on and self.pending):
            self.discard()

    def acknowledge(self, characters: int) -> None:
        """The stream has this much of the attempt."""
        if characters == _FENCED:
            self.discard()
        else:
            sent = characters - self.kept
            self.begun, self.sent = sent > 0 or self.sent == 0, sent
        if not self.pending:
            self.settled.set()

    def discard(self) -> None:
        """Send nothing more, and keep nothing."""
        self.discarded, self.text, self.thoughts = True, "", ""


class _Flusher:
    """One task that sends the pieces of all writers in this process, in one pipeline per tick."""

    def __init__(self, redis: Redis, *, command_seconds: float, flush_seconds: float) -> None:
        self._redis = redis
        self._command_seconds = command_seconds
        self._flush_seconds = flush_seconds
        self._dirty: dict[_Writer, None] = {}  # wait for the tick
        self._ready: dict[_Writer, None] = {}  # go with the next flush
        self._wakeups: dict[asyncio.Event, str] = {}
        self._wakeup = asyncio.Event()
        self._tick: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._outage = Outage("writing")
        self._closed = False

    def mark(self, writer: _Writer, *, at_once: bool = False) -> None:
        """The writer has something to send."""
        if self._closed:
            return
        if at_once:
            self._dirty.pop(writer, None)
            self._ready[writer] = None
            self._notify()
        elif writer not in self._ready:
            self._dirty[writer] = None
            if self._tick is None:
                self._tick = asyncio.get_running_loop().call_later(self._flush_seconds, self._ticked)

    async def finish(self, writer: _Writer) -> bool:
        """False if trying on is useless: in an outage, waiting writers would pile up."""
        writer.settled.clear()
        self.mark(writer, at_once=True)
        await self._wait_for(writer.settled)
        return not self._outage.is_on

    async def wake(self, key: str) -> None:
        if self._closed:
            return
        for writer in [writer for writer in self._dirty if writer.key == key]:
            self.mark(writer, at_once=True)
        sent = asyncio.Event()
        self._wakeups[sent] = key
        self._notify()
        try:
            await self._wait_for(sent)
        finally:
            self._wakeups.pop(sent, None)

    async def close(self) -> None:
        self._closed = True
        if self._tick:
            self._tick.cancel()
        if self._task:
            await end([self._task])

    async def _wait_for(self, event: asyncio.Event) -> None:
        if not self._closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._command_seconds):
                    await event.wait()

    def _ticked(self) -> None:
        self._tick = None
        self._ready.update(self._dirty)
        self._dirty.clear()
        self._notify()

    def _notify(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(
                self._run(), context=Context()
            )  # a new context, since it works for all writers
        self._wakeup.set()

    async def _run(self) -> None:
        backoff = Backoff(*_PAUSES)
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            while self._ready or self._wakeups:
                if await self._flush():
                    backoff.reset()
                else:
                    await asyncio.sleep(backoff.jittered())

    async def _flush(self) -> bool:
        """False if nothing was sent; then everything is still pending."""
        batch = list(islice(self._ready, _BATCH))
        for writer in batch:
            del self._ready[writer]
        batch = [writer for writer in batch if writer.pending]
        later = {writer.key for writer in self._ready}
        wakeups = {sent: key for sent, key in self._wakeups.items() if key not in later}
        if not batch and not wakeups:
            return True
        try:
            async with asyncio.timeout(self._command_seconds):
                replies = await self._send(batch, wakeups)
        except Exception as error:  # noqa: BLE001 - Redis fails in many shapes; none ends the flusher
            replies = [error]
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        if errors and len(errors) == len(replies):
            self._ready.update(dict.fromkeys(batch))
            self._outage.started(errors[0])
            return False
        self._outage.ended()
        for sent in wakeups:
            self._wakeups.pop(sent, None)
            sent.set()
        for writer, reply in zip(batch, replies, strict=False):  # those of the wakeups come last
            if not isinstance(reply, Exception):
                writer.acknowledge(reply)
            if writer.pending:  # it was refused, or the stream has changed
                self.mark(writer)
        return True

    async def _send(self, batch: list[_Writer], wakeups: dict[asyncio.Event, str]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.script_load(_APPEND)  # each time: cheaper than to find out that a restarted server has discarded it
        for writer in batch:
            pipeline.evalsha(_APPEND_SHA, 1, writer.key, *writer.arguments())
        for key in wakeups.values():
            pipeline.publish(key, WAKE)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies[1:]
