"""The command line: settings that cannot be started with, help, check, and several processes of a kind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

import asyncpg
import httpx
import pytest

from entrypoints.settings import Settings, SettingsError
from tests.support.database import execute, new_database
from tests.support.gemini_standin import GeminiStandIn
from tests.support.http_client import http_client, sign_up
from tests.support.patience import HANG, PROCESS_HANG
from tests.support.processes import ROOT, ProductProcess, api_process

SECRET = "0123456789abcdef" * 4
GOOD = {
    "DATABASE_URL": "postgres://me:hush-hush@127.0.0.1:1/db",
    "REDIS_URL": "redis://:hush-hush@127.0.0.1:1/0",
    "ACCESS_TOKEN_SECRET": SECRET,
    "GEMINI_API_KEY": "hush-hush",
}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "entrypoints.cli", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=PROCESS_HANG,
    )


def assert_refused(ran: subprocess.CompletedProcess[str], *variables: str) -> None:
    """Exit code 2 and one line for each variable, in any order."""
    assert ran.returncode == 2, ran
    assert ran.stdout == ""
    lines = ran.stderr.splitlines()
    assert all(re.fullmatch(r"gemini-backend: [A-Z_]+[ :].+\.", line) for line in lines), ran.stderr
    assert sorted(re.split(r"[ :]+", line)[1] for line in lines) == sorted(variables)
    assert "hush" not in ran.stderr


@pytest.mark.parametrize(
    ("command", "needs"),
    [
        ("serve", ["DATABASE_URL", "REDIS_URL", "ACCESS_TOKEN_SECRET"]),
        ("worker", ["DATABASE_URL", "REDIS_URL", "GEMINI_API_KEY"]),
        ("migrate", ["DATABASE_URL"]),
        ("check", ["DATABASE_URL", "REDIS_URL"]),
    ],
)
def test_missing_settings_are_named(command: str, needs: list[str]) -> None:
    assert_refused(run(command), *needs)
    assert_refused(run(command, **{**GOOD, needs[-1]: ""}), needs[-1])


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
def test_wrong_settings_are_named_and_not_shown(command: str) -> None:
    wrong = {
        "DATABASE_URL": "mysql://me:hush-hush@db/db",
        "REDIS_URL": "redis://:hush-hush@db:hush/0",
        "ACCESS_TOKEN_SECRET": "hush-hush",
        "GEMINI_API_KEY": "hush-hush",
        "GEMINI_BASE_URL": "hush-hush",
        "APP_ENV": "hush",
        "PORT": "hush",
        "FREE_DAILY_MESSAGES": "-1",
        "DEFAULT_REGION": "hush",
        "REDIS_NAMESPACE": "HUSH HUSH",
    }
    assert_refused(run(command, **wrong), *wrong.keys() - {"GEMINI_API_KEY"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgres://me:hush-hush@db:hush/db"),
        ("DATABASE_URL", "postgres://me:hush-hush@[db/db"),
        ("DATABASE_URL", "postgres://db/hush?sslmod=hush"),
        ("REDIS_URL", "redis://:hush-hush@db:99999/0"),
        ("ACCESS_TOKEN_SECRET", "hush" * 20),
        ("ACCESS_TOKEN_SECRET", "0123456789abcdef0123456789abcde"),
        ("LEASE_SECONDS", "nan"),
        ("LEASE_SECONDS", "inf"),
        ("LEASE_SECONDS", "1e300"),
        ("LEASE_SECONDS", "0"),
        ("PORT", "65536"),
        ("PORT", "80.5"),
        ("OTP_IN_RESPONSE", "yes"),
        ("GEMINI_SDK", "hush"),
    ],
)
def test_a_value_that_cannot_work(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment({**GOOD, name: value})
    (line,) = refused.value.lines
    assert line.startswith(f"{name} ")
    assert "hush" not in line


def test_codes_in_replies_are_refused_in_production() -> None:
    assert_refused(run("serve", APP_ENV="production", **GOOD), "OTP_SENDER")
    assert_refused(run("serve", APP_ENV="production", OTP_SENDER="console", **GOOD), "OTP_SENDER")


@pytest.mark.parametrize("command", [[], ["up"], ["serve"], ["worker"], ["migrate"], ["check"], ["accounts", "unlock"]])
def test_help(command: list[str]) -> None:
    ran = run(*command, "--help")
    assert ran.returncode == 0
    assert ran.stderr == ""
    assert ran.stdout.startswith("usage: gemini-backend")


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["serve", "--workers", "0"], ["worker", "--workers", "two"], ["serve", "--port", "99999"],
     ["migrate", "more"]],
)  # fmt: skip
def test_wrong_arguments(arguments: list[str]) -> None:
    ran = run(*arguments, **GOOD)
    assert ran.returncode == 2
    assert "usage: gemini-backend" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for workers in ("1", "2"):
            ran = run("serve", "--port", port, "--workers", workers, **GOOD)
            assert ran.returncode == 2
            assert ran.stderr == (
                f"gemini-backend: HOST 127.0.0.1, PORT {port} cannot be listened on: Address already in use.\n"
            )


@pytest.mark.parametrize(
    ("environment", "arguments", "host"),
    [
        ({}, [], "127.0.0.1"),
        ({"APP_ENV": "production"}, [], "0.0.0.0"),  # noqa: S104 - a platform's PORT is asked for from outside
        ({"APP_ENV": "production", "HOST": "127.0.0.1"}, [], "127.0.0.1"),
        ({"APP_ENV": "production"}, ["--host", "127.0.0.1"], "127.0.0.1"),
    ],
)
def test_where_a_platforms_port_is_listened_on(environment: dict[str, str], arguments: list[str], host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        given = {**GOOD, **environment, "PORT": port, "OTP_IN_RESPONSE": "yes-this-is-a-demo"}
        assert f": HOST {host}, PORT {port} cannot be listened on" in run("serve", *arguments, **given).stderr


def test_migrate_and_check(product: dict[str, str], postgres_url: str) -> None:
    with new_database(postgres_url, migrated=False) as database_url:
        environment = {**product, "DATABASE_URL": database_url}
        unready = run("check", **environment)
        assert unready.returncode == 1
        assert "redis: ok" in unready.stdout.splitlines()
        assert "postgres: ok" not in unready.stdout.splitlines()
        first, second = run("migrate", **environment), run("migrate", **environment)
        assert (first.returncode, second.returncode) == (0, 0)
        assert first.stdout.startswith("applied ")
        assert second.stdout == "The database is up to date.\n"
        ready = run("check", **environment)
        assert ready.returncode == 0
        assert {"postgres: ok", "redis: ok", "gemini: ok"} <= set(ready.stdout.splitlines())


def test_check_and_migrate_without_servers() -> None:
    checked = run("check", **GOOD, GEMINI_BASE_URL="http://127.0.0.1:1")
    assert checked.returncode == 1
    parts = [line.split(":")[0] for line in checked.stdout.splitlines() if not line.startswith("  ")]
    assert parts == ["gemini-backend", "postgres", "redis", "gemini", "stripe", "sms"]
    migrated = run("migrate", **GOOD)
    assert migrated.returncode == 2
    assert migrated.stdout == ""
    assert (
        migrated.stderr.splitlines()[-1] == "gemini-backend: 127.0.0.1:1: nothing listens there (connection refused)."
    )
    assert "hush" not in checked.stderr + migrated.stderr


# --- several processes ---

_PS = ("ps", "-ww", "-e")


def children(parent: int) -> set[int]:
    """The processes that do the work, without multiprocessing's own helper."""
    found = subprocess.run(
        [*_PS, "-o", "pid=", "-o", "ppid=", "-o", "stat=", "-o", "args="], capture_output=True, text=True
    ).stdout
    rows = [line.split(maxsplit=3) for line in found.splitlines()]
    return {int(row[0]) for row in rows if row[1] == str(parent) and row[2][0] != "Z" and "spawn_main" in row[3]}


def until_children(parent: int, count: int, *, without: int | None = None) -> set[int]:
    give_up = time.monotonic() + PROCESS_HANG
    while len(found := children(parent)) != count or without in found:
        assert time.monotonic() < give_up, f"{found} instead of {count}"
        time.sleep(0.05)
    return found


def in_session(session: int) -> list[int]:
    """Each of the supervisor's processes has its own group; they share the session."""
    found = subprocess.run([*_PS, "-o", "pid=", "-o", "stat="], capture_output=True, text=True).stdout
    alive = [int(pid) for pid, state in map(str.split, found.splitlines()) if state[0] != "Z"]
    members = []
    for pid in alive:
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == session:
                members.append(pid)
    return members


def assert_nobody_is_left(session: int) -> None:
    give_up = time.monotonic() + PROCESS_HANG
    while left := in_session(session):
        assert time.monotonic() < give_up, left
        time.sleep(0.05)


async def test_an_api_of_two_processes(product: dict[str, str]) -> None:
    with api_process(product, workers=2) as (url, api):
        killed = min(until_children(api.process.pid, 2))
        os.kill(killed, signal.SIGKILL)
        async with http_client(url) as client:
            assert (await client.get("/health")).status_code == 200, "the other one still answers"
        until_children(api.process.pid, 2, without=killed)
        async with http_client(url) as client:
            await asyncio.gather(*(client.get("/ready") for _ in range(20)))
            assert api.stop() == 0
        assert_nobody_is_left(api.process.pid)


async def test_what_is_being_answered_is_answered_before_an_api_of_two_stops(product: dict[str, str]) -> None:
    with api_process(product, workers=2) as (url, api):
        until_children(api.process.pid, 2)
        async with http_client(url) as client:
            asha = await sign_up(client)
            somebody = await asyncpg.connect(product["DATABASE_URL"])
            try:
                async with somebody.transaction():
                    await somebody.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", UUID(asha.id))
                    asking = asyncio.create_task(asha.ask("POST", "/chatroom", {"name": "Physics"}))
                    async with asyncio.timeout(HANG):
                        while not await somebody.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110 - no event to wait on
                            await asyncio.sleep(0.01)
                    api.process.terminate()
                    await asyncio.sleep(1.2)
                    assert not asking.done()
                reply = await asking
            finally:
                await somebody.close()
        assert reply.status_code == 201, "it was cut"
        assert await asyncio.to_thread(api.stop) == 0
        assert_nobody_is_left(api.process.pid)


@contextmanager
def two_workers(environment: dict[str, str]) -> Iterator[ProductProcess]:
    workers = ProductProcess("worker", environment, "--workers", "2")
    try:
        yield workers
    finally:
        workers.kill()


async def test_two_workers(http: httpx.AsyncClient, product: dict[str, str], gemini_standin: GeminiStandIn) -> None:
    asha = await sign_up(http)
    room = await asha.room()
    with two_workers(product) as workers:
        assert (await asha.reply(room, await asha.send(room, "Why?")))["status"] == "completed"
        killed = min(until_children(workers.process.pid, 2))
        os.kill(killed, signal.SIGKILL)
        assert (await asha.reply(room, await asha.send(room, "And now?")))["status"] == "completed"
        until_children(workers.process.pid, 2, without=killed)
        assert workers.stop() == 0
        assert_nobody_is_left(workers.process.pid)


async def test_children_do_not_outlive_a_killed_parent(product: dict[str, str]) -> None:
    with api_process(product, workers=2) as (_, api):
        until_children(api.process.pid, 2)
        api.process.kill()
        api.process.wait()
        assert_nobody_is_left(api.process.pid)


async def test_an_operator_unlocks_a_number(http: httpx.AsyncClient, product: dict[str, str]) -> None:
    asha = await sign_up(http)

    async def guess(*, right: bool) -> httpx.Response:
        code = (await http.post("/auth/send-otp", json={"mobile": asha.mobile})).json()["otp"]
        wrong = f"{(int(code) + 1) % 10**6:06d}"
        return await http.post("/auth/verify-otp", json={"mobile": asha.mobile, "otp": code if right else wrong})

    async def unlock(number: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(run, "accounts", "unlock", number, **product)

    statuses = [(await guess(right=False)).status_code for _ in range(5)]
    assert statuses == [400] * 5
    # Many more of them, so that the wait is longer than a slow machine takes for what follows.
    await execute(product["DATABASE_URL"], "UPDATE wrong_guesses SET in_a_row = 20 WHERE in_a_row >= 5")
    assert (await guess(right=False)).status_code == 429
    assert (await guess(right=True)).json()["code"] == "too_many_guesses"

    ran = await unlock(asha.mobile)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "All wrong guesses are forgotten.\n", "")
    assert (await guess(right=True)).status_code == 200
    assert (await unlock(f"+91{asha.mobile}")).stdout.startswith(("All wrong", "No wrong"))

    refused = await unlock("12")
    assert refused.returncode == 2
    assert refused.stderr == "gemini-backend: This is not a valid mobile number.\n"
