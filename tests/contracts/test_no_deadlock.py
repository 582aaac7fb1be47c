"""Everything that locks, at random and at once: none waits for the other, and what is counted stays true."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from random import Random

import asyncpg

from domain.accounts import User
from domain.billing import SendingLimits
from domain.chat.chatrooms import Chatroom
from domain.chat.messages import Message, MessageStatus
from domain.errors import ChatroomNotFound, MessageEnded, MessageNotEnded, MessageNotFound
from tests.contracts.conftest import CANCELLED, COMPLETED, FAILED, HOUR, Adapters, InPostgresAndRedis
from tests.support.patience import HANG, PROCESS_HANG

TASKS, STEPS = 16, 150
USUAL = (ChatroomNotFound, MessageNotFound, MessageEnded, MessageNotEnded)


class Somebody:
    """Does this and that with the rooms and messages that all share."""

    def __init__(self, adapters: Adapters, users: list[User], seed: int) -> None:
        self.adapters = adapters
        self.users = users
        self.random = Random(seed)
        self.done: Counter[str] = Counter()

    async def act(self, rooms: list[Chatroom], messages: list[Message]) -> None:
        verbs, chatrooms, pick = self.adapters.messages, self.adapters.chatrooms, self.random.choice
        room, message, lease = pick(rooms[-4:]), pick(messages[-20:]), pick([HOUR, -HOUR])
        some = [(m.id, a) for m in self.random.sample(messages[-20:], 8) for a in (1, 2)]
        what = pick(
            ["accept"] * 5
            + ["claim"] * 4
            + ["finish"] * 3
            + ["regenerate"] * 3
            + ["cancel", "requeue", "retry", "extend", "expired", "unnotified", "change", "delete", "open"]
        )
        match what:
            case "accept":
                messages.append(self.adapters.new_message(room))
                await verbs.accept(messages[-1], limits=SendingLimits())
            case "claim":
                await self.adapters.workers.claim(message.id, lease=lease, alone=True)
            case "finish":
                await verbs.finish(message.id, pick([1, 2]), pick([COMPLETED, FAILED, CANCELLED]))
            case "cancel":
                await verbs.cancel(message.id, message.chatroom_id, message.user_id)
            case "regenerate":
                await verbs.regenerate(self.adapters.anew(message), limits=SendingLimits())
            case "requeue":
                await verbs.requeue(message.id)
            case "retry":
                await verbs.retry(message.id, 1, delay=timedelta())
            case "extend":
                await self.adapters.workers.extend(some, lease=lease)
            case "expired":
                await verbs.take_expired(limit=5, notified_before=-HOUR)
            case "unnotified":
                await verbs.take_unnotified(limit=5, notified_before=-HOUR)
            case "change":
                await chatrooms.change(room.id, room.user_id, name="other")
            case "delete":
                await chatrooms.delete(room.id, room.user_id)
                rooms.append(await self.adapters.room(pick(self.users)))
            case "open":
                rooms.append(await self.adapters.room(pick(self.users)))
        self.done[what] += 1

    async def work(self, rooms: list[Chatroom], messages: list[Message]) -> Counter[str]:
        for _ in range(STEPS):
            try:
                await self.act(rooms, messages)
            except USUAL:
                self.done["refused"] += 1
        return self.done


async def test_of_all_that_happens_at_once_nothing_blocks_for_ever(adapters: Adapters) -> None:
    users = [await adapters.user() for _ in range(2)]
    rooms = [await adapters.room(user) for user in users * 2]
    messages = [await adapters.queued(room) for room in rooms for _ in range(3)]
    workers = [Somebody(adapters, users, seed) for seed in range(TASKS)]
    async with asyncio.timeout(PROCESS_HANG):
        # A deadlock, or a lock waited for too long, would come as DatabaseUnavailable.
        done = sum(await asyncio.gather(*(worker.work(rooms, messages) for worker in workers)), Counter[str]())
    assert done["finish"] > 50
    assert done["delete"] > 5

    seen = [m for status in MessageStatus for m in await adapters.messages.list_by_status(status, limit=10_000)]
    for user in users:
        day, used, in_flight = (await adapters.counters())[user.id]
        own = [message for message in seen if message.user_id == user.id]
        charged = sum(message.charged and message.allowance_day == day for message in own)
        assert in_flight == sum(not message.status.is_final for message in own)
        assert used >= charged
        adapters.unseen[user.id] = used - charged


async def test_a_lease_is_renewed_while_its_messages_are_deleted(real: InPostgresAndRedis) -> None:
    room = await real.room()
    held = [await real.queued(room) for _ in range(9)]
    for message in held[::-1]:
        assert await real.workers.claim(message.id, lease=HOUR)
    gate = await asyncpg.connect(real.database_url)
    try:
        async with gate.transaction():
            await gate.execute("SELECT FROM queue_entries WHERE message_id = $1 FOR UPDATE", held[4].id)
            deleting = asyncio.create_task(real.chatrooms.delete(room.id, room.user_id))
            async with asyncio.timeout(HANG):
                while await gate.fetchval("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted") < 1:  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0.005)
                kept = await real.workers.extend([(m.id, 1) for m in held[::-1]], lease=HOUR)
        assert kept == {m.id for m in held}
        assert await deleting == [m.id for m in held]
    finally:
        await gate.close()
    real.unseen[room.user_id] = 9
