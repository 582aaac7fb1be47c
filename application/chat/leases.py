"""The lease of this process, and the messages that it works on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from application.chat.model_calls import Stop
from application.ports.chat import MessageQueue
from domain.chat.messages import Message
from domain.chat.queue import Worker
from domain.ids import MessageId


class LeaseLost(Exception):
    """Another worker has the message now, and the result of this attempt is void."""


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    attempt: int
    task: asyncio.Task[object]
    stop: Stop


class Leases:
    """What this process holds, by one lease that it renews."""

    def __init__(self, messages: MessageQueue, worker: Worker) -> None:
        self._messages = messages
        self._worker = worker
        self._held: dict[MessageId, _Held] = {}
        self._lost: set[asyncio.Task[object]] = set()

    @asynccontextmanager
    async def hold(self, message: Message, stop: Stop) -> AsyncIterator[None]:
        """Hold the message inside the block. Raises LeaseLost from the block when another worker has it.

        `stop` is requested when the message is cancelled.
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
            # Another attempt in this process may have replaced the entry.
            if self._held.get(message.id) is held:
                del self._held[message.id]

    async def renew(self) -> None:
        """Renew the lease, and stop the attempts whose messages others have taken.

        Raises DatabaseUnavailable. If the outage lasts, other workers take over, and the fencing token decides.
        """
        held = dict(self._held)
        pairs = [(message_id, attempt.attempt) for message_id, attempt in held.items()]
        kept = await self._messages.renew(self._worker, pairs)
        for message_id in held.keys() - kept:
            if self._held.get(message_id) is held[message_id]:
                task = held[message_id].task
                self._lost.add(task)
                task.cancel()

    async def stop_cancelled(self) -> None:
        """Stop the model's replies to messages that were cancelled. Raises DatabaseUnavailable."""
        if self._held:
            for message_id in await self._messages.cancel_requested() & self._held.keys():
                self._held[message_id].stop.request()
