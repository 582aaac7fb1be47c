"""The plan of every named statement on tables that have grown: its cost does not depend on other people's data.

These are the generic plans, which Postgres makes without knowing the values. The long form prints them, and the time
that an operator's lists of messages take, on the rows of a large installation: PLANS_SCALE=1 is five million messages
of 100,000 users with two million sessions.

    PLANS_SCALE=0.2 .venv/bin/pytest tests/integration/test_plans.py -s
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from adapters.postgres.chat import PostgresMessages
from adapters.postgres.connection import SETTINGS
from adapters.postgres.statements import Statement, Statements
from domain.chat.messages import MessageStatus
from tests.integration.test_statements import NAMES as ALL_NAMES
from tests.support.database import connected, execute, new_database, open_pool, run_apart

Key = tuple[str, str]
#: A migration reads catalogs, once.
NAMES = [(area, name) for area, name in ALL_NAMES if area != "migrations"]

#: What reads a table from end to end, and why it may.
EXCEPTIONS: dict[Key, str] = {
    ("codes", "purge_previous"): "is empty once the previous version is gone",
    ("codes", "purge_sendings"): "holds the numbers of the last day",
    ("guesses", "purge"): "holds the numbers that somebody guessed at, and one statement in ten minutes reads them",
    ("messages", "list_completed"): "for operators: it ends at the limit, since most messages have a reply",
    ("setup", "refused_for"): "holds one row",
    ("users", "purge_days_use"): "holds the accounts that were deleted today",
}

#: What these hold does not grow with the history, so they may be read from end to end.
SMALL = {
    "queue_entries": "what is queued or being generated",
    "workers": "a row for each worker process",
    "deleted_chatrooms": "the rooms that are being erased",
    "aerich": "the migrations that were applied",
}


@dataclass(frozen=True, slots=True)
class Size:
    users: int = 3_000
    #: Of each user.
    sessions: int = 2
    rooms: int = 1
    #: In each room.
    messages: int = 4
    #: One in this number of messages is queued.
    queued: int = 20


SCALE = float(os.environ.get("PLANS_SCALE", 0))
#: The queue does not grow with the history.
SIZE = Size(round(100_000 * SCALE), sessions=20, rooms=5, messages=10, queued=5_000) if SCALE else Size()

GROWN = """
WITH owners AS (
    INSERT INTO users (id, mobile, name, chatrooms_version, created_at)
    SELECT gen_random_uuid(), '+91' || n, 'Ann', 0, now() FROM generate_series(1, $1::int) n RETURNING id
),
devices AS (
    INSERT INTO sessions (id, created_at, last_seen_at, expires_at, device, network, user_id, ended_at)
    SELECT gen_random_uuid(), now(), now(), now() + interval '1 h', '', '', id, CASE WHEN n = 1 THEN now() END
    FROM owners, generate_series(1, $2::int) n RETURNING id
),
tokens AS (
    INSERT INTO refresh_tokens (hash, session_id, expires_at)
    SELECT decode(md5(id::text), 'hex'), id, now() FROM devices
),
counters AS (
    INSERT INTO allowances (day, used, in_flight, minute_from, minute_used, user_id)
    SELECT current_date, 1, 0, now(), 1, id FROM owners
),
keys AS (
    INSERT INTO idempotency_keys (scope, key, body_hash, resource_id, busy_until, status, reply, created_at)
    SELECT id || ' create_chatroom', id::text, '', id, now(), 201, '{}', now() FROM owners
),
rooms AS (
    INSERT INTO chatrooms (id, name, created_at, user_id)
    SELECT uuidv7(), 'room', now(), id FROM owners, generate_series(1, $3::int) RETURNING id, user_id
),
asked AS (
    INSERT INTO messages (id, input, created_at, status, attempt, failures, deaths, allowance_day, charged, queued_at,
        max_output_tokens, chatroom_id, user_id, response)
    SELECT uuidv7(interval '1 month' * (n % 10 - 5)), 'input', now(),
        CASE WHEN row_number() OVER () % $5::int = 0 THEN 'queued' WHEN random() < 0.05 THEN 'failed'
            WHEN random() < 0.001 THEN 'blocked' ELSE 'completed' END,
        1, 0, 0, current_date, true, now(), 10, id, user_id, 'reply'
    FROM rooms, generate_series(1, $4::int) n RETURNING id, user_id, chatroom_id, status
),
queued AS (
    INSERT INTO queue_entries (message_id, chatroom_id, queued_at, due_at, notified_at, worker_id)
    SELECT id, chatroom_id, now(), now(), now(), CASE WHEN random() < 0.5 THEN gen_random_uuid() END
    FROM asked WHERE status = 'queued'
),
processes AS (
    INSERT INTO workers (id, lease_until) SELECT gen_random_uuid(), now() FROM generate_series(1, 20)
),
calls AS (
    INSERT INTO model_calls (user_id, message_id, attempt, purpose, model, outcome)
    SELECT user_id, id, 1, 'reply', '', 'completed' FROM asked
),
accounts AS (
    INSERT INTO billing_accounts (user_id, customer_id, customers, checkouts, changes, attempt, failures)
    SELECT id, id::text, 1, 0, 0, 0, 0 FROM owners
),
paid AS (
    INSERT INTO subscriptions (id, user_id, status, price_id, created_at)
    SELECT id::text, id, 'active', '', now() FROM owners
),
pages AS (
    INSERT INTO checkouts (id, user_id, expires_at, payment_intent_id, settled)
    SELECT id::text, id, now(), id::text, true FROM owners
),
events AS (
    INSERT INTO payment_events (id, received_at) SELECT id::text, now() FROM owners
),
codes AS (
    INSERT INTO one_time_codes
        (mobile, purpose, challenge_hash, code_hash, expires_at, guesses_left, unbound_left)
    SELECT left(id::text, 16), 'login', decode(md5(id::text), 'hex'), '', now(), 5, 5 FROM owners
),
earlier_codes AS (
    INSERT INTO otp_challenges (mobile, purpose, code_hash, expires_at, guesses_left)
    SELECT left(id::text, 16), 'login', '', now(), 5 FROM owners
),
known AS (
    INSERT INTO known_devices (hash, user_id, session_id, seen_at)
    SELECT decode(md5(id::text), 'hex'), id, id, now() - random() * interval '1 year' FROM owners
),
guesses AS (
    INSERT INTO wrong_guesses (number_digest, kind, wrong_at, in_a_row)
    SELECT left(id::text, 22), 'code', ARRAY[now()], 1 FROM owners
),
sent AS (
    INSERT INTO codes_sent (number_digest, sent_at) SELECT left(id::text, 22), ARRAY[now()] FROM owners
)
INSERT INTO kept_allowances
    (number_digest, day, used, minute_from, minute_used, input_tokens, output_tokens, empty_cuts)
SELECT left(id::text, 22), current_date, 1, now(), 1, 0, 0, 0 FROM owners
"""


PARTIAL_INDEXES = "SELECT relname AS name FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indpred IS NOT NULL"


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def is_unbounded(node: dict[str, Any], partial: set[str]) -> bool:
    """It reads a table, or an index of all of it, from end to end. A partial index has only what waits."""
    if node["Node Type"] in ("Index Scan", "Index Only Scan"):
        return "Index Cond" not in node and node["Index Name"] not in partial
    return bool(node["Node Type"] == "Seq Scan")


async def grow(url: str) -> None:
    """The rows refer to each other as they must, so the long form checks no foreign keys."""
    settings = {"session_replication_role": "replica", "work_mem": "256MB"} if SCALE else {}
    connection = await asyncpg.connect(url, server_settings=settings)
    try:
        await connection.execute(GROWN, SIZE.users, SIZE.sessions, SIZE.rooms, SIZE.messages, SIZE.queued)
    finally:
        await connection.close()
    await execute(url, "ANALYZE")


async def unbounded(url: str) -> dict[Key, list[str]]:
    """The tables that each statement reads from end to end."""
    connection = await asyncpg.connect(url, server_settings={**SETTINGS, "plan_cache_mode": "force_generic_plan"})
    found = {}
    try:
        partial = {row["name"] for row in await connection.fetch(PARTIAL_INDEXES)}
        for area, name in NAMES:
            statement: Statement = getattr(Statements(area), name)
            values = f"({', '.join('NULL' for _ in statement.parameters)})" if statement.parameters else ""
            await connection.execute(f"PREPARE it AS {statement.sql}")
            [plan] = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE it {values}"))
            if SCALE:
                lines = await connection.fetch(f"EXPLAIN EXECUTE it {values}")
                plan_text = "\n  ".join(line["QUERY PLAN"] for line in lines)
                print(f"\n{area}.{name}\n  {plan_text}")  # noqa: T201 - to be read
            await connection.execute("DEALLOCATE it")
            read = [node["Relation Name"] for node in nodes(plan["Plan"]) if is_unbounded(node, partial)]
            found[area, name] = [table for table in read if table not in SMALL and not table.startswith("pg_")]
    finally:
        await connection.close()
    return found


@pytest.fixture(scope="module")
def grown(postgres_url: str) -> Iterator[str]:
    with new_database(postgres_url) as url:
        asyncio.run(grow(url))
        yield url


@pytest.fixture(scope="module")
def reads(grown: str) -> dict[Key, list[str]]:
    return asyncio.run(unbounded(grown))


@pytest.mark.parametrize(("area", "name"), NAMES)
def test_it_reads_no_table_from_end_to_end(reads: dict[Key, list[str]], area: str, name: str) -> None:
    if (area, name) in EXCEPTIONS:
        assert reads[area, name], "the exception is obsolete"
    else:
        assert reads[area, name] == []


def test_a_scan_is_found(reads: dict[Key, list[str]]) -> None:
    assert reads["guesses", "purge"] == ["wrong_guesses"]


@pytest.mark.parametrize("status", [MessageStatus.FAILED, MessageStatus.BLOCKED, MessageStatus.COMPLETED])
def test_an_operator_lists_messages(grown: str, status: MessageStatus) -> None:
    async def listed() -> int:
        async with connected(grown):
            await open_pool()
            started = time.perf_counter()
            found = await PostgresMessages().list_by_status(status, limit=50)
            milliseconds = (time.perf_counter() - started) * 1000
            print(f"messages list --status {status}: {milliseconds:.1f} ms")  # noqa: T201 - to be read
            return len(found)

    assert run_apart(listed()) > 0
