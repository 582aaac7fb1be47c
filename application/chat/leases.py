"""Leases of the messages that this process works on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from application.chat.model_calls import Stop
from application.ports.chat import MessageQueue
from domain.chat.messages import Message
from domain.ids import MessageId


class LeaseLost(Exception):
    """Another worker has the message now, and the result of this attempt is void."""


@dataclass(frozen=True, slots=True, eq=False)
class _HeldLease:
    attempt: int
    task: asyncio.Task[object]
    stop: Stop


class Leases:
    """All leases that this process holds, renewed together by one statement."""

    def __init__(self, messages: MessageQueue, lease: timedelta) -> None:
        self._messages = messages
        self._lease = lease
        self._held: dict[MessageId, _HeldLease] = {}
        self._lost: set[asyncio.Task[object]] = set()

    @asynccontextmanager
    async def hold(self, message: Message, stop: Stop) -> AsyncIterator[None]:
        """Keep the message's lease inside the block. Raises LeaseLost from the block when it is gone.

        `stop` is requested when the message is cancelled.
        """
        task = asyncio.current_task()
        assert task is not None
        held = self._held[message.id] = _HeldLease(message.attempt, task, stop)
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
        """Renew all leases, and stop the attempts that have lost theirs.

        Raises DatabaseUnavailable. If the outage lasts, other workers take over, and the fencing token decides.
        """
        held = dict(self._held)
        if not held:
            return
        pairs = [(message_id, lease.attempt) for message_id, lease in held.items()]
        kept = await self._messages.extend(pairs, lease=self._lease)
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
