"""The schema: up, with rows present, down and up again, and in step with the ORM's models."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tortoise.context import TortoiseContext

from adapters.postgres.accounts import PostgresUsers
from adapters.postgres.budget import PostgresModelBudget
from adapters.postgres.chat import PostgresMessages
from adapters.postgres.chatrooms import PostgresChatrooms
from adapters.postgres.connection import rows, tortoise_config
from adapters.postgres.idempotency import PostgresIdempotencyKeys
from adapters.postgres.migrate import LOCATION, aerich_command, migrate
from adapters.postgres.migrate import versions as migrations
from adapters.security import HmacNumberDigests
from adapters.system import TimeOrderedIds
from application.ports.runtime import StartedRequest
from domain.accounts import MobileNumber, User
from domain.billing import FOREVER, SendingLimits
from domain.chat.chatrooms import Chatroom
from domain.chat.messages import Message, MessageStatus
from domain.ids import ChatroomId, MessageId, UserId
from entrypoints.container import Container
from tests.support.database import connected, execute, new_database
from tests.support.patience import PROCESS_HANG
from tests.support.workers import claim

ROOT = Path(__file__).parents[2]
VERSIONS = [version.name for version in migrations()]
TABLES = [
    "allowances",
    "billing_accounts",
    "chatrooms",
    "checkouts",
    "codes_sent",
    "codes_total",
    "deleted_chatrooms",
    "guess_budgets",
    "idempotency_keys",
    "kept_allowances",
    "known_devices",
    "messages",
    "model_budget",
    "model_calls",
    "model_setup",
    "one_time_codes",
    "otp_challenges",
    "otp_sendings",
    "payment_events",
    "queue_entries",
    "refresh_tokens",
    "sessions",
    "subscriptions",
    "users",
    "workers",
    "wrong_guesses",
]
#: The previous version still writes to these while it is replaced; the next release drops them.
RETIRED = ("guess_budgets", "otp_challenges", "otp_sendings")
RETIRED_COLUMNS = [("messages", name) for name in ("called", "due_at", "lease_until", "rung_at")]


@pytest.fixture
def empty_database(postgres_url: str) -> Iterator[str]:
    with new_database(postgres_url, migrated=False) as url:
        yield url


def tables(url: str) -> list[str]:
    found = asyncio.run(execute(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"))
    return [row["tablename"] for row in found if not re.fullmatch("aerich|messages_.*", row["tablename"])]


def versions(url: str) -> list[str]:
    return [row["version"] for row in asyncio.run(execute(url, "SELECT version FROM aerich ORDER BY id"))]


async def downgrade(url: str) -> list[str]:
    """One step at a time, the last first: aerich would undo several in the order in which they were made."""
    async with aerich_command(url) as command:
        return [name for _ in VERSIONS for name in await command.downgrade(-1, delete=False)]


async def write_and_read(url: str) -> Message:
    """A row in every table that a message needs, through the adapters."""
    ids, now = TimeOrderedIds(), datetime.now(UTC).replace(microsecond=0)
    async with connected(url):
        user = User(id=UserId(ids.new()), mobile=MobileNumber("+919876543210"), name="Ann", created_at=now)
        await PostgresUsers(HmacNumberDigests(key=b"key")).add(user)
        room = Chatroom(id=ChatroomId(ids.new()), user_id=user.id, name="Physics", created_at=now)
        await PostgresChatrooms().add(room)
        message = Message(
            id=MessageId(ids.new()),
            chatroom_id=room.id,
            user_id=user.id,
            input="Why?",
            created_at=now,
            queued_at=now,
            allowance_day=now.date(),
            max_output_tokens=10,
        )
        await PostgresMessages().accept(message, limits=SendingLimits(daily=5))
        assert await PostgresMessages().get(message.id, room.id, user.id) == message
        assert await PostgresModelBudget(10).reserve(within=0) == 0, "the row that the budget is kept in"
        kept = await PostgresIdempotencyKeys().begin("scope", "key", b"", new_id=message.id, busy_for=timedelta())
        assert kept == StartedRequest(message.id)
    return message


def test_up_down_and_up_again_with_rows(empty_database: str) -> None:
    assert asyncio.run(migrate(empty_database)) == VERSIONS
    assert tables(empty_database) == TABLES
    asyncio.run(write_and_read(empty_database))
    assert asyncio.run(migrate(empty_database)) == [], "a second run has nothing to do"
    assert asyncio.run(execute(empty_database, "SELECT count(*) AS n FROM messages"))[0]["n"] == 1

    assert asyncio.run(downgrade(empty_database)) == VERSIONS[::-1]
    assert tables(empty_database) == []
    assert versions(empty_database) == []

    assert asyncio.run(migrate(empty_database)) == VERSIONS
    assert tables(empty_database) == TABLES
    asyncio.run(write_and_read(empty_database))


OLD_ROWS = """
    WITH owner AS (
      INSERT INTO users (id, mobile, name, tier, chatrooms_version, created_at)
      SELECT gen_random_uuid(), '+919876543210', 'Ann', 'Basic', 1, now() RETURNING id
    ), counted AS (
      INSERT INTO allowances (day, used, in_flight, minute_from, minute_used, user_id)
      SELECT current_date, 4, 2, now(), 4, id FROM owner
    ), room AS (
      INSERT INTO chatrooms (id, name, created_at, user_id)
      SELECT gen_random_uuid(), 'room', now(), id FROM owner RETURNING id, user_id
    )
    INSERT INTO messages (id, input, created_at, status, attempt, failures, deaths, allowance_day, charged,
      queued_at, max_output_tokens, due_at, rung_at, lease_until, response, chatroom_id, user_id)
    SELECT gen_random_uuid(), 'input', now(), status, 1, 0, 0, current_date, true, now(), 10, now(), now(),
      now(), 'response', id, user_id
    FROM room, unnest(ARRAY['completed', 'failed', 'queued', 'generating']) AS states (status)
"""


def old_rows(url: str) -> list[object]:
    """What the first schema has of chatrooms, messages and allowances."""
    return [
        [tuple(row) for row in asyncio.run(execute(url, question))]
        for question in (
            "SELECT id, name, created_at, user_id FROM chatrooms",
            "SELECT day, used, in_flight, minute_from, minute_used, user_id FROM allowances",
            "SELECT id, input, status, response, attempt, due_at, lease_until FROM messages ORDER BY status",
        )
    ]


def test_conversations_of_the_first_schema_go_on(empty_database: str, tmp_path: Path) -> None:
    async def first_only(location: str) -> None:
        async with aerich_command(empty_database, location=location) as command:
            assert await command.upgrade() == VERSIONS[:1]

    async def go_on() -> None:
        async with connected(empty_database):
            [row] = await rows("SELECT DISTINCT chatroom_id, user_id FROM messages")
            room, views = await PostgresChatrooms().get_with_messages(row["chatroom_id"], row["user_id"], limit=9)
            found = [await PostgresMessages().get(view.id, room.id, room.user_id) for view in views]
            assert (room.instructions, room.auto_title) == (None, False)
            assert [message.cancel_requested for message in found] == [False] * 4
            assert await PostgresMessages().cancel_requested() == set()
            counted = await PostgresMessages().allowance(room.user_id, day=found[0].allowance_day, total=5)
            assert (counted.used, counted.input_tokens, counted.output_tokens) == (4, 0, 0)
            waiting = next(message for message in found if message.status is MessageStatus.GENERATING)
            assert await claim(PostgresMessages(), waiting.id, lease=timedelta(hours=1))
            assert (await PostgresMessages().cancel(waiting.id, room.id, room.user_id)).cancel_requested
            assert await PostgresMessages().cancel_requested() == {waiting.id}
            assert len((await PostgresMessages().context(waiting, limit=9)).earlier) <= 1

    async def back_to_the_first() -> None:
        async with aerich_command(empty_database) as command:
            for _ in VERSIONS[1:]:
                await command.downgrade(-1, delete=False)

    location = shutil.copytree(LOCATION, tmp_path / "migrations")
    for version in VERSIONS[1:]:
        Path(location, "models", version).unlink()
    asyncio.run(first_only(str(location)))
    asyncio.run(execute(empty_database, OLD_ROWS))
    before = old_rows(empty_database)
    assert asyncio.run(migrate(empty_database)) == VERSIONS[1:]
    assert old_rows(empty_database)[:2] == before[:2]
    asyncio.run(back_to_the_first())
    assert versions(empty_database) == VERSIONS[:1]
    assert old_rows(empty_database) == before
    assert asyncio.run(migrate(empty_database)) == VERSIONS[1:]
    asyncio.run(go_on())


def test_who_was_pro_before_subscriptions_stays_it(empty_database: str) -> None:
    async def back_to_tiers() -> None:
        async with aerich_command(empty_database) as command:
            for _ in VERSIONS[2:]:
                await command.downgrade(-1, delete=False)

    def seen(column: str) -> list[object]:
        found = asyncio.run(execute(empty_database, f"SELECT {column} AS value FROM users ORDER BY mobile"))  # noqa: S608
        return [row["value"] for row in found]

    asyncio.run(migrate(empty_database))
    asyncio.run(back_to_tiers())
    insert = (
        "INSERT INTO users (id, mobile, name, tier, chatrooms_version, created_at)"
        " SELECT gen_random_uuid(), mobile, 'Ann', tier, 1, now()"
        " FROM (VALUES ('+911', 'Basic'), ('+912', 'Pro')) AS people (mobile, tier)"
    )
    asyncio.run(execute(empty_database, insert))
    assert asyncio.run(migrate(empty_database)) == VERSIONS[2:]
    assert seen("pro_until") == [None, FOREVER]

    ends = "now() + CASE mobile WHEN '+911' THEN interval '1 day' ELSE interval '-1 s' END"
    asyncio.run(execute(empty_database, f"UPDATE users SET pro_until = {ends}"))  # noqa: S608
    asyncio.run(back_to_tiers())
    assert seen("tier") == ["Pro", "Basic"], "what they are at that moment"
    assert asyncio.run(migrate(empty_database)) == VERSIONS[2:]


async def test_in_a_process_that_is_connected_elsewhere(empty_database: str, container: Container) -> None:
    """It migrates the given database only, and the container stays connected."""
    assert await migrate(empty_database) == VERSIONS
    await container.postgres().check()


def test_processes_that_migrate_at_once_wait_for_each_other(empty_database: str) -> None:
    command = [sys.executable, "-m", "entrypoints.cli", "migrate"]
    environment = {**os.environ, "DATABASE_URL": empty_database}
    started = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=PROCESS_HANG)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], outputs
    applied = [line for output in outputs for line in output.splitlines() if line.startswith("applied")]
    assert sorted(applied) == sorted(f"applied {version}" for version in VERSIONS)
    assert tables(empty_database) == TABLES
    assert versions(empty_database) == VERSIONS


COLUMNS = """
    SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, column_default
    FROM information_schema.columns WHERE table_schema = 'public' AND table_name !~ '^(aerich|messages_.*)$'
    ORDER BY table_name, column_name
"""
CONSTRAINTS = """
    SELECT conrelid::regclass::text AS "table", contype::text AS kind, pg_get_constraintdef(oid) AS definition
    FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text !~ '^(aerich|messages_.*)$'
    ORDER BY 1, 2, 3
"""
#: Those with a condition or an operator class are the migrations' own: the ORM cannot say them.
INDEXES = """
    SELECT tablename, regexp_replace(replace(indexdef, ' ON ONLY ', ' ON '), 'INDEX \\S+', 'INDEX') AS definition
    FROM pg_indexes
    WHERE schemaname = 'public' AND tablename !~ '^(aerich|messages_.*)$' AND indexdef NOT LIKE '%WHERE%'
    AND indexdef NOT LIKE '%_pattern_ops%' ORDER BY 1, 2
"""


@pytest.mark.parametrize("question", [COLUMNS, CONSTRAINTS, INDEXES], ids=["columns", "constraints", "indexes"])
def test_migrations_make_what_the_models_say(empty_database: str, database_url: str, question: str) -> None:
    async def generate() -> None:
        async with TortoiseContext() as tortoise:
            await tortoise.init(config=tortoise_config(empty_database, own_errors=False))
            await tortoise.generate_schemas()

    asyncio.run(generate())
    generated, migrated = [
        [
            tuple(row)
            for row in asyncio.run(execute(url, question))
            if row[0] not in RETIRED and row[:2] not in RETIRED_COLUMNS
        ]
        for url in (empty_database, database_url)
    ]
    assert migrated == generated
    assert migrated


def test_the_queues_partial_indexes_are_there(database_url: str) -> None:
    found = asyncio.run(execute(database_url, "SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%WHERE%'"))
    assert {row["indexname"] for row in found} >= {
        "checkouts_settled",
        "messages_unanswered",
        "queue_entries_cancel_requested",
    }


def test_no_model_has_changed_without_a_migration(database_url: str, tmp_path: Path) -> None:
    location = shutil.copytree(LOCATION, tmp_path / "migrations")  # it would write the missing one there

    async def missing() -> str | None:
        async with aerich_command(database_url, location=str(location)) as command:
            return await command.migrate("missing", no_input=True)

    assert asyncio.run(missing()) == ""
