"""Look-ups that arrive together share one statement, and none sees less than the truth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from adapters.postgres.accounts import PostgresSessions, PostgresUsers
from adapters.postgres.connection import rows
from adapters.postgres.database import PostgresUnitOfWork
from adapters.postgres.lookup import Lookup
from adapters.postgres.statements import Statement
from adapters.security import HmacNumberDigests
from adapters.system import TimeOrderedIds
from domain.accounts import Device, MobileNumber, Session, User
from domain.errors import DatabaseUnavailable
from domain.ids import SessionId, UserId
from tests.support.database import connected, connections_out, new_database
from tests.support.patience import HANG

IDS = TimeOrderedIds()
USERS = PostgresUsers(HmacNumberDigests(key=b"key"))


class Counted(Statement):
    """`SELECT key, number`, and how it was run."""

    def __init__(self) -> None:
        super().__init__("SELECT key, number FROM numbers WHERE key = ANY(:keys::uuid[])")
        self.runs: list[list[UUID]] = []
        self.before = ""
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, **values: Any) -> list[Mapping[str, Any]]:
        self.runs.append(values["keys"])
        await self.gate.wait()
        if self.before:
            await rows(self.before)
        return await super().__call__(**values)


@pytest.fixture(scope="module")
def own_database(postgres_url: str) -> Iterator[str]:
    with new_database(postgres_url) as url:
        yield url


@pytest.fixture
async def numbers(own_database: str) -> AsyncIterator[list[UUID]]:
    """The keys of 0 to 9."""
    keys = [IDS.new() for _ in range(10)]
    async with connected(own_database, pool=4, acquire_seconds=HANG):
        await rows("CREATE TABLE numbers (key uuid PRIMARY KEY, number int)")
        for number, key in enumerate(keys):
            await rows("INSERT INTO numbers VALUES ($1, $2)", key, number)
        yield keys
        assert await connections_out() == 0
        await rows("DROP TABLE numbers")


def lookup_by(statement: Statement) -> Lookup[UUID, int]:
    return Lookup(statement, lambda row: row["number"])


async def test_one_statement_finds_all_that_were_asked_for_together(numbers: list[UUID]) -> None:
    statement = Counted()
    find = lookup_by(statement)
    unknown = IDS.new()
    keys = [*numbers, unknown, *numbers]
    assert await asyncio.gather(*(find(key) for key in keys)) == [*range(10), None, *range(10)]
    assert statement.runs == [[*numbers, unknown]]


async def test_a_transaction_sees_its_own_writes_and_keeps_them_to_itself(numbers: list[UUID]) -> None:
    find, key = lookup_by(Counted()), numbers[0]
    written, seen = asyncio.Event(), asyncio.Event()

    async def in_a_transaction() -> int | None:
        async with PostgresUnitOfWork()():
            await rows("UPDATE numbers SET number = 100 WHERE key = $1", key)
            written.set()
            await seen.wait()
            return await find(key)

    writing = asyncio.create_task(in_a_transaction())
    await written.wait()
    assert await find(key) == 0
    seen.set()
    assert await writing == 100
    assert await find(key) == 100


async def test_a_change_that_was_committed_is_seen_by_every_later_call(numbers: list[UUID]) -> None:
    find = lookup_by(Counted())

    async def write_and_read(key: UUID) -> None:
        for value in range(20):
            await rows("UPDATE numbers SET number = $2 WHERE key = $1", key, value)
            assert await find(key) == value

    await asyncio.gather(*(write_and_read(key) for key in numbers))


async def test_a_cancelled_call_costs_the_others_nothing(numbers: list[UUID]) -> None:
    statement = Counted()
    statement.gate.clear()
    find = lookup_by(statement)
    calls = [asyncio.create_task(find(key)) for key in numbers]
    async with asyncio.timeout(HANG):
        while not statement.runs:  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    statement.gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert results[1::2] == [1, 3, 5, 7, 9]
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    assert len(statement.runs) == 1


async def test_a_failed_statement_fails_all_and_the_next_one_works(numbers: list[UUID]) -> None:
    statement = Counted()
    statement.before = "SELECT pg_terminate_backend(pg_backend_pid())"
    find = lookup_by(statement)
    results = await asyncio.gather(*(find(key) for key in numbers), return_exceptions=True)
    assert [type(result) for result in results] == [DatabaseUnavailable] * 10
    statement.before = ""
    assert await asyncio.gather(*(find(key) for key in numbers)) == list(range(10))


async def test_a_session_that_ends_is_refused_by_the_next_look_up(own_database: str) -> None:
    async with connected(own_database, pool=4, acquire_seconds=HANG):
        sessions, now = PostgresSessions(), datetime.now(UTC)
        users = []
        for _ in range(8):
            mobile = MobileNumber(f"+9197{IDS.new().int % 10**8:08d}")
            user = User(id=UserId(IDS.new()), mobile=mobile, name="Asha", created_at=now)
            await USERS.add(user)
            session = Session.begin(SessionId(IDS.new()), user.id, Device(), now)
            await sessions.add(session, IDS.new().bytes, IDS.new().bytes)
            users.append((user, session))

        async def end_and_look(user: User, session: Session) -> None:
            for _ in range(5):
                found = await sessions.find_user(session.id)
                assert found is not None
                assert found.id == user.id
            await sessions.end(session.id, user.id, now=now)
            assert await sessions.find_user(session.id) is None

        await asyncio.gather(*(end_and_look(user, session) for user, session in users))
