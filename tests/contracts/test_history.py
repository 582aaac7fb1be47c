"""What MessageHistory promises: old messages go by months, and deleted ones are erased."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from adapters.postgres.connection import rows, transaction
from adapters.postgres.history import erase
from domain.chat.chatrooms import Chatroom
from domain.chat.history import first_id
from domain.chat.messages import Message
from domain.errors import MessageNotFound
from domain.ids import MessageId
from tests.contracts.conftest import COMPLETED, HOUR, Adapters, InPostgresAndRedis
from tests.support.patience import HANG

MARCH = datetime(2020, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
#: A room with answered messages.
FILL = (
    "INSERT INTO messages (id, chatroom_id, user_id, input, created_at, status, attempt, failures, deaths,"
    " allowance_day, charged, queued_at, max_output_tokens)"
    " SELECT gen_random_uuid(), $1, $2, 'Why?', now(), 'completed', 1, 0, 0, '2020-01-01', false, now(), 10"
    " FROM generate_series(1, $3::int) RETURNING id"
)


def id_of(at: datetime) -> MessageId:
    return MessageId(UUID(int=first_id(at).int | uuid4().int & (1 << 80) - 1))


async def sent(adapters: Adapters, room: Chatroom, at: datetime, *, is_open: bool = False) -> Message:
    message = await adapters.queued(room, id=id_of(at))
    if not is_open:
        assert await adapters.workers.claim(message.id, lease=HOUR)
        assert await adapters.finish(message, COMPLETED)
    return message


async def is_there(adapters: Adapters, message: Message) -> bool:
    try:
        await adapters.stored(message)
    except MessageNotFound:
        return False
    return True


async def test_whole_months_are_removed(adapters: Adapters) -> None:
    room = await adapters.room()
    times = [MARCH - timedelta(days=300), MARCH - MINUTE, MARCH + MINUTE, MARCH + timedelta(days=20)]
    messages = [await sent(adapters, room, at) for at in times]
    new = await adapters.ended(room)
    await adapters.history.remove_before(MARCH + timedelta(days=15))
    assert [await is_there(adapters, message) for message in messages] == [False, False, True, True]
    assert await is_there(adapters, new)
    adapters.unseen[room.user_id] = 2


async def test_more_than_a_batch_is_removed(real: InPostgresAndRedis) -> None:
    room = await real.room()
    await rows(
        "INSERT INTO messages (id, chatroom_id, user_id, input, created_at, status, attempt, failures, deaths,"
        " allowance_day, charged, queued_at, max_output_tokens)"
        " SELECT ('0000016f-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, $1, $2, 'Why?', now(), 'completed', 1,"
        " 0, 0, '2020-01-01', false, now(), 10 FROM generate_series(1, 2500) n",
        room.id,
        room.user_id,
    )
    await real.history.remove_before(MARCH)
    assert await rows("SELECT FROM messages LIMIT 1") == []


async def test_what_was_queued_again_is_no_longer_in_flight(adapters: Adapters) -> None:
    room = await adapters.room()
    old = await sent(adapters, room, MARCH - MINUTE, is_open=True)
    await adapters.queued(room)
    await adapters.history.remove_before(MARCH)
    assert not await is_there(adapters, old)
    assert await adapters.messages.ended([old.id]) == {old.id}
    _, used, in_flight = (await adapters.counters())[room.user_id]
    assert (used, in_flight) == (2, 1)
    adapters.unseen[room.user_id] = 1


async def test_ids_of_no_time_find_a_place(adapters: Adapters) -> None:
    room = await adapters.room()
    for id in (0x0123, 0x01A0 << 112, 0x0400 << 112, (1 << 128) - 2):
        message = await adapters.queued(room, id=MessageId(UUID(int=id)))
        assert await is_there(adapters, message)


async def test_places_are_made_ahead_as_often_as_it_is_called(adapters: Adapters) -> None:
    for _ in range(2):
        await adapters.history.prepare()
    await adapters.ended()


async def test_nothing_is_erased_of_rooms_that_are_there(adapters: Adapters) -> None:
    message = await adapters.ended()
    assert not await adapters.history.erase_deleted()
    assert await is_there(adapters, message)


@pytest.mark.parametrize("count", [3, 1000, 2500])
async def test_a_long_room_is_out_of_sight_at_once_and_erased_in_batches(real: InPostgresAndRedis, count: int) -> None:
    room, other = await real.room(), await real.ended()
    [first, *_] = await rows(FILL, room.id, room.user_id, count)
    assert await real.chatrooms.delete(room.id, room.user_id) == []
    with pytest.raises(MessageNotFound):
        await real.messages.get(MessageId(first["id"]), room.id, room.user_id)
    left = []
    while await real.history.erase_deleted():
        left.append((await rows("SELECT count(*) AS n FROM messages WHERE chatroom_id = $1", room.id))[0]["n"])
    assert left == {3: [], 1000: [0], 2500: [500, 0]}[count]
    assert await is_there(real, other)


async def test_a_room_with_messages_is_not_forgotten(real: InPostgresAndRedis) -> None:
    """One that waited for another's rows finds them gone, and must not take the room for empty."""
    room = await real.room()
    await rows(FILL, room.id, room.user_id, 3_500)
    assert await real.chatrooms.delete(room.id, room.user_id) == []
    waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    async def erase_first(connection: asyncpg.Connection) -> asyncio.Task[bool]:
        await erase(connection, room.id)
        second = asyncio.create_task(real.history.erase_deleted())
        async with asyncio.timeout(HANG):
            while not await rows(waiting):  # noqa: ASYNC110 - a lock tells nobody
                await asyncio.sleep(0.01)
        return second

    assert await (await transaction(erase_first))
    while await real.history.erase_deleted():
        pass
    assert await rows("SELECT FROM messages WHERE chatroom_id = $1", room.id) == []


async def test_the_other_rooms_are_erased_while_one_is(real: InPostgresAndRedis) -> None:
    message = await real.ended()
    first = await real.room()
    await rows(FILL, first.id, first.user_id, 2_500)
    await real.chatrooms.delete(first.id, first.user_id)

    async def erased_beside(connection: asyncpg.Connection) -> bool:
        await connection.execute("SELECT FROM deleted_chatrooms WHERE id = $1 FOR UPDATE", first.id)
        return await real.history.erase_deleted()

    assert not await transaction(erased_beside), "it is in others' hands"
    while await real.history.erase_deleted():
        pass
    assert await rows("SELECT FROM messages WHERE chatroom_id = $1", first.id) == []
    assert await is_there(real, message)


async def test_a_users_rooms_are_erased(real: InPostgresAndRedis) -> None:
    user = await real.user()
    messages = [await real.ended(await real.room(user)) for _ in range(3)]
    await real.users.delete(user.id)
    assert not [message for message in messages if await is_there(real, message)], "out of sight"
    await real.erase_deleted()
    assert await rows("SELECT FROM messages WHERE user_id = $1", user.id) == []
    assert await rows("SELECT FROM deleted_chatrooms") == []


async def test_a_rolled_back_deletion_erases_nothing(real: InPostgresAndRedis) -> None:
    message = await real.ended()
    async with real.rolled_back():
        await real.chatrooms.delete(message.chatroom_id, message.user_id)
    await real.erase_deleted()
    assert await is_there(real, message)
