"""Backups are restored into an empty database, as docs/operations.md says; older ones are migrated and go on."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.postgres.migrate import versions
from local.postgres import MAJOR, _binaries
from tests.support.database import execute, new_database
from tests.support.http_client import Person, http_client
from tests.support.patience import HANG, PROCESS_HANG
from tests.support.processes import ROOT, api_process, worker_process

FIRST_RELEASE = (ROOT / "tests" / "data" / "first_release.sql").read_text()
MOBILE = "9876543210"  # of the account in it
UNANSWERED = "SELECT id FROM messages WHERE status NOT IN ('completed', 'failed')"


@pytest.fixture
def empty(postgres_url: str) -> Iterator[str]:
    with new_database(postgres_url, migrated=False) as url:
        yield url


@pytest.fixture
def older(postgres_url: str) -> Iterator[str]:
    """The database of a deployment of the first release."""
    with new_database(postgres_url, migrated=False) as url:
        asyncio.run(execute_script(url, FIRST_RELEASE))
        yield url


async def execute_script(url: str, script: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        await connection.execute(script)
    finally:
        await connection.close()


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [_binaries(MAJOR) / name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PROCESS_HANG)


def backup_of(url: str, folder: Path) -> Path:
    file = folder / f"{secrets.token_hex(4)}.dump"
    done = tool("pg_dump", "--format=custom", f"--file={file}", url)
    assert done.returncode == 0, done.stderr
    return file


def restore(file: Path, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    return tool("pg_restore", "--no-owner", "--no-privileges", *options, f"--dbname={url}", file)


def migrate(url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "entrypoints.cli", "migrate"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=PROCESS_HANG,
    )


async def test_an_older_backup_goes_on(older: str, empty: str, tmp_path: Path, product: dict[str, str]) -> None:
    file = await asyncio.to_thread(backup_of, older, tmp_path)
    restored = await asyncio.to_thread(restore, file, empty, "--exit-on-error", "--single-transaction")
    assert restored.returncode == 0, restored.stderr
    migrated = await asyncio.to_thread(migrate, empty)
    assert migrated.returncode == 0, migrated.stderr
    assert migrated.stdout.count("applied ") == len(versions()) - 1

    environment = {**product, "DATABASE_URL": empty, "REDIS_NAMESPACE": f"test-{secrets.token_hex(6)}"}
    with api_process(environment) as (url, _), worker_process(environment):
        async with http_client(url) as http:
            code = (await http.post("/auth/send-otp", json={"mobile": MOBILE})).json()["otp"]
            signed_in = await http.post("/auth/verify-otp", json={"mobile": MOBILE, "otp": code})
            person = Person(http, signed_in.json()["user"]["id"], MOBILE, signed_in.json()["token"])
            [room] = (await person.get("/chatroom"))["data"]
            assert len((await person.get(f"/chatroom/{room['id']}"))["data"]["messages"]) == 4
            reply = await person.reply(room["id"], await person.send(room["id"], "And now?"))
            assert reply["status"] == "completed"
            async with asyncio.timeout(HANG):
                while await execute(empty, UNANSWERED):  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0.05)


def test_a_backup_of_today_needs_no_migration(older: str, empty: str, tmp_path: Path) -> None:
    assert migrate(older).returncode == 0
    restored = restore(backup_of(older, tmp_path), empty, "--exit-on-error", "--single-transaction")
    assert restored.returncode == 0, restored.stderr
    assert migrate(empty).stdout == "The database is up to date.\n"


def test_an_older_backup_over_a_newer_database_is_refused(older: str, empty: str, tmp_path: Path) -> None:
    """What was documented once: it leaves the tables that the backup does not know."""
    file = backup_of(older, tmp_path)
    assert migrate(empty).returncode == 0
    restore(file, empty, "--clean", "--if-exists")
    refused = migrate(empty)
    assert refused.returncode == 2
    assert "restored over a newer database. Restore it into an empty one" in refused.stderr
    assert "Traceback" not in refused.stderr
