"""Replies: what a worker does with a message, and how no message is forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from traceback import format_tb
from typing import TypeVar

from application.chat.asking import AskModel
from application.ports.chat import JobQueue, Messages
from application.ports.runtime import Clock
from domain.chat import (
    MAX_WINDOW_MESSAGES,
    Message,
    MessageStatus,
    Outcome,
    RetryPolicy,
    conversation_window,
)
from domain.errors import GenerationFailed, ModelDeferred, ModelError, Unavailable, WorkersDied
from domain.ids import MessageId

log = logging.getLogger(__name__)

T = TypeVar("T")


class LeaseLost(Exception):
    """Somebody else has the message now; whatever we have of it is void."""


class Leases:
    """The leases that this process holds, renewed together by one statement."""

    def __init__(self, messages: Messages, lease: timedelta) -> None:
        self._messages = messages
        self._lease = lease
        self._held: dict[MessageId, tuple[int, asyncio.Task[object]]] = {}
        self._lost: set[asyncio.Task[object]] = set()

    @asynccontextmanager
    async def hold(self, message: Message) -> AsyncIterator[None]:
        """Keep the message's lease alive inside the block; LeaseLost ends the block when it is gone."""
        task = asyncio.current_task()
        assert task is not None
        self._held[message.id] = (message.attempt, task)
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._lost:
                raise
            task.uncancel()
            raise LeaseLost from None
        finally:
            self._lost.discard(task)
            # Another attempt of this very process may have taken the entry over.
            if self._held.get(message.id) == (message.attempt, task):
                del self._held[message.id]

    async def renew(self) -> None:
        """Renew all; whoever has lost theirs is stopped.

        Raises DatabaseUnavailable: if it stays away others take over, and the fencing token sorts it out.
        """
        held = dict(self._held)
        if not held:
            return
        kept = await self._messages.extend(
            [(message_id, attempt) for message_id, (attempt, _) in held.items()], lease=self._lease
        )
        for message_id in held.keys() - kept:
            if self._held.get(message_id) == held[message_id]:
                task = held[message_id][1]
                self._lost.add(task)
                task.cancel()


class Suspects:
    """This process's one place for a message that may be poison. Who finds it taken is rung for afterwards."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: dict[MessageId, None] = {}  # in order, each once

    def enter(self, message_id: MessageId) -> bool:
        if self._taken:
            self._waiting[message_id] = None
            return False
        self._taken = True
        self._waiting.pop(message_id, None)
        return True

    def leave(self) -> MessageId | None:
        """The next to ring for, if any."""
        self._taken = False
        following = next(iter(self._waiting), None)
        if following is not None:
            del self._waiting[following]
        return following


@dataclass(frozen=True, slots=True)
class GenerateReply:
    """Answer one message: claim it, ask the model, store how it ended.

    Returns the state in which this call left the message, or None if it was not ours to answer:
    a job may come twice or late, and only the claim decides. Killed at any point, the lease runs
    out and another worker takes the message. Cancelled, it is handed back at once.

    A message that was there when two workers died may be what killed them. It is answered while this
    process answers no other such message, so that its third death is nobody else's.
    """

    messages: Messages
    ask_model: AskModel
    queue: JobQueue
    leases: Leases
    clock: Clock
    policy: RetryPolicy
    lease: timedelta
    suspects: Suspects

    async def __call__(self, *, message_id: MessageId) -> MessageStatus | None:
        message = await self.messages.claim(message_id, lease=self.lease)
        if message is not None:
            return await self._work(message)
        if not await self.messages.is_suspect(message_id) or not self.suspects.enter(message_id):
            return None
        try:
            message = await self.messages.claim(message_id, lease=self.lease, alone=True)
            return None if message is None else await self._work(message)
        finally:
            if following := self.suspects.leave():
                await self.queue.ring([following])

    async def _work(self, message: Message) -> MessageStatus | None:
        try:
            async with self.leases.hold(message):
                return await self._answer(message)
        except LeaseLost:
            return None
        except asyncio.CancelledError:
            await self.messages.release(message.id, message.attempt)
            await self.queue.ring([message.id])
            raise

    async def _answer(self, message: Message) -> MessageStatus | None:
        try:
            if self.policy.is_poison(message):
                raise WorkersDied
            earlier = await _patiently(lambda: self.messages.before(message, limit=MAX_WINDOW_MESSAGES - 1))
            outcome = await self.ask_model(conversation_window(message, earlier))
        except ModelError as error:
            return await self._fail(message, error)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not be taken for a dead worker
            # Where, not what: an exception's text may quote the conversation.
            log.error("attempt_failed: %s\n%s", type(error).__name__, "".join(format_tb(error.__traceback__)))
            return await self._fail(message, GenerationFailed())
        held = await _patiently(lambda: self.messages.finish(message.id, message.attempt, outcome))
        return outcome.status if held else None

    async def _fail(self, message: Message, error: ModelError) -> MessageStatus | None:
        seconds = self.policy.delay(message, error, self.clock.now())
        if seconds is None:
            outcome = Outcome.of_error(error)
            held = await _patiently(lambda: self.messages.finish(message.id, message.attempt, outcome))
            return outcome.status if held else None
        put_back = self.messages.release if isinstance(error, ModelDeferred) else self.messages.retry
        delay = timedelta(seconds=seconds)
        held = await _patiently(lambda: put_back(message.id, message.attempt, delay=delay))
        return MessageStatus.QUEUED if held else None


async def _patiently(step: Callable[[], Awaitable[T]]) -> T:
    """Until the database is back: its outage must cost no reply. The fencing token sorts out who was too late."""
    pause = 0.1
    while True:
        try:
            return await step()
        except Unavailable:
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)


@dataclass(frozen=True, slots=True)
class RecoverReplies:
    """Ring for every message that waits without a bell: left by a dead worker, never rung for, or due again.

    Every worker does this every few seconds; there is no leader. The bell spreads what one worker
    left over all the others. Returns the messages that could not be rung for because Redis is away:
    whoever found them should answer them, as far as it has places.
    """

    messages: Messages
    queue: JobQueue
    quiet: timedelta
    batch: int = 500

    async def __call__(self) -> list[MessageId]:
        # Looked for again sooner than the others: whoever was rung for them may have died, too.
        unrung = await self.messages.take_abandoned(limit=self.batch, quiet=self.quiet / 4)
        while True:
            found = await self.messages.take_unrung(limit=self.batch, quiet=self.quiet)
            unrung += found
            if unrung and not await self.queue.ring(unrung):
                return unrung
            if len(found) < self.batch:
                return []
            unrung = []
