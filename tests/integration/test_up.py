"""`gemini-backend up` as a person meets it: what it starts, what it says, what is left however it ends.

Most of them start a small product of the same command line in place of the real one, so that they take a second or two.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from local.files import try_lock
from tests.support.gemini_standin import GeminiStandIn
from tests.support.patience import HANG, PROCESS_HANG
from tests.support.ports import free_port

SMALL_PRODUCT = Path(__file__).parent / "local" / "small_product.py"
# With these, to which nothing connects, `up` starts no servers.
ELSEWHERE = {
    "DATABASE_URL": "postgres://me:hidden-password@127.0.0.1:1/db",
    "REDIS_URL": "redis://:hidden-password@127.0.0.1:1/0",
    "GEMINI_BASE_URL": "http://127.0.0.1:1",
    "STRIPE_API_BASE": "http://127.0.0.1:1",
}


class Up:
    def __init__(self, data: Path, settings: dict[str, str], product: Sequence[str | Path] = (SMALL_PRODUCT,)) -> None:
        self.data = data
        self.port = int(settings.get("PORT") or free_port())
        self.log = data.parent / f"up-{time.monotonic_ns()}.txt"
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, *product, "up"],
                env={"PATH": os.environ["PATH"], "DATA_DIR": str(data), "PORT": str(self.port), **settings},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def says(self, words: str) -> bool:
        return self.until(lambda: words in self.output)

    def until(self, holds: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + PROCESS_HANG
        while not holds():
            if time.monotonic() > deadline or self.process.poll() is not None:
                return holds()
            time.sleep(0.05)
        return True

    def ready(self) -> Up:
        assert self.says("Ctrl-C stops everything"), self.output
        return self

    def ask(self) -> dict[str, Any] | None:
        """What the small product knows of its environment."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=HANG)
        try:
            connection.request("GET", "/ready")
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        except OSError:
            return None
        else:
            return answer
        finally:
            connection.close()

    def ends(self) -> int:
        return self.process.wait(PROCESS_HANG)

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.ends()

    def nobody_is_left(self, patience: float) -> bool:
        """Every child holds one of these locks for as long as it lives."""
        for path in [*self.data.glob("programs.lock"), *self.data.glob("*/lock")]:
            lock = try_lock(path, timeout=patience)
            if lock is None:
                return False
            os.close(lock)
        return True


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(*product: str, **settings: str) -> Up:
        started.append(Up(tmp_path / "data", settings, product or [SMALL_PRODUCT]))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.end(signal.SIGTERM)
    assert all(one.nobody_is_left(patience=PROCESS_HANG) for one in started)


def stripe(environment: dict[str, str], path: str, form: str | None = None) -> dict[str, Any]:
    """What the stand-in answers to a call of Stripe's."""
    connection = HTTPConnection(urlsplit(environment["STRIPE_API_BASE"]).netloc, timeout=HANG)
    headers = {"Authorization": f"Bearer {environment['STRIPE_SECRET_KEY']}"}
    connection.request("POST" if form else "GET", path, form, headers)
    answer: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return answer


async def execute(url: str, sql: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_everything_comes_up_and_after_kill_9_nothing_is_left_and_all_comes_back(up: Callable[..., Up]) -> None:
    first = up().ready()
    assert [line for line in first.output.splitlines() if line.endswith(" …")] == [
        "Starting Postgres and Valkey with new data …",
        "Starting the Gemini stand-in …",
        "Starting the Stripe stand-in …",
        "Migrating the database …",
        "Starting the API and the worker …",
    ]
    product = first.ask()
    assert product is not None
    assert product["GEMINI_BASE_URL"].startswith("http://127.0.0.1:")
    assert product["GEMINI_API_KEY"] == "stand-in"
    assert len(product["ACCESS_TOKEN_SECRET"]) == 64
    assert product["STRIPE_API_BASE"].startswith("http://127.0.0.1:")
    assert product["STRIPE_SECRET_KEY"].startswith("sk_test_")
    assert product["STRIPE_WEBHOOK_SECRET"].startswith("whsec_")
    assert product["STRIPE_WEBHOOK_SECRET"] not in first.output
    customer = stripe(product, "/v1/customers", "email=person%40example.com")["id"]
    await execute(product["DATABASE_URL"], "CREATE TABLE kept AS SELECT 7 AS n")
    for variable in ("DATABASE_URL", "REDIS_URL"):
        assert product[variable].split(":")[2].split("@")[0] not in first.output

    account = first.data / "stripe" / "account.json"
    assert first.until(lambda: account.exists() and customer in account.read_text())
    first.end(signal.SIGKILL)
    assert first.nobody_is_left(patience=PROCESS_HANG)

    second = up().ready()
    product_again = second.ask()
    assert product_again is not None
    assert product_again["ACCESS_TOKEN_SECRET"] == product["ACCESS_TOKEN_SECRET"]
    assert product_again["STRIPE_WEBHOOK_SECRET"] == product["STRIPE_WEBHOOK_SECRET"]
    assert await execute(product_again["DATABASE_URL"], "SELECT n FROM kept") == 7
    assert stripe(product_again, f"/v1/customers/{customer}")["email"] == "person@example.com"
    assert stripe(product_again, f"/v1/prices/{product['STRIPE_PRICE_ID']}")["unit_amount"] == 999
    assert second.end(signal.SIGINT) == 0
    assert "Stopped." in second.output
    assert second.nobody_is_left(patience=0)


@pytest.mark.parametrize(
    ("key", "words"),
    [("invalid-key", "(API_KEY_INVALID)"), ("disabled-key", "(SERVICE_DISABLED)"), ("good-key", "Ctrl-C")],
)
def test_a_key_that_gemini_refuses_is_said(
    up: Callable[..., Up], gemini_standin: GeminiStandIn, key: str, words: str
) -> None:
    started = up(**ELSEWHERE | {"GEMINI_API_KEY": key, "GEMINI_BASE_URL": gemini_standin.url})
    assert started.says(words), started.output
    assert started.end(signal.SIGINT) == 0
    assert ("every message will fail" in started.output) == (key != "good-key")
    assert key not in started.output


def test_the_real_product_does_so_too(up: Callable[..., Up]) -> None:
    first = up("-m", "entrypoints.cli").ready()
    product = first.ask()
    assert product is not None
    first.end(signal.SIGKILL)
    assert first.nobody_is_left(patience=PROCESS_HANG)
    second = up("-m", "entrypoints.cli", PORT=str(first.port)).ready()
    assert second.ask()
    assert second.end(signal.SIGINT) == 0
    assert second.nobody_is_left(patience=0)


def test_a_new_one_comes_up_right_after_a_killed_one(up: Callable[..., Up]) -> None:
    """On the same port, which the dying API may still hold for a moment."""
    first = up(**ELSEWHERE).ready()
    first.end(signal.SIGKILL)
    assert up(**ELSEWHERE, PORT=str(first.port)).ready().ask()


async def test_what_dies_is_started_again_in_the_same_place(up: Callable[..., Up]) -> None:
    running = up(GEMINI_BASE_URL="http://127.0.0.1:1", STRIPE_API_BASE="http://127.0.0.1:1").ready()
    product = running.ask()
    assert product is not None
    postmaster = running.data / "postgres" / "cluster" / "data" / "postmaster.pid"
    os.kill(int(postmaster.read_text().splitlines()[0]), signal.SIGKILL)
    os.kill(product["pid"], signal.SIGKILL)
    assert running.says("Postgres is running again.")
    assert running.says("API is running again.")
    assert "API ended (exit code -9); restarting it in 1 s." in running.output
    assert running.until(lambda: running.ask() is not None)
    assert await execute(product["DATABASE_URL"], "SELECT 1") == 1


def test_servers_that_the_environment_names_are_used_and_their_passwords_are_not_shown(up: Callable[..., Up]) -> None:
    running = up(**ELSEWHERE).ready()
    product = running.ask()
    assert product is not None
    assert {name: product[name] for name in ELSEWHERE} == ELSEWHERE
    assert "hidden-password" not in running.output
    assert not (running.data / "postgres").exists()
    assert running.end(signal.SIGTERM) == 0


def test_a_taken_port_is_one_line(up: Callable[..., Up]) -> None:
    first = up(**ELSEWHERE).ready()
    second = Up(first.data.with_name("other"), {**ELSEWHERE, "PORT": str(first.port)})
    assert second.ends() == 1
    assert second.output == f"port {first.port} on 127.0.0.1 is taken; set PORT to another one\n"


def test_a_second_instance_on_the_same_data_is_one_line(up: Callable[..., Up]) -> None:
    first = up(**ELSEWHERE).ready()
    second = up(**ELSEWHERE)
    assert second.ends() == 1
    running = f"gemini-backend is already running on the data in {first.data} (process {first.process.pid})"
    assert second.output == f"{running}\n"


def test_a_wrong_setting_is_one_line(up: Callable[..., Up]) -> None:
    refused = up(PORT="8000", LEASE_SECONDS="none", DATABASE_URL="mysql://me:hidden-password@host/db")
    assert refused.ends() == 2
    lines = refused.output.splitlines()
    assert len(lines) == 2
    assert "hidden-password" not in refused.output


@pytest.mark.parametrize("command", ["migrate", "serve"])
def test_what_ends_while_starting_is_shown_with_its_log(up: Callable[..., Up], command: str) -> None:
    failed = up(**ELSEWHERE, SMALL_PRODUCT_FAILS=command)
    assert failed.ends() == 1
    assert f"{command} fails as configured" in failed.output
    assert "ended with exit code 3 while starting" in failed.output.splitlines()[-1]
    assert "Traceback" not in failed.output


def test_a_worker_that_keeps_ending_is_shown_with_its_log(up: Callable[..., Up]) -> None:
    """It may end before the API is ready, or be tried again after: either way the reason is on the screen."""
    failing = up(**ELSEWHERE, SMALL_PRODUCT_FAILS="worker")
    assert failing.says("exit code 3")
    assert "worker fails as configured" in failing.output


def test_a_second_ctrl_c_ends_at_once_what_does_not_want_to(up: Callable[..., Up]) -> None:
    running = up(**ELSEWHERE, SMALL_PRODUCT_IGNORES_SIGTERM="yes").ready()
    running.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert running.process.poll() is None
    assert running.end(signal.SIGINT) == 130
    assert running.nobody_is_left(patience=HANG)
