"""Migrations beside a service that runs: what is locked is tried again, and nothing waits behind it for long."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
from tortoise.connection import get_connections

from adapters.postgres import migrate as migrations
from adapters.postgres.connection import ALIAS
from adapters.postgres.migrate import LOCATION, aerich_command, migrate, versions
from adapters.postgres.steps import MigrationRefused, Recorder, build_index, in_batches, locked, patience
from tests.support.database import execute, new_database
from tests.support.patience import HANG, PROCESS_HANG
from tests.support.processes import ROOT

STATE = versions()[-1].module.MODELS_STATE
WAITING = "SELECT count(*) AS n FROM pg_locks WHERE NOT granted"
OTHERS = (
    "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend'"
)


@pytest.fixture
def database(postgres_url: str) -> Iterator[str]:
    with new_database(postgres_url) as url:
        yield url


@pytest.fixture
def next_one(tmp_path: Path) -> Path:
    """A folder of migrations, with a file for one more."""
    models = tmp_path / "migrations" / "models"
    models.mkdir(parents=True)
    for version in versions():
        (models / version.name).symlink_to(Path(LOCATION, "models", version.name))
    return models / "99_20300101000000_next.py"


def write(file: Path, body: str, *, in_transaction: bool = True, imports: str = "") -> str:
    """The folder of migrations."""
    file.write_text(
        f"{imports}\nRUN_IN_TRANSACTION = {in_transaction}\nasync def upgrade(db):\n    {body}\n"
        f"async def downgrade(db): return ''\nMODELS_STATE = {STATE!r}\n"
    )
    return str(file.parents[1])


async def until(connection: asyncpg.Connection, question: str, *, at_least: int = 1) -> None:
    async with asyncio.timeout(HANG):
        while (await connection.fetchrow(question))["n"] < at_least:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)


@contextmanager
def migrating(database: str, location: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process, which is killed at the end."""
    script = (
        "import asyncio, sys; from adapters.postgres.migrate import migrate;"
        " asyncio.run(migrate(sys.argv[1], location=sys.argv[2]))"
    )
    process = subprocess.Popen([sys.executable, "-c", script, database, location], cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def apart(url: str) -> asyncpg.Connection:
    return await asyncpg.connect(url)


async def test_a_reader_delays_the_migration_and_nobody_else(database: str, next_one: Path) -> None:
    """It would otherwise wait for the reader, and every statement on the table for the migration."""
    location = write(next_one, "return 'ALTER TABLE messages ADD extra INT'")
    reader, person = await apart(database), await apart(database)
    reading = reader.transaction()
    await reading.start()
    await reader.fetch("SELECT id FROM messages")
    running = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(migrate(database, location=location))))
    passed = 0
    while passed < 3:  # each had waited behind the migration, and went on before the reader did
        await until(person, WAITING)
        async with asyncio.timeout(HANG):
            await person.fetch("SELECT id FROM messages WHERE id = gen_random_uuid()")
        passed += 1
    assert not running.done()
    await reading.rollback()
    assert await running == [next_one.name]
    for connection in (reader, person):
        await connection.close()


async def test_what_stays_locked_is_given_up_by_name(database: str, next_one: Path) -> None:
    location = write(next_one, "return 'ALTER TABLE messages ADD extra INT'")
    reader = await asyncpg.connect(database, server_settings={"application_name": "a-long-report"})
    async with reader.transaction():
        await reader.fetch("SELECT id FROM messages")
        await asyncio.sleep(2.1)  # what counts as long
        with pytest.raises(MigrationRefused, match=rf"\(pid {reader.get_server_pid()}: a-long-report, \d+ s\)"):
            await migrate(database, location=location, wait_seconds=0)
    await reader.close()
    assert await migrate(database, location=location) == [next_one.name]


async def test_an_interrupted_index_is_built_again(database: str, next_one: Path) -> None:
    """Killed while it waits for a transaction: the index is there, and not valid."""
    location = write(
        next_one,
        "await build_index(db, 'rooms_extra', '\"chatrooms\" (\"name\")'); return ''",
        in_transaction=False,
        imports="from adapters.postgres.steps import build_index",
    )
    writer, watcher = await apart(database), await apart(database)
    writing = writer.transaction()
    await writing.start()
    await writer.execute("INSERT INTO model_setup (id, seen_at) VALUES (7, now())")
    await writer.execute("LOCK TABLE chatrooms IN ROW EXCLUSIVE MODE")
    with migrating(database, location):
        await until(watcher, "SELECT count(*) AS n FROM pg_locks WHERE NOT granted AND locktype = 'virtualxid'")
    invalid = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('rooms_extra')"
    assert [row["indisvalid"] for row in await watcher.fetch(invalid)] == [False]
    await watcher.execute(  # as an operator may, or Postgres when it notices
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%'"
    )
    await writing.rollback()
    assert await migrate(database, location=location) == [next_one.name]
    assert [row["indisvalid"] for row in await watcher.fetch(invalid)] == [True]
    for connection in (writer, watcher):
        await connection.close()


async def test_a_partitioned_table_is_indexed_part_by_part(database: str, next_one: Path) -> None:
    """Each while it is written to; a run that was interrupted goes on, and later partitions have the index, too."""
    location = write(
        next_one,
        "await build_index(db, 'extra', '\"messages\" (\"input\")'); return ''",
        in_transaction=False,
        imports="from adapters.postgres.steps import build_index",
    )
    watcher = await apart(database)
    await watcher.execute('CREATE INDEX "messages_past_extra" ON "messages_past" ("input")')  # by an earlier run
    assert await migrate(database, location=location) == [next_one.name]
    indexed = (
        "SELECT bool_and(indisvalid), count(*) FROM pg_index JOIN pg_inherits ON inhrelid = indexrelid"
        " WHERE inhparent = 'extra'::regclass"
    )
    parts = await watcher.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent = 'messages'::regclass")
    assert tuple(await watcher.fetchrow(indexed)) == (True, parts)
    assert await watcher.fetchval("SELECT indisvalid FROM pg_index WHERE indexrelid = 'extra'::regclass")
    await watcher.close()


async def test_the_lock_ends_with_its_owner(database: str, next_one: Path) -> None:
    """Killed and hung: the next one goes on."""
    location = write(next_one, "await db.execute_script('SELECT pg_sleep(600)'); return ''", in_transaction=False)
    watcher = await apart(database)
    with migrating(database, location):
        await until(watcher, "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND granted")
        with pytest.raises(MigrationRefused, match="Another migrate has held its lock"):
            await migrate(database, wait_seconds=0)
    assert await asyncio.wait_for(migrate(database), PROCESS_HANG) == []
    await watcher.close()


async def test_who_has_lost_the_lock_stops(database: str, next_one: Path) -> None:
    location = write(next_one, "await db.execute_script('SELECT pg_sleep(600)'); return ''", in_transaction=False)
    watcher = await apart(database)
    running = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(migrate(database, location=location))))
    await until(watcher, "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND granted")
    await until(watcher, "SELECT count(*) AS n FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'")
    await watcher.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
    with pytest.raises(Exception, match="unavailable"):
        await asyncio.wait_for(running, PROCESS_HANG)
    await watcher.close()


async def test_a_lock_that_another_version_left_on_a_pooled_connection_is_named(database: str) -> None:
    holder = await apart(database)
    await holder.execute("SELECT pg_advisory_lock(7243392105)")
    with pytest.raises(MigrationRefused, match=rf"pid {holder.get_server_pid()} of Postgres"):
        await migrate(database, wait_seconds=0)
    await holder.close()


class TestParts:
    async def test_rows_are_changed_in_batches(self, database: str) -> None:
        await execute(
            database,
            "INSERT INTO payment_events (id, received_at) SELECT n::text, now() FROM generate_series(1, 250) n",
        )
        async with aerich_command(database):
            await in_batches(
                get_connections().get(ALIAS),
                "DELETE FROM payment_events WHERE id IN (SELECT id FROM payment_events LIMIT 100)",
                pause=0,
            )
        assert await execute(database, "SELECT id FROM payment_events") == []

    async def test_a_part_waits_as_a_whole_migration_does(self, database: str) -> None:
        reader = await apart(database)
        async with aerich_command(database):
            db = get_connections().get(ALIAS)
            async with reader.transaction():
                await reader.fetch("SELECT id FROM messages")
                with patience(0), pytest.raises(MigrationRefused):
                    await locked(db, "ALTER TABLE messages ADD extra INT")
                altering = asyncio.create_task(locked(db, "ALTER TABLE messages ADD extra INT"))
                await until(reader, WAITING)
            await asyncio.wait_for(altering, HANG)
        await reader.close()

    async def test_they_are_shown_without_a_database(self) -> None:
        recorder = Recorder()
        await locked(recorder, "ALTER TABLE messages ADD extra INT")
        await build_index(recorder, "messages_extra", '"messages" ("extra")', unique=True)
        await in_batches(recorder, "DELETE FROM messages WHERE false")
        assert recorder.statements == [
            "ALTER TABLE messages ADD extra INT",
            'CREATE UNIQUE INDEX CONCURRENTLY "messages_extra" ON "messages" ("extra")',
            "DELETE FROM messages WHERE false",
        ]


class TestHalfRestored:
    """pg_restore --clean over a newer database: the history is the backup's, the newer tables stay."""

    async def test_it_is_refused(self, database: str) -> None:
        await execute(database, "DELETE FROM aerich WHERE version >= '5'")
        with pytest.raises(MigrationRefused, match=r"The table \w+ exists, but 5_\w+\.py.*Restore it into an empty"):
            await migrate(database)

    async def test_so_is_a_column_that_exists(self, database: str, next_one: Path) -> None:
        location = write(next_one, "return 'ALTER TABLE messages ADD input TEXT'")
        with pytest.raises(MigrationRefused, match=r"99_\w+\.py does not fit.*restored over a newer database"):
            await migrate(database, location=location)
        assert [version.name for version in (await migrations.state(database)).pending] == []
