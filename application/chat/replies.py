"""Replies: what a worker does with a message, and how no message is forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from traceback import format_tb

from application.chat.model_calls import Call, CallModel, Stop
from application.chat.titles import SuggestTitle
from application.patience import retry_until_available
from application.ports.chat import MessageQueue, ReplyStream
from application.ports.runtime import Clock, JobQueue
from domain.chat.calls import ThinkingLevel
from domain.chat.conversation import MAX_WINDOW_EXCHANGES, Context, Conversation, conversation_window
from domain.chat.messages import Message, MessageStatus, Outcome
from domain.chat.retries import RetryPolicy
from domain.errors import GenerationFailed, ModelError, WorkerCrashed
from domain.ids import MessageId

log = logging.getLogger(__name__)

MAX_UNTITLED = 3
"""Replies of a chatroom after which no further title is asked for."""
_NO_CONTEXT = Context()


class LeaseLost(Exception):
    """Somebody else has the message now; whatever we have of it is void."""


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    attempt: int
    task: asyncio.Task[object]
    stop: Stop


class Leases:
    """The leases that this process holds, renewed together by one statement."""

    def __init__(self, messages: MessageQueue, lease: timedelta) -> None:
        self._messages = messages
        self._lease = lease
        self._held: dict[MessageId, _Held] = {}
        self._lost: set[asyncio.Task[object]] = set()

    @asynccontextmanager
    async def hold(self, message: Message, stop: Stop) -> AsyncIterator[None]:
        """Keep the message's lease alive inside the block; LeaseLost ends the block when it is gone.

        The stop is requested when somebody cancels the message.
        """
        task = asyncio.current_task()
        assert task is not None
        held = self._held[message.id] = _Held(message.attempt, task, stop)
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
            if self._held.get(message.id) is held:
                del self._held[message.id]

    async def renew(self) -> None:
        """Renew all; whoever has lost theirs is stopped.

        Raises DatabaseUnavailable: if it stays away others take over, and the fencing token sorts it out.
        """
        held = dict(self._held)
        if not held:
            return
        kept = await self._messages.extend(
            [(message_id, one.attempt) for message_id, one in held.items()], lease=self._lease
        )
        for message_id in held.keys() - kept:
            if self._held.get(message_id) is held[message_id]:
                task = held[message_id].task
                self._lost.add(task)
                task.cancel()

    async def stop_cancelled(self) -> None:
        """Stop the model for the messages that somebody has cancelled. Raises DatabaseUnavailable."""
        if self._held:
            for message_id in await self._messages.cancel_requested() & self._held.keys():
                self._held[message_id].stop.request()


class QuarantineSlot:
    """This process's one slot for a message that may be poison. A message that finds it taken is notified later."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: dict[MessageId, None] = {}  # in order, each once

    def acquire(self, message_id: MessageId) -> bool:
        if self._taken:
            self._waiting[message_id] = None
            return False
        self._taken = True
        self._waiting.pop(message_id, None)
        return True

    def release(self) -> MessageId | None:
        """The next message to notify of, if any."""
        self._taken = False
        following = next(iter(self._waiting), None)
        if following is not None:
            del self._waiting[following]
        return following


@dataclass(frozen=True, slots=True)
class _Left:
    """How an attempt left its message."""

    status: MessageStatus
    #: The message with its reply, if its chatroom still waits for a title.
    untitled: Message | None = None


@dataclass(frozen=True, slots=True)
class GenerateReply:
    """Answer one message: claim it, ask the model, pass on what it says, store how it ended.

    Returns the state in which this call left the message, or None if it was not ours to answer:
    a job may come twice or late, and only the claim decides. Killed at any point, the lease runs
    out and another worker takes the message. Cancelled, it is handed back at once.

    A message that was there when two workers died may be what killed them. It is answered while this
    process answers no other such message, so that its third death is nobody else's.
    """

    messages: MessageQueue
    call_model: CallModel
    stream: ReplyStream
    queue: JobQueue
    leases: Leases
    clock: Clock
    policy: RetryPolicy
    lease: timedelta
    quarantine: QuarantineSlot
    suggest_title: SuggestTitle
    #: What thoughts may take at each level.
    thought_tokens: Mapping[ThinkingLevel, int]
    #: What the model is told before every conversation, by whoever runs the service.
    instructions: str | None = None

    async def __call__(self, *, message_id: MessageId) -> MessageStatus | None:
        left = await self._attempt(message_id)
        if left is None:
            return None
        if left.status.is_final:  # and stored: who follows the message finds there what the stream did not bring
            await self.stream.wake(message_id)
        if left.untitled is not None:
            await self.suggest_title(message=left.untitled)
        return left.status

    async def _attempt(self, message_id: MessageId) -> _Left | None:
        message = await self.messages.claim(message_id, lease=self.lease)
        if message is not None:
            return await self._work(message)
        if not await self.messages.is_suspect(message_id) or not self.quarantine.acquire(message_id):
            return None
        try:
            message = await self.messages.claim(message_id, lease=self.lease, alone=True)
            return None if message is None else await self._work(message)
        finally:
            if following := self.quarantine.release():
                await self.queue.notify([following])

    async def _work(self, message: Message) -> _Left | None:
        call = Call(message.user_id, fresh=not message.failures and not message.deaths)
        try:
            async with self.leases.hold(message, call.stop):
                return await self._answer(message, call)
        except LeaseLost:
            if booked := call.booked(message):
                await retry_until_available(lambda: self.messages.book(booked))
            return None
        except asyncio.CancelledError:
            await self.messages.release(message.id, message.attempt, call=call.booked(message))
            await self.queue.notify([message.id])
            raise

    async def _answer(self, message: Message, call: Call) -> _Left | None:
        if message.cancel_requested:
            return await self._finish(message, Outcome(status=MessageStatus.CANCELLED), call)
        try:
            if self.policy.is_poison(message):
                raise WorkerCrashed
            context = await retry_until_available(
                lambda: self.messages.context(message, limit=MAX_WINDOW_EXCHANGES + 1)
            )
            outcome = await self._ask(message, self._conversation(message, context), call)
        except ModelError as error:
            return await self._fail(message, error, call)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not be taken for a dead worker
            # Where, not what: an exception's text may quote the conversation.
            log.error("attempt_failed: %s\n%s", type(error).__name__, "".join(format_tb(error.__traceback__)))
            return await self._fail(message, GenerationFailed(), call)
        return await self._finish(message, outcome, call, context)

    def _conversation(self, message: Message, context: Context) -> Conversation:
        thoughts = self.thought_tokens[message.thinking] if message.thinking else max(self.thought_tokens.values())
        return conversation_window(message, context, instructions=self.instructions, thought_tokens=thoughts)

    async def _ask(self, message: Message, conversation: Conversation, call: Call) -> Outcome:
        writer = self.stream.write(message.id, message.attempt, kept=message.kept_characters)
        try:
            return await self.call_model(conversation, call=call, writer=writer)
        finally:
            await writer.close()

    async def _finish(
        self, message: Message, outcome: Outcome, call: Call, context: Context = _NO_CONTEXT
    ) -> _Left | None:
        booked = call.booked(message)
        # The fencing token sorts out who was too late after an outage: it must cost no reply.
        if not await retry_until_available(
            lambda: self.messages.finish(message.id, message.attempt, outcome, call=booked)
        ):
            return None
        is_untitled = context.auto_title and len(context.earlier) < MAX_UNTITLED
        if outcome.status is MessageStatus.COMPLETED and is_untitled:
            return _Left(outcome.status, replace(message, response=message.in_all(outcome).response))
        return _Left(outcome.status)

    async def _fail(self, message: Message, error: ModelError, call: Call) -> _Left | None:
        if call.stop.requested:
            return await self._finish(message, Outcome(status=MessageStatus.CANCELLED), call)
        seconds = self.policy.delay(message, error, self.clock.now())
        if seconds is None:
            return await self._finish(message, Outcome.of_error(error), call)
        put_back = self.messages.retry if self.policy.is_failure(error) else self.messages.release
        delay, booked = timedelta(seconds=seconds), call.booked(message)
        held = await retry_until_available(lambda: put_back(message.id, message.attempt, delay=delay, call=booked))
        return _Left(MessageStatus.QUEUED) if held else None


@dataclass(frozen=True, slots=True)
class RecoverReplies:
    """Notify the workers of every message that waits: left by a dead worker, never notified of, or due again.

    Every worker does this every few seconds; there is no leader. Notifications spread what one worker left
    over all the others. Returns the messages of which nobody could be notified, because Redis is unavailable:
    the caller should answer them, as far as it has free slots.
    """

    messages: MessageQueue
    queue: JobQueue
    renotify_after: timedelta
    batch: int = 500

    async def __call__(self) -> list[MessageId]:
        # Looked for again sooner than the others: the worker that was notified may have died, too.
        unnotified = await self.messages.take_expired(limit=self.batch, notified_before=self.renotify_after / 4)
        while True:
            found = await self.messages.take_unnotified(limit=self.batch, notified_before=self.renotify_after)
            unnotified += found
            if unnotified and not await self.queue.notify(unnotified):
                return unnotified
            if len(found) < self.batch:
                return []
            unnotified = []
