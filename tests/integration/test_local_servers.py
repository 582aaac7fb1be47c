"""Postgres and Valkey from their wheels: what outlives a crash, what is left behind, who may look in."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from local.embedded import EmbeddedServer
from local.files import LocalServerError, try_lock
from local.postgres import EmbeddedPostgres
from local.valkey import EmbeddedValkey
from tests.support.patience import PROCESS_HANG

ROOT = Path(__file__).parents[2]

LAUNCHER = """
import sys, time
from pathlib import Path
from local.postgres import EmbeddedPostgres
from local.files import LocalServerError
from local.valkey import EmbeddedValkey
from tests.support.patience import PROCESS_HANG
for kind in (EmbeddedPostgres, EmbeddedValkey):
    server = kind(Path(sys.argv[1], kind.name))
    try:
        server.start()
        print("runs", flush=True)
    except LocalServerError as error:
        print(error, flush=True)
    if sys.argv[2] == "stop":
        server.stop()
if sys.argv[2] == "stay":
    time.sleep(60)
"""


def launcher(data: Path, then: str, *options: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *options, "-c", LAUNCHER, str(data), then],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def crash(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


async def query(url: str, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(sql))
    finally:
        await connection.close()


def everybody_is_gone(server: EmbeddedServer) -> bool:
    lock = try_lock(server.data_dir / "lock", timeout=PROCESS_HANG)
    if lock is not None:
        os.close(lock)
    return lock is not None


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """Its path has blanks and quotes, and is longer than a socket's may be."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("Ann's data") / ("deep " * 20))
    yield server
    server.stop()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path / "it's Valkey's")
    yield server
    server.stop()


async def test_postgres_speaks_utf8_and_wants_its_password(postgres: EmbeddedPostgres) -> None:
    url = postgres.start()
    [row] = await query(url, "SELECT upper('äß'), current_database(), current_setting('server_version')")
    assert (row[0], row[1]) == ("Äß", "gemini")
    assert row[2].startswith("18.")

    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(url, password="wrong")


async def test_postgres_keeps_every_row_and_its_port_over_kill_9_and_stop(postgres: EmbeddedPostgres) -> None:
    url = postgres.start()
    await query(url, "CREATE TABLE kept AS SELECT generate_series(1, 100) AS n")
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGKILL)
    assert postgres.start() == url
    postgres.stop()
    assert postgres.start() == url
    assert await query(url, "SELECT count(*), sum(n) FROM kept") == [(100, 5050)]


async def test_postgres_starts_while_a_client_of_the_killed_one_is_still_connected(postgres: EmbeddedPostgres) -> None:
    """The killed server's backends outlive it for a moment, and Postgres refuses to start next to them."""
    url = postgres.start()
    connections = [await asyncpg.connect(url) for _ in range(20)]
    busy = asyncio.create_task(connections[0].execute("SELECT pg_sleep(30)"))
    await asyncio.sleep(0.1)
    postgres.kill()
    assert await query(postgres.start(), "SELECT 1") == [(1,)]
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await busy
    for connection in connections:
        connection.terminate()


async def test_a_server_that_was_left_running_is_replaced(postgres: EmbeddedPostgres) -> None:
    await query(postgres.start(), "CREATE TABLE inherited AS SELECT 7 AS n")
    with EmbeddedPostgres(postgres.data_dir) as url:
        assert postgres.exit_code == 0  # it was asked to stop, not killed
        assert await query(url, "SELECT n FROM inherited") == [(7,)]


async def test_a_stale_pid_file_with_the_number_of_a_stranger_harms_neither(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    postgres.kill()
    assert everybody_is_gone(postgres)
    pid_file = postgres.data_dir / "cluster" / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    assert await query(postgres.start(), "SELECT 1") == [(1,)]


async def test_what_an_interrupted_first_start_left_is_thrown_away(tmp_path: Path) -> None:
    first = launcher(tmp_path, "stay")
    half_made = tmp_path / "Postgres" / "cluster.new" / "data" / "global"
    while not half_made.exists():
        assert first.poll() is None
        await asyncio.sleep(0.005)
    crash(first)
    assert not (tmp_path / "Postgres" / "cluster").exists()
    with EmbeddedPostgres(tmp_path / "Postgres") as url:
        assert await query(url, "SELECT 1") == [(1,)]


def test_servers_end_when_their_launcher_is_killed(tmp_path: Path) -> None:
    process = launcher(tmp_path, "stay")
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["runs\n", "runs\n"]
    servers = EmbeddedPostgres(tmp_path / "Postgres"), EmbeddedValkey(tmp_path / "Valkey")
    assert [try_lock(server.data_dir / "lock") for server in servers] == [None, None]
    crash(process)
    assert [everybody_is_gone(server) for server in servers] == [True, True]


async def test_valkey_keeps_its_data_and_its_port_over_kill_9_and_stop(valkey: EmbeddedValkey) -> None:
    url = valkey.start()
    async with Redis.from_url(url) as redis:
        await redis.set("first", "1")
    valkey.stop()
    assert valkey.start() == url
    async with Redis.from_url(url) as redis:
        await redis.set("second", "2")
        await redis.waitaof(1, 0, 5000)
        assert (await redis.config_get("maxmemory-policy", "save")) == {"maxmemory-policy": "noeviction", "save": ""}
    assert valkey.pid is not None
    os.kill(valkey.pid, signal.SIGKILL)
    assert valkey.start() == url
    async with Redis.from_url(url) as redis:
        assert await redis.mget("first", "second") == [b"1", b"2"]


async def test_valkey_wants_its_password_and_replaces_one_left_running(valkey: EmbeddedValkey) -> None:
    valkey.start()
    with EmbeddedValkey(valkey.data_dir) as url:
        assert valkey.exit_code == 0
        async with Redis.from_url(url) as redis:
            assert await redis.ping()
        async with Redis.from_url(url.replace("://:", "://:x")) as redis:
            with pytest.raises(AuthenticationError):
                await redis.ping()


def test_passwords_are_in_private_files_alone(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> None:
    for server in (postgres, valkey):
        server.start()
        password = server.url.split(":")[2].split("@")[0]
        shown = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(server.pid)], capture_output=True, text=True)
        assert server.binary in shown.stdout
        assert password not in shown.stdout
        holders = [
            path
            for path in server.data_dir.rglob("*")
            if path.is_file() and path.stat().st_size < 10_000 and password.encode() in path.read_bytes()
        ]
        assert holders
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in holders)


def test_data_of_a_postgres_that_is_not_installed_is_refused_in_one_line(tmp_path: Path) -> None:
    data = tmp_path / "cluster" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(LocalServerError, match=r"^there is no Postgres 9 .* set DATABASE_URL .*$"):
        EmbeddedPostgres(tmp_path).start()


def test_without_the_wheels_one_line_says_what_to_set(tmp_path: Path) -> None:
    """-S leaves out everything that is installed."""
    lines = launcher(tmp_path, "stop", "-S").communicate()[0].splitlines()
    assert len(lines) == 2
    assert "set DATABASE_URL" in lines[0]
    assert "set REDIS_URL" in lines[1]


def test_root_without_user_namespaces_becomes_nobody_or_says_what_to_do() -> None:
    """For everybody else this is an ordinary start. Not in tmp_path, into which nobody else can see."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        lines = launcher(Path(folder), "stop", environment={"PATH": "/nowhere"}).communicate()[0].splitlines()
    assert lines[0] == "runs" or "start as an ordinary user" in lines[0]
    assert lines[1:] == ["runs"]
