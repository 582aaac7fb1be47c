"""Workers in tests: each claim is one's own, so that each message has a lease to itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

from application.ports.chat import MessageQueue
from domain.chat.messages import Message
from domain.chat.queue import Worker
from domain.ids import MessageId, WorkerId

HOUR = timedelta(hours=1)


def new_worker(lease: timedelta = HOUR) -> Worker:
    return Worker(WorkerId(uuid4()), lease)


async def claim(
    queue: MessageQueue, message_id: MessageId, *, lease: timedelta, alone: bool = False, worker: Worker | None = None
) -> Message | None:
    """As a new worker with such a lease. One that is not positive has expired when this returns."""
    worker = worker or new_worker()
    lasting = Worker(worker.id, lease if lease > timedelta() else HOUR)
    claimed = await queue.claim(message_id, worker=lasting, alone=alone)
    if claimed and lease <= timedelta():
        await queue.renew(Worker(worker.id, lease))
    return claimed


class Workers:
    """Who has claimed what, so that it can be renewed."""

    def __init__(self, queue: MessageQueue) -> None:
        self._queue = queue
        self._workers: defaultdict[tuple[MessageId, int], Worker] = defaultdict(new_worker)

    async def claim(self, message_id: MessageId, *, lease: timedelta, alone: bool = False) -> Message | None:
        worker = new_worker()
        claimed = await claim(self._queue, message_id, lease=lease, alone=alone, worker=worker)
        if claimed:
            self._workers[message_id, claimed.attempt] = worker
        return claimed

    async def extend(self, held: Sequence[tuple[MessageId, int]], *, lease: timedelta) -> set[MessageId]:
        """The workers of these attempts renew their leases; returns what they still have."""
        kept = [await self._queue.renew(Worker(self._workers[pair].id, lease), [pair]) for pair in held]
        return set().union(*kept)
