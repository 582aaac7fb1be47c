"""The API of the previous release on the schema of this one, as during an upgrade. Its statements are in previous/."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from adapters.postgres.accounts import PostgresUsers
from adapters.postgres.chat import PostgresMessages
from adapters.postgres.chatrooms import PostgresChatrooms
from adapters.postgres.connection import rows
from adapters.postgres.history import PostgresMessageHistory
from adapters.postgres.migrate import LOCATION, migrate, versions
from adapters.postgres.statements import Statement, Statements
from adapters.security import HmacNumberDigests
from adapters.system import SystemClock, TimeOrderedIds
from domain.accounts import MobileNumber, User
from domain.chat.chatrooms import Chatroom
from domain.chat.messages import MAX_CONTINUED_CHARACTERS, Message, MessageStatus, Outcome
from domain.ids import ChatroomId, MessageId, UserId
from tests.support.database import connected, new_database
from tests.support.workers import new_worker

IDS, NOW = TimeOrderedIds(), datetime.now(UTC).replace(microsecond=0)
COMPLETED = Outcome(status=MessageStatus.COMPLETED, response="Half a", finish_reason="MAX_TOKENS")
LEASE = timedelta(hours=1)
PREVIOUS = Path(__file__).with_name("previous")


def previous(area: str) -> Statements:
    """The statements of the previous release, read as ours are."""
    return Statements(area, folder=PREVIOUS)


CHAT, ROOMS = previous("messages"), previous("chatrooms")


class OldApi:
    """Calls the statements as the previous release does."""

    def __init__(self, room: Chatroom) -> None:
        self.room = room

    def _where(self, message_id: UUID) -> dict[str, Any]:
        return {"id": message_id, "chatroom_id": self.room.id, "user_id": self.room.user_id}

    async def _consume(self, statement: Statement, message_id: UUID, **values: object) -> bool:
        limits = {"daily": None, "in_flight": None, "per_minute": None, "max_output_tokens": 10, "thinking": None}
        return bool(await statement(**self._where(message_id), **limits, at=NOW, day=NOW.date(), **values))

    async def send(self) -> MessageId:
        message_id = MessageId(IDS.new())
        assert await self._consume(CHAT.accept, message_id, input="Why?")
        return message_id

    async def regenerate(self, message_id: MessageId) -> bool:
        return await self._consume(CHAT.regenerate, message_id, request_id=None)

    async def continue_reply(self, message_id: MessageId) -> bool:
        return await self._consume(
            CHAT.continue_reply, message_id, request_id=None, max_characters=MAX_CONTINUED_CHARACTERS
        )

    async def cancel(self, message_id: MessageId) -> Mapping[str, Any]:
        [row] = await CHAT.cancel(**self._where(message_id))
        return row

    async def status(self, message_id: MessageId) -> str:
        [row] = await CHAT.get(**self._where(message_id))
        return str(row["status"])

    async def unanswered(self, message_id: MessageId) -> bool:
        return bool(await CHAT.unanswered(ids=[message_id]))


@pytest.fixture(scope="module")
def database(postgres_url: str) -> object:
    with new_database(postgres_url) as url:
        yield url


@pytest.fixture
async def old(database: str) -> AsyncIterator[OldApi]:
    async with connected(database):
        number = MobileNumber(f"+9198{IDS.new().int % 10**8:08d}")
        user = User(id=UserId(IDS.new()), mobile=number, name="Ann", created_at=NOW)
        await PostgresUsers(HmacNumberDigests(key=b"key")).add(user)
        room = Chatroom(id=ChatroomId(IDS.new()), user_id=user.id, name="Physics", created_at=NOW)
        api = OldApi(await PostgresChatrooms().add(room))
        yield api
        [counted] = await rows("SELECT in_flight FROM allowances WHERE user_id = $1", user.id)
        found = await rows("SELECT count(*) AS n FROM messages WHERE chatroom_id = $1 AND status = 'queued'", room.id)
        assert counted["in_flight"] == found[0]["n"], "what is in flight is counted rightly"


async def claimed(message_id: MessageId) -> Message:
    message = await PostgresMessages().claim(message_id, worker=new_worker())
    assert message is not None
    return message


async def test_what_it_accepts_is_answered(old: OldApi) -> None:
    message_id = await old.send()
    assert await PostgresMessages().take_unnotified(limit=9, notified_before=timedelta(0)) == [message_id]
    message = await claimed(message_id)
    assert message.attempt == 1
    assert await old.unanswered(message_id)
    assert await old.status(message_id) == "queued", "to it, a message is queued until it has ended"
    assert await PostgresMessages().finish(message_id, 1, COMPLETED)
    assert await old.status(message_id) == "completed"
    assert not await old.unanswered(message_id)


@pytest.mark.parametrize("verb", ["regenerate", "continue_reply"])
async def test_what_it_queues_again_goes_on_with_its_attempts(old: OldApi, verb: str) -> None:
    message_id = await old.send()
    await claimed(message_id)
    assert await PostgresMessages().finish(message_id, 1, COMPLETED)
    assert await getattr(old, verb)(message_id)
    assert not await getattr(old, verb)(message_id), "it is queued"
    assert (await claimed(message_id)).attempt == 2
    assert await PostgresMessages().finish(message_id, 2, COMPLETED)


async def test_what_it_cancels_is_not_answered(old: OldApi) -> None:
    message_id = await old.send()
    assert (await old.cancel(message_id))["status"] == "cancelled"
    assert await PostgresMessages().claim(message_id, worker=new_worker()) is None


async def test_what_it_cancels_while_a_worker_has_it_ends_at_once(old: OldApi) -> None:
    message_id = await old.send()
    await claimed(message_id)
    assert (await old.cancel(message_id))["status"] == "cancelled"
    assert not await PostgresMessages().finish(message_id, 1, COMPLETED), "the worker's attempt is void"
    assert await old.regenerate(message_id)
    assert (await claimed(message_id)).attempt == 2, "and no later one has its number"
    assert await PostgresMessages().finish(message_id, 2, COMPLETED)


async def test_its_workers_take_nothing_any_more(old: OldApi) -> None:
    message_id = await old.send()
    assert await CHAT.claim(id=message_id, lease=LEASE, alone=True, suspect_deaths=2) == []
    assert await CHAT.extend(ids=[message_id], attempts=[1], lease=LEASE) == []
    assert [row["id"] for row in await CHAT.take_unnotified(limit=9, notified_before=-LEASE)] == [message_id]
    assert (await claimed(message_id)).attempt == 1
    assert await CHAT.claim(id=message_id, lease=LEASE, alone=True, suspect_deaths=2) == []
    assert await PostgresMessages().finish(message_id, 1, COMPLETED)


async def test_a_room_that_it_deletes_is_gone_with_its_work(old: OldApi) -> None:
    message_id = await old.send()
    where = {"id": old.room.id, "user_id": old.room.user_id}
    assert [row["id"] for row in await ROOMS.end_unanswered(**where)] == [message_id]
    await ROOMS.delete(**where)
    assert await PostgresMessages().claim(message_id, worker=new_worker()) is None
    assert await rows("SELECT FROM queue_entries WHERE chatroom_id = $1", old.room.id) == []
    while await PostgresMessageHistory(SystemClock()).erase_deleted():
        pass
    assert await rows("SELECT FROM messages WHERE chatroom_id = $1", old.room.id) == []


STATES_IDS = "SELECT id FROM messages WHERE id < '01900000-0000-7000-8000-00000000ffff' ORDER BY id"
#: The last one that the previous release knows.
LAST = "7_20261128211914_session_indexes.py"
STATES = """
    INSERT INTO messages (id, input, created_at, status, attempt, failures, deaths, allowance_day, charged,
        queued_at, max_output_tokens, due_at, rung_at, lease_until, response, chatroom_id, user_id)
    SELECT ('01900000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'Why?', now(), status,
        (status <> 'queued')::int, 0, 0, current_date, true, now(), 10, now(), now(),
        CASE WHEN status = 'generating' THEN now() + lease END, CASE WHEN status = 'completed' THEN 'Because.' END,
        $1, $2
    FROM (VALUES (1, 'queued', NULL), (2, 'generating', interval '1 h'), (3, 'generating', interval '-1 s'),
        (4, 'completed', NULL), (5, 'failed', NULL), (6, 'blocked', NULL), (7, 'cancelled', NULL))
        AS states (n, status, lease)
"""


async def answer_all() -> set[UUID]:
    """As workers do, until nothing is open; returns what was answered, each once."""
    messages, answered = PostgresMessages(), set[UUID]()
    await rows("UPDATE workers SET lease_until = now()")  # the last lease of the old workers is over
    while open_ones := await rows("SELECT message_id FROM queue_entries"):
        for row in open_ones:
            message = await messages.claim(row["message_id"], worker=new_worker())
            assert message is not None
            assert message.id not in answered
            assert await messages.finish(message.id, message.attempt, COMPLETED)
            answered.add(message.id)
    return answered


@pytest.fixture
def empty_database(postgres_url: str) -> object:
    with new_database(postgres_url, migrated=False) as url:
        yield url


@pytest.fixture
def previous_location(tmp_path: Path) -> str:
    location = shutil.copytree(LOCATION, tmp_path / "migrations")
    names = [version.name for version in versions()]
    for name in names[names.index(LAST) + 1 :]:
        Path(location, "models", name).unlink()
    return str(location)


async def test_it_sends_during_the_migration_and_nothing_is_lost(empty_database: str, previous_location: str) -> None:
    names = [version.name for version in versions()]
    url = empty_database
    await migrate(url, location=previous_location)
    async with connected(url):
        user_id, room_id = UserId(IDS.new()), ChatroomId(IDS.new())
        await rows(
            "INSERT INTO users (id, mobile, name, chatrooms_version, created_at)"
            " VALUES ($1, '+919876543210', 'Ann', 0, now())",
            user_id,
        )
        await rows("INSERT INTO chatrooms (id, user_id, name, created_at) VALUES ($1, $2, '', now())", room_id, user_id)
        await rows(STATES, room_id, user_id)
        await rows(
            "INSERT INTO allowances (user_id, day, used, in_flight, minute_from, minute_used)"
            " VALUES ($1, current_date, 7, 3, now(), 0)",
            user_id,
        )
        old = OldApi(Chatroom(id=room_id, user_id=user_id, name="", created_at=NOW))
        sent: list[MessageId] = []
        is_over = asyncio.Event()

        async def send() -> None:
            while not is_over.is_set():
                sent.append(await old.send())
                await asyncio.sleep(0.002)

        sending = asyncio.create_task(send())
        assert await migrate(url) == names[names.index(LAST) + 1 :]
        during = len(sent)
        while len(sent) < during + 20:  # noqa: ASYNC110 - the other task sends
            await asyncio.sleep(0.01)
        is_over.set()
        await sending
        assert during > 5

        known = [row["id"] for row in await rows(STATES_IDS)]
        assert await answer_all() == {*sent, *known[:3]}
        found = {row["id"]: row["status"] for row in await rows("SELECT id, status FROM messages")}
        assert [found[id] for id in known[3:]] == ["completed", "failed", "blocked", "cancelled"]
        assert found.keys() == {*sent, *known}
        [counted] = await rows("SELECT used, in_flight FROM allowances")
        assert (counted["used"], counted["in_flight"]) == (7 + len(sent), 0)


def test_the_statements_are_those_of_another_release() -> None:
    """Once they are equal, this file and the triggers have done their work."""
    assert re.search(r"\brung_at\b", CHAT.texts["accept"])
    assert not re.search(r"\brung_at\b", Statements("messages").texts["accept"])
