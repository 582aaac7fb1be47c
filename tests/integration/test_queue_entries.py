"""What a message costs the tables: how often its row is written, and how updates of the queue are stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from adapters.postgres.accounts import PostgresUsers
from adapters.postgres.chat import PostgresMessages
from adapters.postgres.chatrooms import PostgresChatrooms
from adapters.postgres.connection import rows
from adapters.security import HmacNumberDigests
from adapters.system import TimeOrderedIds
from domain.accounts import MobileNumber, User
from domain.billing import SendingLimits
from domain.chat.chatrooms import Chatroom
from domain.chat.messages import CUT_OFF, Message, MessageStatus, Outcome
from domain.ids import ChatroomId, MessageId, UserId
from tests.support.database import connected, new_database
from tests.support.workers import new_worker

IDS, NOW = TimeOrderedIds(), datetime.now(UTC).replace(microsecond=0)
COMPLETED = Outcome(status=MessageStatus.COMPLETED, response="Because. " * 200, finish_reason=CUT_OFF)
NOTHING = timedelta()


def new_message(room: Chatroom) -> Message:
    return Message(
        id=MessageId(IDS.new()),
        chatroom_id=room.id,
        user_id=room.user_id,
        input="Why? " * 20,
        created_at=NOW,
        queued_at=NOW,
        allowance_day=NOW.date(),
        max_output_tokens=10,
    )


@pytest.fixture(scope="module")
def database(postgres_url: str) -> object:
    with new_database(postgres_url) as url:
        yield url


@pytest.fixture
async def room(database: str) -> AsyncIterator[Chatroom]:
    async with connected(database, pool=1):  # one, so that what it has counted is flushed by itself
        user = User(id=UserId(IDS.new()), mobile=MobileNumber(f"+9198{IDS.new().int % 10**8:08d}"), name="Ann",
                    created_at=NOW)  # fmt: skip
        await PostgresUsers(HmacNumberDigests(key=b"key")).add(user)
        room = Chatroom(id=ChatroomId(IDS.new()), user_id=user.id, name="Physics", created_at=NOW)
        yield await PostgresChatrooms().add(room)


async def written(table: str) -> tuple[int, int, int, int]:
    """Rows inserted, updated, updated in place, and deleted, in a table or all of its partitions."""
    await rows("SELECT pg_stat_force_next_flush()")
    [row] = await rows(
        "SELECT sum(n_tup_ins)::int AS inserted, sum(n_tup_upd)::int AS updated, sum(n_tup_hot_upd)::int AS hot,"
        " sum(n_tup_del)::int AS deleted"
        " FROM pg_stat_user_tables WHERE relname = $1 OR relid IN ("
        "  SELECT inhrelid FROM pg_inherits WHERE inhparent = $1::text::regclass)",
        table,
    )
    return row["inserted"], row["updated"], row["hot"], row["deleted"]


async def test_a_message_is_written_when_it_is_queued_and_when_it_ends(room: Chatroom) -> None:
    messages, worker, message = PostgresMessages(), new_worker(), new_message(room)
    before = await written("messages")
    await messages.accept(message, limits=SendingLimits())
    for attempt in (1, 2, 3):
        assert await messages.claim(message.id, worker=worker)
        for _ in range(5):
            assert await messages.renew(worker, [(message.id, attempt)]) == {message.id}
        assert await messages.retry(message.id, attempt, delay=NOTHING)
        assert await messages.take_unnotified(limit=9, notified_before=NOTHING) == [message.id]
    assert await messages.claim(message.id, worker=worker)
    await messages.cancel(message.id, room.id, room.user_id)
    assert await messages.finish(message.id, 4, COMPLETED)
    after = await written("messages")
    assert [after[n] - before[n] for n in (0, 1, 3)] == [1, 1, 0], "inserted, updated, deleted"

    await messages.continue_reply(message, limits=SendingLimits())
    assert await messages.claim(message.id, worker=worker)
    assert await messages.finish(message.id, 5, COMPLETED)
    again = await written("messages")
    assert [again[n] - after[n] for n in (0, 1, 3)] == [0, 2, 0], "and so when it is queued once more"


async def test_updates_of_the_queue_are_in_place(room: Chatroom) -> None:
    """A run with heartbeats, notifications, retries and cancels, with up to forty messages open at a time."""
    messages, worker, chance = PostgresMessages(), new_worker(), Random(7)
    before, leases_before = await written("queue_entries"), await written("workers")
    open_ones: list[Message] = []
    for _ in range(400):
        open_ones.append(new_message(room))
        await messages.accept(open_ones[-1], limits=SendingLimits())
        if len(open_ones) < 40:
            continue
        message = open_ones.pop(chance.randrange(40))
        attempt = 1
        assert await messages.claim(message.id, worker=worker)
        await messages.renew(worker, [(message.id, attempt)])
        if chance.random() < 0.2:
            await messages.retry(message.id, attempt, delay=NOTHING)
            await messages.take_unnotified(limit=9, notified_before=NOTHING)
            assert await messages.claim(message.id, worker=worker)
            attempt += 1
        if chance.random() < 0.05:
            await messages.cancel(message.id, room.id, room.user_id)
        assert await messages.finish(message.id, attempt, COMPLETED)
    after, leases_after = await written("queue_entries"), await written("workers")
    _, updated, hot, _ = (now - then for now, then in zip(after, before, strict=True))
    assert updated > 400
    assert hot / updated >= 0.9, f"{hot} of {updated}"
    _, updated, hot, _ = (now - then for now, then in zip(leases_after, leases_before, strict=True))
    assert updated > 300
    assert hot / updated >= 0.9, f"{hot} of {updated}"
    await asyncio.gather(*(messages.cancel(message.id, room.id, room.user_id) for message in open_ones))
