"""Postgres that is full, slow, hung, killed and back; clients that leave; and the plans of the hot queries."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from adapters.postgres.accounts import PostgresSessions, PostgresUsers
from adapters.postgres.chat import PostgresMessages
from adapters.postgres.chatrooms import PostgresChatrooms
from adapters.postgres.connection import rows
from adapters.postgres.database import Postgres, PostgresUnitOfWork
from adapters.postgres.idempotency import PostgresIdempotencyKeys
from adapters.postgres.migrate import migrate
from adapters.security import HmacNumberDigests
from adapters.system import TimeOrderedIds
from application.ports.runtime import StoredReply
from domain.accounts import Device, MobileNumber, Session, User
from domain.billing import SendingLimits
from domain.chat.chatrooms import Chatroom
from domain.chat.messages import Message, MessageStatus, Outcome
from domain.errors import DatabaseUnavailable, RefreshTokenInvalid
from domain.ids import ChatroomId, MessageId, SessionId, UserId
from local.postgres import EmbeddedPostgres
from tests.support.database import (
    connected,
    connections_out,
    execute,
    new_database,
    open_pool,
    open_transactions,
    run_apart,
)
from tests.support.patience import HANG, PROCESS_HANG
from tests.support.ports import free_port
from tests.support.workers import claim, new_worker

IDS = TimeOrderedIds()
USERS = PostgresUsers(HmacNumberDigests(key=b"key"))


@pytest.fixture(scope="module")
def own_database(postgres_url: str) -> Iterator[str]:
    with new_database(postgres_url) as url:
        yield url


@pytest.fixture(scope="module")
def own_server(data_dir: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(data_dir / "postgres-to-be-killed")
    asyncio.run(migrate(server.start()))
    yield server
    server.stop()


def new_user() -> User:
    number = MobileNumber(f"+9198{IDS.new().int % 10**8:08d}")
    return User(id=UserId(IDS.new()), mobile=number, name="Ann", created_at=datetime.now(UTC))


def new_message(room: Chatroom) -> Message:
    return Message(
        id=MessageId(UUID(int=2**128 - 1)),
        chatroom_id=room.id,
        user_id=room.user_id,
        input="Why?",
        created_at=datetime.now(UTC),
        queued_at=datetime.now(UTC),
        allowance_day=datetime.now(UTC).date(),
        max_output_tokens=10,
    )


async def unavailable(sql: str = "SELECT 1") -> None:
    """The statement fails as it should, and soon enough."""
    async with asyncio.timeout(HANG):
        with pytest.raises(DatabaseUnavailable):
            await rows(sql)


async def is_well(postgres: Postgres) -> bool:
    try:
        await postgres.check()
    except DatabaseUnavailable:
        return False
    return True


class TestLimits:
    async def test_a_pool_that_is_used_up_is_waited_for_and_no_longer(self, own_database: str) -> None:
        unit_of_work = PostgresUnitOfWork()
        all_in, leave = asyncio.Semaphore(0), asyncio.Event()

        async def stay() -> None:
            async with unit_of_work():
                await rows("SELECT 1")
                all_in.release()
                await leave.wait()

        async with connected(own_database, pool=3, acquire_seconds=0.5) as postgres:
            holders = [asyncio.create_task(stay()) for _ in range(3)]
            for _ in holders:
                await all_in.acquire()
            await unavailable()
            with pytest.raises(DatabaseUnavailable):
                await stay()
            with pytest.raises(DatabaseUnavailable):
                await USERS.find_by_mobile(MobileNumber("+919876543210"))
            with pytest.raises(DatabaseUnavailable):
                await postgres.check()
            leave.set()
            await asyncio.gather(*holders)
            await postgres.check()
            assert await connections_out() == 0

    async def test_who_waits_in_time_gets_one(self, own_database: str) -> None:
        async with connected(own_database, pool=2, acquire_seconds=HANG):
            found = await asyncio.gather(*(rows("SELECT pg_sleep(0.005), pg_backend_pid() AS pid") for _ in range(30)))
            assert len({row["pid"] for [row] in found}) == 2

    async def test_a_slow_statement_is_ended(self, own_database: str) -> None:
        async with connected(own_database, pool=1, statement_seconds=1):
            await unavailable("SELECT pg_sleep(60)")
            assert (await rows("SELECT 1 AS one"))[0]["one"] == 1
            assert await connections_out() == 0

    async def test_a_slow_statement_undoes_its_unit_of_work(self, own_database: str) -> None:
        user = new_user()

        async def work() -> None:
            async with PostgresUnitOfWork()():
                await USERS.add(user)
                await rows("SELECT pg_sleep(60)")

        async with connected(own_database, pool=1, statement_seconds=1):
            with pytest.raises(DatabaseUnavailable):
                await work()
            assert await USERS.find_by_mobile(user.mobile) is None
            assert await connections_out() == 0

    async def test_waiting_for_a_lock_counts_too(self, own_database: str) -> None:
        somebody = await asyncpg.connect(own_database)
        try:
            async with connected(own_database, pool=2, statement_seconds=1), somebody.transaction():
                await somebody.execute("LOCK TABLE queue_entries")
                with pytest.raises(DatabaseUnavailable):
                    await claim(PostgresMessages(), MessageId(IDS.new()), lease=timedelta(seconds=1))
                assert await connections_out() == 0
        finally:
            await somebody.close()


class TestAway:
    async def test_nobody_listens(self) -> None:
        async with connected(f"postgres://u:p@127.0.0.1:{free_port()}/d", acquire_seconds=1) as postgres:
            await unavailable()
            with pytest.raises(DatabaseUnavailable):
                await postgres.check()

    async def test_a_wrong_password_and_a_missing_database(self, own_database: str) -> None:
        head, _, name = own_database.rpartition("/")
        wrong_password = re.sub(r":[^:@/]+@", ":wrong@", own_database)
        details = {}
        for url in (wrong_password, f"{head}/{name}_missing"):
            async with connected(url) as postgres:
                await unavailable()
                with pytest.raises(DatabaseUnavailable) as caught:
                    await postgres.check()
                details[url] = caught.value.detail
        assert details[wrong_password] == "The database refused the user or the password."
        with pytest.raises(DatabaseUnavailable) as caught:
            await asyncio.to_thread(run_apart, migrate(wrong_password))
        assert caught.value.detail == "The database refused the user or the password."

    async def test_a_database_without_tables(self, postgres_url: str) -> None:
        with_nothing = asyncio.get_running_loop().run_in_executor
        database = new_database(postgres_url, migrated=False)
        url = await with_nothing(None, database.__enter__)
        try:
            async with connected(url) as postgres:
                questions: list[Callable[[], Awaitable[object]]] = [
                    postgres.check,  # below the ORM, and by it
                    lambda: PostgresSessions().find_user(SessionId(IDS.new())),
                    lambda: PostgresSessions().purge(now=datetime.now(UTC)),
                ]
                for question in questions:
                    with pytest.raises(DatabaseUnavailable) as caught:
                        await question()
                    assert caught.value.detail == "The database is not migrated. Run: gemini-backend migrate"
        finally:
            await with_nothing(None, database.__exit__, None, None, None)

    @pytest.mark.parametrize(
        "code",
        [
            "40P01", "40001", "25006", "57014", "57P01", "53300", "53100", "58030", "58P01", "55P03", "55006", "XX000",
            "XX001", "08006", "0A000",
        ],
    )  # fmt: skip
    async def test_what_may_do_at_the_next_try(self, own_database: str, code: str) -> None:
        """A deadlock, a conflict, a primary that was demoted, a statement ended, a shutdown, too many connections, a
        full disk, a broken disk, a missing file, a lock, an object in use, internal errors, a lost connection, an
        outdated plan."""
        async with connected(own_database, pool=1):
            await unavailable(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$")
            assert (await rows("SELECT 1 AS one"))[0]["one"] == 1
            assert await connections_out() == 0

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            ("28P01", "refused the user"), ("28000", "refused the user"), ("3D000", "does not exist"),
            ("3F000", "no schema"), ("42501", "privileges"), ("42P01", "not migrated"), ("26000", "DATABASE_POOLER"),
        ],
    )  # fmt: skip
    async def test_what_waits_for_an_operator(self, own_database: str, code: str, words: str) -> None:
        async with connected(own_database, pool=1):
            with pytest.raises(DatabaseUnavailable, match=words):
                await rows(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$")

    @pytest.mark.parametrize("code", ["22012", "23505", "42601", "42703", "P0001", "25P02", "22P02"])
    async def test_what_is_a_defect_stays_one_by_its_code(self, own_database: str, code: str) -> None:
        async with connected(own_database, pool=1):
            with pytest.raises(asyncpg.PostgresError):
                await rows(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$")

    async def test_what_is_a_defect_stays_one(self, own_database: str) -> None:
        async with connected(own_database, pool=1):
            with pytest.raises(Exception, match="nonsense") as caught:
                await rows("SELECT nonsense")
            assert not isinstance(caught.value, DatabaseUnavailable)
            assert await connections_out() == 0

    async def test_read_only_for_the_orm_too(self, own_database: str) -> None:
        async def work() -> None:
            async with PostgresUnitOfWork()():
                await rows("SET TRANSACTION READ ONLY")
                await USERS.add(new_user())

        async with connected(own_database, pool=1):
            with pytest.raises(DatabaseUnavailable):
                await work()

    async def test_of_two_that_wait_for_each_other_one_is_let_go(self, own_database: str) -> None:
        users = [new_user() for _ in range(2)]
        both = asyncio.Barrier(2)

        async def work(first: User, second: User) -> None:
            async with PostgresUnitOfWork()():
                await USERS.set_password(first.id, "hash")
                await both.wait()
                await USERS.set_password(second.id, "hash")

        async with connected(own_database, pool=3):
            for user in users:
                await USERS.add(user)
            async with asyncio.timeout(HANG):
                results = await asyncio.gather(work(*users), work(*users[::-1]), return_exceptions=True)
            assert sorted(type(result).__name__ for result in results) == ["DatabaseUnavailable", "NoneType"]
            assert await connections_out() == 0

    async def test_killed_under_running_statements_and_restarted(self, own_server: EmbeddedPostgres) -> None:
        kept = new_user()

        async def stay(begun: asyncio.Semaphore) -> None:
            async with PostgresUnitOfWork()():
                await USERS.add(new_user())
                begun.release()
                await rows("SELECT pg_sleep(60)")

        async with connected(own_server.url, pool=5, acquire_seconds=2) as postgres:
            await USERS.add(kept)
            begun = asyncio.Semaphore(0)
            tasks = [asyncio.create_task(stay(begun)) for _ in range(3)]
            for _ in tasks:
                await begun.acquire()
            own_server.kill()
            async with asyncio.timeout(HANG):
                results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(result) for result in results] == [DatabaseUnavailable] * 3
            await unavailable()
            await unavailable()
            assert await connections_out() == 0

            own_server.start()
            # By itself, at the first try, on every connection of the pool.
            found = await asyncio.gather(*(USERS.find_by_mobile(kept.mobile) for _ in range(10)))
            assert [user and user.id for user in found] == [kept.id] * 10
            await postgres.check()
            assert (await rows("SELECT count(*) AS n FROM users"))[0]["n"] == 1
            assert await connections_out() == 0

    async def test_restarted_while_nobody_looked(self, own_server: EmbeddedPostgres) -> None:
        """The pool's idle connections died with the server; nobody notices."""
        async with connected(own_server.url, pool=5):
            await asyncio.gather(*(rows("SELECT pg_sleep(0.02)") for _ in range(5)))
            own_server.stop()
            own_server.start()
            await asyncio.sleep(0.05)
            found = await asyncio.gather(*(rows("SELECT 1 AS one") for _ in range(5)))
            assert [row["one"] for (row,) in found] == [1] * 5

    async def test_away_at_the_start(self, own_server: EmbeddedPostgres) -> None:
        own_server.stop()
        async with connected(own_server.url, acquire_seconds=3) as postgres:
            await unavailable()
            own_server.start()
            await postgres.check()

    async def test_hung_and_back(self, own_server: EmbeddedPostgres) -> None:
        async with connected(own_server.url, pool=2, acquire_seconds=1, statement_seconds=1) as postgres:
            processes = [row["pid"] for row in await rows("SELECT pid FROM pg_stat_activity")]
            assert own_server.pid is not None
            processes.insert(0, own_server.pid)
            for process in processes:
                os.kill(process, signal.SIGSTOP)
            try:
                await unavailable()
                await unavailable()
                async with asyncio.timeout(HANG):
                    with pytest.raises(DatabaseUnavailable):
                        await postgres.check()
            finally:
                for process in processes:
                    os.kill(process, signal.SIGCONT)
            async with asyncio.timeout(HANG):
                while not await is_well(postgres):  # noqa: ASYNC110 - its processes go on one by one
                    await asyncio.sleep(0.05)
            assert await connections_out() == 0


class TestClientsThatLeave:
    async def test_leak_nothing(self, own_database: str) -> None:
        chance = random.Random(7)

        async def work() -> None:
            user = new_user()
            async with PostgresUnitOfWork()():
                await USERS.add(user)
                await rows("SELECT pg_sleep(0.002)")
                await USERS.set_password(user.id, "hash")
            await USERS.find_by_mobile(user.mobile)

        async with connected(own_database, pool=4, acquire_seconds=HANG):
            tasks = []
            for _ in range(200):
                tasks.append(asyncio.create_task(work()))
                asyncio.get_running_loop().call_later(chance.random() * 0.1, tasks[-1].cancel)
                if len(tasks) % 10 == 0:
                    await asyncio.sleep(0.002)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(result) for result in results} <= {type(None), asyncio.CancelledError}
            assert any(isinstance(result, asyncio.CancelledError) for result in results)
            assert await connections_out() == 0
            pool = await open_pool()
            assert pool.get_size() <= 4
            assert await open_transactions() == []
            half_written = await rows("SELECT id FROM users WHERE password_hash IS NULL")
            assert half_written == [], "a cancelled unit of work was committed"

    async def test_a_cancelled_statement_is_ended_in_the_server_too(self, own_database: str) -> None:
        async with connected(own_database, pool=2, statement_seconds=PROCESS_HANG):
            task = asyncio.create_task(rows("SELECT pg_sleep(161)"))
            count = "SELECT count(*) AS n FROM pg_stat_activity WHERE query LIKE '%sleep(161)%' AND state = 'active'"
            async with asyncio.timeout(HANG):
                while not (await rows(f"{count} AND pid <> pg_backend_pid()"))[0]["n"]:  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await connections_out() == 0
            assert await open_transactions() == []


HISTORY = """
    WITH owners AS (
      INSERT INTO users (id, mobile, name, chatrooms_version, created_at)
      SELECT gen_random_uuid(), '+91' || n, 'Ann', 0, now() FROM generate_series(1, 500) n RETURNING id
    ), devices AS (
      INSERT INTO sessions (id, created_at, last_seen_at, expires_at, device, network, user_id)
      SELECT gen_random_uuid(), now(), now(), now() + interval '1 h', '', '', id FROM owners, generate_series(1, 4)
    ), usage AS (
      INSERT INTO allowances (day, used, in_flight, minute_from, minute_used, user_id)
      SELECT current_date, 1, 0, now(), 1, id FROM owners
    ), keys AS (
      INSERT INTO idempotency_keys (scope, key, body_hash, resource_id, busy_until, status, reply, created_at)
      SELECT 'POST /chatroom', id::text || n, '', id, now(), 201, '{}', now() FROM owners, generate_series(1, 4) n
    ), rooms AS (
      INSERT INTO chatrooms (id, name, created_at, user_id)
      SELECT gen_random_uuid(), 'room', now(), id FROM owners, generate_series(1, 4) RETURNING id, user_id
    )
    INSERT INTO messages (id, input, created_at, status, attempt, failures, deaths, allowance_day, charged,
      queued_at, max_output_tokens, chatroom_id, user_id, response)
    SELECT gen_random_uuid(), 'input', now(), 'completed', 1, 0, 0, current_date, true, now(), 10,
      id, user_id, 'reply'
    FROM rooms, generate_series(1, 10)
"""


LONG_AND_SHORT = """
    WITH rooms AS (
      INSERT INTO chatrooms (id, name, created_at, user_id)
      SELECT gen_random_uuid(), name, now(), user_id
      FROM (SELECT user_id FROM allowances LIMIT 1) owner, unnest(ARRAY['long', 'short']) AS names (name)
      RETURNING id, user_id, name
    )
    INSERT INTO messages (id, input, created_at, status, attempt, failures, deaths, allowance_day, charged,
      queued_at, max_output_tokens, chatroom_id, user_id, response)
    SELECT gen_random_uuid(), 'input', now(), 'completed', 1, 0, 0, current_date, true, now(), 10,
      id, user_id, 'reply'
    FROM rooms, generate_series(1, CASE name WHEN 'long' THEN 10000 ELSE 20 END)
"""


@pytest.fixture(scope="module")
def history(postgres_url: str) -> Iterator[str]:
    with new_database(postgres_url) as url:
        asyncio.run(execute(url, HISTORY))
        asyncio.run(execute(url, "ANALYZE"))
        yield url


class TestPlans:
    """Rows read, by Postgres's own count, on a history of 20,000 messages of which none waits."""

    async def count(self) -> int:
        """Rows read so far, from indexes and from tables that were read from end to end."""
        await rows("SELECT pg_stat_force_next_flush()")
        [row] = await rows(
            "SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes)"
            " + (SELECT sum(seq_tup_read) FROM pg_stat_user_tables) AS read"
        )
        return int(row["read"])

    async def rows_read(self, history: str, call: Callable[[Chatroom], Awaitable[object]]) -> int:
        async with connected(history, pool=1):
            [row] = await rows("SELECT id, user_id, name, created_at FROM chatrooms WHERE name = 'room' LIMIT 1")
            before = await self.count()
            await call(Chatroom(**row))
            after = await self.count()
        return after - before

    async def test_the_sweep_reads_what_waits(self, history: str) -> None:
        messages = PostgresMessages()

        async def sweep(_: Chatroom) -> None:
            assert await messages.take_unnotified(limit=500, notified_before=timedelta(seconds=-1)) == []
            assert await messages.take_expired(limit=500, notified_before=timedelta(seconds=-1)) == []

        assert await self.rows_read(history, sweep) < 50

    async def test_a_page_of_a_room_reads_the_room(self, history: str) -> None:
        async def page(room: Chatroom) -> None:
            _, messages = await PostgresChatrooms().get_with_messages(room.id, room.user_id, limit=5)
            assert len(messages) == 5
            _, messages = await PostgresChatrooms().get_with_messages(
                room.id, room.user_id, limit=5, before=messages[-1].id
            )
            assert len(messages) == 5
            assert len((await PostgresMessages().context(new_message(room), limit=5)).earlier) == 5

        assert await self.rows_read(history, page) < 50

    async def test_a_list_of_rooms_reads_the_users(self, history: str) -> None:
        async def page(room: Chatroom) -> None:
            assert len(await PostgresChatrooms().list_for_user(room.user_id, limit=3)) == 3

        assert await self.rows_read(history, page) < 50

    async def test_a_message_is_sent_and_answered_by_its_keys(self, history: str) -> None:
        messages = PostgresMessages()

        async def answer(room: Chatroom) -> None:
            message = new_message(room)
            await messages.accept(message, limits=SendingLimits(daily=5))
            await claim(messages, message.id, lease=timedelta(seconds=9))
            await messages.renew(new_worker(), [(message.id, 1)])
            await messages.retry(message.id, 1, delay=timedelta())
            await claim(messages, message.id, lease=timedelta(seconds=9))
            await messages.cancel(message.id, room.id, room.user_id)
            assert await messages.cancel_requested() == {message.id}
            assert await messages.finish(message.id, 2, Outcome(status=MessageStatus.FAILED))
            assert await messages.ended([message.id]) == {message.id}
            await messages.regenerate(message, limits=SendingLimits(daily=5))
            await messages.cancel(message.id, room.id, room.user_id)
            await messages.get(message.id, room.id, room.user_id)
            await messages.allowance(room.user_id, day=message.allowance_day, total=5)

        assert await self.rows_read(history, answer) < 100

    async def test_a_room_is_changed_and_deleted_by_its_key(self, history: str) -> None:
        async def change(room: Chatroom) -> None:
            new = await PostgresChatrooms().add(replace(room, id=ChatroomId(IDS.new()), auto_title=True))
            await PostgresMessages().accept(replace(new_message(new), id=MessageId(IDS.new())), limits=SendingLimits())
            await PostgresChatrooms().change(new.id, new.user_id, instructions="Rhyme.")
            assert await PostgresChatrooms().set_title(new.id, "Poems")
            assert len(await PostgresChatrooms().delete(new.id, new.user_id)) == 1

        assert await self.rows_read(history, change) < 50

    async def test_a_long_room_costs_what_a_short_one_does(self, history: str) -> None:
        """10,000 messages against 20."""
        await execute(history, LONG_AND_SHORT)
        await execute(history, "ANALYZE")

        async def cost(name: str) -> int:
            async with connected(history, pool=1):
                [row] = await rows("SELECT id, user_id, name, created_at FROM chatrooms WHERE name = $1", name)
                room, messages = Chatroom(**row), PostgresMessages()
                ids = await rows("SELECT id FROM messages WHERE chatroom_id = $1 ORDER BY id", room.id)
                before = await self.count()
                _, found = await PostgresChatrooms().get_with_messages(
                    room.id, room.user_id, limit=9, before=MessageId(ids[len(ids) // 2]["id"])
                )
                assert len(found) == 9
                _, found = await PostgresChatrooms().get_with_messages(room.id, room.user_id, limit=10)
                assert len(found) == 10
                _, found = await PostgresChatrooms().get_with_messages(
                    room.id, room.user_id, limit=9, before=found[-1].id
                )
                assert len(found) == 9
                await messages.accept(replace(new_message(room), id=MessageId(IDS.new())), limits=SendingLimits())
                assert len((await messages.context(new_message(room), limit=19)).earlier) == 19
                return await self.count() - before

        assert await cost("long") == pytest.approx(await cost("short"), abs=20)
        assert await cost("long") < 100

    async def test_operators_read_what_they_ask_for(self, history: str) -> None:
        async def look(_: Chatroom) -> None:
            assert len(await PostgresMessages().list_by_status(MessageStatus.FAILED, limit=10)) < 10
            assert await PostgresMessages().requeue(MessageId(IDS.new())) is False

        assert await self.rows_read(history, look) < 50

    async def test_a_request_is_known_by_its_key(self, history: str) -> None:
        keys, busy_for = PostgresIdempotencyKeys(), timedelta(seconds=9)

        async def repeat(room: Chatroom) -> None:
            for _ in range(2):
                await keys.begin("POST /chatroom", "new", b"", new_id=room.id, busy_for=busy_for)
                await keys.finish("POST /chatroom", "new", StoredReply(201, b"{}"))
            await keys.abandon("POST /chatroom", "new")
            await keys.purge()

        assert await self.rows_read(history, repeat) < 50

    async def test_a_session_is_kept_alive_by_keys(self, history: str) -> None:
        sessions, now = PostgresSessions(), datetime.now(UTC)

        async def keep(room: Chatroom) -> None:
            session = Session.begin(SessionId(IDS.new()), room.user_id, Device(), now)
            token = session.id.bytes
            await sessions.add(session, token, token)
            for _ in range(3):
                await sessions.rotate(token, token + b"+", now=now)
                token += b"+"
            with pytest.raises(RefreshTokenInvalid):
                await sessions.rotate(session.id.bytes, session.id.bytes + b"+", now=now)
            await sessions.alive(room.user_id, now=now)

        assert await self.rows_read(history, keep) < 70

    async def test_an_account_is_deleted_by_keys(self, history: str) -> None:
        async def delete(room: Chatroom) -> None:
            await USERS.delete(room.user_id)

        # It has 40 messages in four rooms, and each is read more than once.
        assert await self.rows_read(history, delete) < 500

    async def test_a_caller_is_known_by_keys(self, history: str) -> None:
        async def authenticate(room: Chatroom) -> None:
            [session] = await rows("SELECT id FROM sessions WHERE user_id = $1 LIMIT 1", room.user_id)
            assert await PostgresSessions().find_user(session["id"])
            await PostgresSessions().end_all(room.user_id, now=datetime.now(UTC), keep=session["id"])

        assert await self.rows_read(history, authenticate) < 50


SESSIONS = """
    WITH owner AS (
      INSERT INTO users (id, mobile, name, chatrooms_version, created_at)
      VALUES (gen_random_uuid(), '+911', 'Ann', 0, now()) RETURNING id
    )
    INSERT INTO sessions (id, created_at, last_seen_at, expires_at, ended_at, device, network, user_id)
    SELECT gen_random_uuid(), now() - interval '20 d', seen, expires, ended, device, '', id
    FROM owner, generate_series(1, 600), (VALUES
        ('alive', now(), now() + interval '1 h', NULL),
        ('expired', now(), now() - interval '1 h', NULL),
        ('ended', now(), now() + interval '1 h', now() - interval '1 h'),
        ('idle', now() - interval '8 d', now() + interval '1 h', NULL)
    ) AS kinds (device, seen, expires, ended)
"""


@pytest.fixture
def many_sessions(postgres_url: str) -> Iterator[str]:
    """More than a batch of each kind."""
    with new_database(postgres_url) as url:
        asyncio.run(execute(url, SESSIONS))
        yield url


async def test_every_session_that_is_over_is_removed(many_sessions: str) -> None:
    async with connected(many_sessions, pool=1):
        await PostgresSessions().purge(now=datetime.now(UTC))
        left = await rows("SELECT device, count(*) AS n FROM sessions GROUP BY device")
    assert [(row["device"], row["n"]) for row in left] == [("alive", 600)]
