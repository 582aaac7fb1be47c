"""Replies: what a worker does with a message, and how no message is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from application.ports.chat import JobQueue, LanguageModel, Messages
from application.ports.runtime import Clock
from domain.chat import (
    MAX_WINDOW_MESSAGES,
    Message,
    MessageStatus,
    Outcome,
    RetryPolicy,
    conversation_window,
)
from domain.errors import ModelError, ModelUnavailable, Unavailable, WorkersDied
from domain.ids import MessageId


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
        """Renew all; whoever has lost theirs is stopped. Does nothing while the database is away."""
        held = dict(self._held)
        if not held:
            return
        try:
            kept = await self._messages.extend(
                [(message_id, attempt) for message_id, (attempt, _) in held.items()], lease=self._lease
            )
        except Unavailable:
            return  # If it stays away too long others take over, and the fencing token sorts it out.
        for message_id in held.keys() - kept:
            if self._held.get(message_id) == held[message_id]:
                task = held[message_id][1]
                self._lost.add(task)
                task.cancel()


@dataclass(frozen=True, slots=True)
class GenerateReply:
    """Answer one message: claim it, ask the model, store how it ended.

    Returns the state in which this call left the message, or None if it was not ours to answer:
    a job may come twice or late, and only the claim decides. Killed at any point, the lease runs
    out and another worker takes the message. Cancelled, it is handed back at once.
    """

    messages: Messages
    model: LanguageModel
    queue: JobQueue
    leases: Leases
    clock: Clock
    policy: RetryPolicy
    lease: timedelta
    first_token_seconds: float
    reply_seconds: float

    async def __call__(self, *, message_id: MessageId) -> MessageStatus | None:
        message = await self.messages.claim(message_id, lease=self.lease)
        if message is None:
            return None
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
            outcome = await self._ask(message)
        except ModelError as error:
            delay = self.policy.delay(message, error, self.clock.now())
            if delay is not None:
                await self.messages.retry(message.id, message.attempt, delay=timedelta(seconds=delay))
                return MessageStatus.QUEUED
            outcome = Outcome.of_error(error)
        return outcome.status if await self._finish(message, outcome) else None

    async def _ask(self, message: Message) -> Outcome:
        earlier = await self.messages.before(message, limit=MAX_WINDOW_MESSAGES - 1)
        text: list[str] = []
        finish_reason = input_tokens = output_tokens = None
        end = asyncio.get_running_loop().time() + self.reply_seconds
        try:
            async with (
                asyncio.timeout(min(self.first_token_seconds, self.reply_seconds)) as deadline,
                aclosing(self.model.stream(conversation_window(message, earlier))) as chunks,
            ):
                async for chunk in chunks:
                    if chunk.text and not text:
                        deadline.reschedule(end)
                    text.append(chunk.text)
                    finish_reason = chunk.finish_reason or finish_reason
                    input_tokens = chunk.input_tokens or input_tokens
                    output_tokens = chunk.output_tokens or output_tokens
        except TimeoutError:
            raise ModelUnavailable("The model took too long.") from None
        return Outcome(
            status=MessageStatus.COMPLETED,
            response=_storable("".join(text)),
            finish_reason=finish_reason,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
        )

    async def _finish(self, message: Message, outcome: Outcome) -> bool:
        """A finished reply is worth some patience with a database that restarts; the lease bounds it."""
        pause = 0.1
        while True:
            try:
                return await self.messages.finish(message.id, message.attempt, outcome)
            except Unavailable:
                if pause > 60:
                    raise
                await asyncio.sleep(pause)
                pause *= 2


def _storable(text: str) -> str:
    """Without what Postgres refuses as text, which would cost the whole reply: NUL, and half a surrogate pair."""
    return text.replace("\0", "").encode(errors="replace").decode()


@dataclass(frozen=True, slots=True)
class RecoverReplies:
    """Ring for every message that waits without a bell: never rung, due again, or left by a dead worker.

    Every worker does this every few seconds; there is no leader. Returns how many were rung for.
    """

    messages: Messages
    queue: JobQueue
    quiet: timedelta
    batch: int = 500

    async def __call__(self) -> int:
        rung = 0
        while True:
            found = await self.messages.take_unrung(limit=self.batch, quiet=self.quiet)
            if found:
                await self.queue.ring(found)
            rung += len(found)
            if len(found) < self.batch:
                return rung
