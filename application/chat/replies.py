"""Replies: how a worker answers a message, and how lost messages are recovered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from traceback import format_tb

from application.chat.leases import LeaseLost, Leases
from application.chat.model_calls import Call, CallModel
from application.chat.quarantine import QuarantineSlot
from application.chat.titles import SuggestTitle
from application.patience import retry_until_available
from application.ports.chat import MessageQueue, ReplyStream
from application.ports.runtime import Clock, JobQueue
from domain.chat.calls import ThinkingLevel
from domain.chat.conversation import MAX_WINDOW_EXCHANGES, Context, conversation_window
from domain.chat.messages import Message, MessageStatus, Outcome
from domain.chat.queue import Worker
from domain.chat.retries import RetryPolicy
from domain.errors import GenerationFailed, ModelError, WorkerCrashed
from domain.ids import MessageId

log = logging.getLogger(__name__)

MAX_UNTITLED = 3
"""Replies in a chatroom after which no further title is suggested."""
_CANCELLED = Outcome(status=MessageStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class _AttemptResult:
    """The state in which an attempt left its message."""

    status: MessageStatus
    #: The message with its reply, if its chatroom still waits for a title.
    untitled: Message | None = None


@dataclass(frozen=True, slots=True)
class GenerateReply:
    """Answer one message: claim it, call the model, stream its reply, and store the outcome.

    Returns the state in which this call left the message, or None if it was not ours to answer:
    a job may come twice or late, and only the claim decides. If this process is killed at any point,
    its lease expires and another worker takes the message. If it is cancelled, the message is returned
    at once.

    A message that was there when two workers died may have killed them. It is answered in quarantine,
    with no other such message beside it, so that its third death is nobody else's.
    """

    messages: MessageQueue
    call_model: CallModel
    stream: ReplyStream
    queue: JobQueue
    leases: Leases
    clock: Clock
    policy: RetryPolicy
    worker: Worker
    quarantine: QuarantineSlot
    suggest_title: SuggestTitle
    #: The budget for thoughts at each level, in tokens.
    thought_tokens: Mapping[ThinkingLevel, int]
    #: The deployment's system instruction, in every conversation.
    instructions: str | None = None

    async def __call__(self, *, message_id: MessageId) -> MessageStatus | None:
        async with self._claimed(message_id) as message:
            result = None if message is None else await self._attempt(message)
        if result is None:
            return None
        if result.status.is_final:  # and stored: readers find there what the stream did not bring
            await self.stream.wake(message_id)
        if result.untitled is not None:
            await self.suggest_title(message=result.untitled)
        return result.status

    @asynccontextmanager
    async def _claimed(self, message_id: MessageId) -> AsyncIterator[Message | None]:
        """The message, claimed for one attempt, in quarantine if it is suspect. None if it cannot be claimed."""
        message = await self.messages.claim(message_id, worker=self.worker)
        is_suspect = message is None and await self.messages.is_suspect(message_id)
        if not is_suspect or not self.quarantine.acquire(message_id):
            yield message
            return
        try:
            yield await self.messages.claim(message_id, worker=self.worker, alone=True)
        finally:
            if waiting := self.quarantine.release():
                await self.queue.notify([waiting])

    async def _attempt(self, message: Message) -> _AttemptResult | None:
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

    async def _answer(self, message: Message, call: Call) -> _AttemptResult | None:
        if message.cancel_requested:
            return await self._finish(message, _CANCELLED, call)
        try:
            if self.policy.is_poison(message):
                raise WorkerCrashed
            context = await retry_until_available(
                lambda: self.messages.context(message, limit=MAX_WINDOW_EXCHANGES + 1)
            )
            outcome = await self._reply(message, context, call)
        except ModelError as error:
            return await self._fail(message, error, call)
        except Exception as error:  # noqa: BLE001 - our own bug must not look like a dead worker
            # The place only: an exception's text may quote the conversation.
            log.error("attempt_failed: %s\n%s", type(error).__name__, "".join(format_tb(error.__traceback__)))
            return await self._fail(message, GenerationFailed(), call)
        return await self._finish(message, outcome, call, context)

    async def _reply(self, message: Message, context: Context, call: Call) -> Outcome:
        """The model's reply, streamed to readers while it is written."""
        thoughts = self.thought_tokens[message.thinking] if message.thinking else max(self.thought_tokens.values())
        conversation = conversation_window(message, context, instructions=self.instructions, thought_tokens=thoughts)
        writer = self.stream.write(message.id, message.attempt, kept=message.kept_characters)
        try:
            return await self.call_model(conversation, call=call, writer=writer)
        finally:
            await writer.close()

    async def _finish(
        self, message: Message, outcome: Outcome, call: Call, context: Context | None = None
    ) -> _AttemptResult | None:
        booked = call.booked(message)
        # An outage must cost no reply; if it ends too late, the fencing token decides.
        if not await retry_until_available(
            lambda: self.messages.finish(message.id, message.attempt, outcome, call=booked)
        ):
            return None
        is_untitled = context is not None and context.auto_title and len(context.earlier) < MAX_UNTITLED
        if outcome.status is MessageStatus.COMPLETED and is_untitled:
            return _AttemptResult(outcome.status, replace(message, response=message.in_all(outcome).response))
        return _AttemptResult(outcome.status)

    async def _fail(self, message: Message, error: ModelError, call: Call) -> _AttemptResult | None:
        if call.stop.requested:
            return await self._finish(message, _CANCELLED, call)
        seconds = self.policy.delay(message, error, self.clock.now())
        if seconds is None:
            return await self._finish(message, Outcome.of_error(error), call)
        return_to_queue = self.messages.retry if self.policy.is_failure(error) else self.messages.release
        delay, booked = timedelta(seconds=seconds), call.booked(message)
        is_held = await retry_until_available(
            lambda: return_to_queue(message.id, message.attempt, delay=delay, call=booked)
        )
        return _AttemptResult(MessageStatus.QUEUED) if is_held else None


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
