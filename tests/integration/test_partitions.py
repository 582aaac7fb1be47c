"""The partitions of messages: made ahead, caught up with, dropped, and what they cost readers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from adapters.memory.runtime import MemoryClock
from adapters.postgres.accounts import PostgresUsers
from adapters.postgres.chat import PostgresMessages
from adapters.postgres.chatrooms import PostgresChatrooms
from adapters.postgres.connection import SETTINGS, rows
from adapters.postgres.history import MONTHS_AHEAD, SQL, PostgresMessageHistory
from adapters.postgres.statements import Statements
from adapters.security import HmacNumberDigests
from domain.accounts import MobileNumber, User
from domain.billing import SendingLimits
from domain.chat.chatrooms import Chatroom
from domain.chat.history import first_id, next_month, oldest_id_in, time_of
from domain.chat.messages import Message
from domain.ids import ChatroomId, MessageId, UserId
from tests.support.database import connected, new_database

DAY = timedelta(days=1)


def id_of(at: datetime) -> UUID:
    return UUID(int=first_id(at).int | 7 << 76 | 0b10 << 62 | uuid4().int & (1 << 62) - 1)


@pytest.fixture
def database(postgres_url: str) -> Iterator[str]:
    with new_database(postgres_url) as url:
        yield url


@pytest.fixture
async def clock(database: str) -> AsyncIterator[MemoryClock]:
    async with connected(database):
        clock = MemoryClock()
        clock.move(datetime.now(UTC) - clock.now())
        yield clock


async def new_room(at: datetime) -> Chatroom:
    number = MobileNumber(f"+9198{uuid4().int % 10**8:08d}")
    user = User(id=UserId(uuid4()), mobile=number, name="Ann", created_at=at)
    await PostgresUsers(HmacNumberDigests(key=b"key")).add(user)
    return await PostgresChatrooms().add(
        Chatroom(id=ChatroomId(id_of(at)), user_id=user.id, name="Physics", created_at=at)
    )


async def send(room: Chatroom, at: datetime, id: UUID | None = None) -> Message:
    message = Message(
        id=MessageId(id or id_of(at)),
        chatroom_id=room.id,
        user_id=room.user_id,
        input="Why?",
        created_at=at,
        queued_at=at,
        allowance_day=at.date(),
        max_output_tokens=10,
    )
    await PostgresMessages().accept(message, limits=SendingLimits())
    return message


async def partition_of(message: Message) -> str:
    [row] = await rows("SELECT tableoid::regclass::text AS name FROM messages WHERE id = $1", message.id)
    return str(row["name"])


async def check_ranges() -> list[str]:
    """They leave no id out, in the order of time."""
    found = await SQL.partitions()
    assert found[0]["first"] is None
    assert found[-1]["next"] is None
    assert [row["next"] for row in found[:-1]] == [row["first"] for row in found[1:]]
    assert (found[0]["name"], found[-1]["name"]) == ("messages_past", "messages_later")
    return [row["name"] for row in found]


async def test_months_are_made_ahead(clock: MemoryClock) -> None:
    history, room = PostgresMessageHistory(clock), await new_room(clock.now())
    before = await check_ranges()
    await history.prepare()
    assert await check_ranges() == before, "the migration has made enough"
    for _ in range(14):
        clock.move(30 * DAY)
        await history.prepare()
        message = await send(room, clock.now())
        assert await partition_of(message) in ("messages_past", f"messages_{clock.now():%Y_%m}")
    names = await check_ranges()
    assert len(names) - len(before) in range(12, 22)
    assert names[:-1] == before[:-1] + names[len(before) - 1 : -1], "those that were there stay"


async def test_what_came_while_nobody_made_months_is_caught_up_with(clock: MemoryClock) -> None:
    room = await new_room(clock.now())
    clock.move(500 * DAY)
    late = [await send(room, clock.now() + timedelta(seconds=n)) for n in range(3)]
    odd = await send(room, clock.now(), id=UUID(int=(1 << 128) - 2))
    assert {await partition_of(message) for message in (*late, odd)} == {"messages_later"}
    await PostgresMessageHistory(clock).prepare()
    await check_ranges()
    assert await partition_of(odd) == "messages_later"
    assert "messages_later" not in {await partition_of(message) for message in late}
    for message in (*late, odd):
        assert await PostgresMessages().get(message.id, room.id, room.user_id)
    clock.move(400 * DAY)
    await PostgresMessageHistory(clock).prepare()
    await check_ranges()
    assert await partition_of(await send(room, clock.now())) != "messages_later"


async def test_months_are_dropped(clock: MemoryClock) -> None:
    history, room = PostgresMessageHistory(clock), await new_room(clock.now())
    begins = time_of((await SQL.partitions())[0]["next"])
    times = [begins - DAY, begins + DAY, next_month(begins) + DAY, next_month(next_month(begins)) + DAY]
    messages = [await send(room, at) for at in times]
    names = await check_ranges()
    await history.remove_before(times[2])
    found = [row["name"] for row in await SQL.partitions()]
    assert found == names[2:]
    assert [row["id"] for row in await rows("SELECT id FROM messages ORDER BY id")] == [m.id for m in messages[2:]]
    [counted] = await rows("SELECT in_flight FROM allowances WHERE user_id = $1", room.user_id)
    assert counted["in_flight"] == 2
    await send(room, begins + 50 * DAY)


async def test_who_reads_is_not_kept_waiting(database: str, clock: MemoryClock) -> None:
    """A long transaction, such as a dump, is in the way: it is put off, and comes again."""
    room, names = await new_room(clock.now()), await check_ranges()
    reader = await asyncpg.connect(database)
    clock.move(150 * DAY)
    try:
        async with reader.transaction():
            await reader.fetch("SELECT id FROM messages")
            await PostgresMessageHistory(clock).prepare()
            await PostgresMessageHistory(clock).remove_before(clock.now())
            assert await check_ranges() == names
            await send(room, clock.now())
    finally:
        await reader.close()
    await PostgresMessageHistory(clock).prepare()
    assert len(await check_ranges()) > len(names)


async def test_one_process_at_a_time_changes_them(database: str, clock: MemoryClock) -> None:
    names = await check_ranges()
    other = await asyncpg.connect(database)
    clock.move(150 * DAY)
    try:
        async with other.transaction():
            assert await other.fetchval(SQL.lock.sql)
            await PostgresMessageHistory(clock).prepare()
            assert await check_ranges() == names
    finally:
        await other.close()


class TestCost:
    """Blocks that a generic plan reads, when there are few months and after three years."""

    async def blocks(self, url: str, area: str, name: str, **values: Any) -> int:
        statement = getattr(Statements(area), name)
        connection = await asyncpg.connect(url, server_settings={**SETTINGS, "plan_cache_mode": "force_generic_plan"})
        try:
            await connection.execute(f"PREPARE it AS {statement.sql}")
            literals = ", ".join(
                "NULL" if value is None else str(value) if isinstance(value, int) else f"'{value}'"
                for value in statement.arguments(values)
            )
            for _ in range(3):  # later ones find the catalog in the cache
                found = await connection.fetchval(
                    f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) EXECUTE it ({literals})"
                )
            [plan] = json.loads(found)
            return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])
        finally:
            await connection.close()

    async def costs(self, url: str, room: Chatroom, messages: list[Message]) -> dict[str, int]:
        await rows("ANALYZE")
        where = {"id": messages[-1].id, "chatroom_id": room.id, "user_id": room.user_id}
        oldest = oldest_id_in(room.id)
        page = {"id": room.id, "user_id": room.user_id, "limit": 20, "oldest": oldest}
        context = {"id": messages[-1].id, "chatroom_id": room.id, "limit": 31, "oldest": oldest}
        return {
            "page": await self.blocks(url, "chatrooms", "get_with_messages", before=None, **page),
            "later page": await self.blocks(url, "chatrooms", "get_with_messages", before=messages[9].id, **page),
            "context": await self.blocks(url, "messages", "context", **context),
            "message": await self.blocks(url, "messages", "get", **where),
        }

    async def test_of_reading_does_not_grow_with_the_months(self, database: str, clock: MemoryClock) -> None:
        few_room, few_messages = await self.month(clock)
        few = await self.costs(database, few_room, few_messages)
        while len(await SQL.partitions()) < 37:
            clock.move(30 * DAY)
            await PostgresMessageHistory(clock).prepare()
            many_room, many_messages = await self.month(clock)
        many = await self.costs(database, many_room, many_messages)
        ahead = 2 * (2 * MONTHS_AHEAD + 1)  # of each empty month a block or two
        assert {name: blocks for name, blocks in many.items() if blocks > few[name] * 1.25 + ahead} == {}, (few, many)

    async def test_of_a_long_room_is_that_of_a_short_one(self, database: str, clock: MemoryClock) -> None:
        room, messages = await self.month(clock)
        short = await self.costs(database, room, messages)
        await rows(_FILL, room.user_id, await self.fillers(clock, room), room.id, 10_000)
        long = await self.costs(database, room, messages)
        assert {name: blocks for name, blocks in long.items() if blocks > short[name] + 24} == {}, (short, long)

    async def month(self, clock: MemoryClock) -> tuple[Chatroom, list[Message]]:
        """A month's messages of many rooms; returns one of its rooms."""
        room = await new_room(clock.now())
        fillers = await self.fillers(clock, room)
        await rows(_FILL, room.user_id, fillers, None, 3_000)
        messages = [await send(room, clock.now() + timedelta(seconds=n)) for n in range(30)]
        await rows(
            "WITH ended AS (DELETE FROM queue_entries) UPDATE messages SET status = 'completed', response = 'Because.'"
            " WHERE chatroom_id = $1",
            room.id,
        )
        return room, messages

    async def fillers(self, clock: MemoryClock, room: Chatroom) -> str:
        return str(first_id(clock.now()))[:14]  # of their ids: the time


_FILL = """
    INSERT INTO messages (id, chatroom_id, user_id, input, created_at, status, attempt, failures, deaths, allowance_day,
        charged, queued_at, max_output_tokens, response)
    SELECT ($2 || '7' || substr(gen_random_uuid()::text, 16))::uuid, coalesce($3, md5(($4 + n % 150)::text)::uuid), $1,
        'Why?', now(), 'completed', 1, 0, 0, current_date, true, now(), 10, 'Because.'
    FROM generate_series(1, $4::int) n
"""
