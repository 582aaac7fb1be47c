"""`gemini-backend check`: what it says about servers and keys, as they are and as they should not be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from adapters.clocks import clock_fact
from adapters.postgres.pooler import set_role_settings
from local.valkey import EmbeddedValkey
from tests.support.database import execute, new_database
from tests.support.gemini_standin import GeminiStandIn
from tests.support.patience import HANG, PROCESS_HANG
from tests.support.pooler import transaction_pooler
from tests.support.processes import ROOT
from tests.support.stripe_standin import PRICE, StripeStandIn
from tests.support.twilio_standin import ACCOUNT, SENDER, TOKEN, TwilioStandIn, twilio_standin

CANARY = "hunter2hunter2"


def check(environment: dict[str, str], *, code: int, seconds: float = HANG) -> dict[str, Any]:
    """Each part by its name. What is printed for people says the same."""
    command = [sys.executable, "-m", "entrypoints.cli", "check", "--seconds", f"{seconds:.0f}"]
    printed = {}
    for option in ("--json", ""):
        done = subprocess.run(
            [*command, *option.split()],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], **environment},
            capture_output=True,
            text=True,
            timeout=PROCESS_HANG,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        for secret in (CANARY, TOKEN, *filter(None, (urlsplit(url).password for url in environment.values()))):
            assert secret not in done.stdout + done.stderr
        printed[option] = done.stdout
    report = json.loads(printed["--json"])
    assert report["usable"] == (code == 0)
    parts = {part["name"]: part for part in report["parts"]}
    lines = printed[""].splitlines()
    for name, part in parts.items():
        assert f"{name}: {part['detail'] or part['state']}" in lines or part["detail"]
        for fact in part["facts"]:
            assert any(line.startswith(f"  {fact}: ") for line in lines)
    return parts


@pytest.fixture
async def twilio() -> AsyncIterator[TwilioStandIn]:
    async with twilio_standin() as standin:
        yield standin


@pytest.fixture
def database(postgres_url: str) -> Iterator[str]:
    with new_database(postgres_url) as url:
        yield url


@pytest.fixture
def valkey() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="gemini-test-") as folder, EmbeddedValkey(Path(folder) / "valkey") as url:
        yield url


async def test_everything_works(
    environment: dict[str, str], twilio: TwilioStandIn, gemini_standin: GeminiStandIn, stripe_standin: StripeStandIn
) -> None:
    vendors = {
        "STRIPE_SECRET_KEY": "sk_test_standin",
        "STRIPE_PRICE_ID": PRICE,
        "STRIPE_WEBHOOK_SECRET": CANARY,
        "STRIPE_API_BASE": stripe_standin.url,
        "OTP_SENDER": "twilio",
        "TWILIO_ACCOUNT_SID": ACCOUNT,
        "TWILIO_AUTH_TOKEN": TOKEN,
        "TWILIO_FROM": SENDER,
        "TWILIO_API_BASE": twilio.url,
    }
    parts = await asyncio.to_thread(check, {**environment, **vendors}, code=0)
    assert list(parts) == ["gemini-backend", "postgres", "redis", "gemini", "stripe", "sms"]
    assert all(part["state"] == "ok" for part in parts.values())
    postgres = parts["postgres"]["facts"]
    assert int(postgres["version"].partition(".")[0]) >= 14
    assert (postgres["schema"], postgres["privileges"], postgres["writes"]) == ("up to date", "complete", "accepted")
    assert (postgres["tls"], postgres["pooler"], postgres["clock"]) == ("off", "none", "the same as here")
    assert "more processes with POSTGRES_POOL 20" in postgres["connections"]
    assert parts["redis"]["facts"]["version"].startswith("Valkey ")
    assert parts["redis"]["facts"]["eviction"] == "noeviction"
    assert parts["stripe"]["facts"]["price"].startswith("999 of the smallest unit of usd, per month")
    assert parts["sms"]["facts"] == {"account": "active", "channel": "sms"}
    assert twilio.sent == []


def test_what_is_not_set_up_does_not_count(environment: dict[str, str]) -> None:
    parts = check({**environment, "GEMINI_API_KEY": ""}, code=0)
    assert {name: parts[name]["state"] for name in ("gemini", "stripe", "sms")} == dict.fromkeys(
        ("gemini", "stripe", "sms"), "off"
    )


async def test_keys_that_vendors_do_not_accept(
    environment: dict[str, str], twilio: TwilioStandIn, gemini_standin: GeminiStandIn, stripe_standin: StripeStandIn
) -> None:
    wrong = {
        "GEMINI_API_KEY": "invalid-key",
        "STRIPE_SECRET_KEY": "sk_test_standin",
        "STRIPE_PRICE_ID": "price_of_another_account",
        "STRIPE_WEBHOOK_SECRET": CANARY,
        "STRIPE_API_BASE": stripe_standin.url,
        "OTP_SENDER": "twilio",
        "TWILIO_ACCOUNT_SID": ACCOUNT,
        "TWILIO_AUTH_TOKEN": CANARY,
        "TWILIO_FROM": SENDER,
        "TWILIO_API_BASE": twilio.url,
    }
    parts = await asyncio.to_thread(check, {**environment, **wrong}, code=1)
    assert {name: parts[name]["state"] for name in ("postgres", "redis")} == {"postgres": "ok", "redis": "ok"}
    assert parts["gemini"]["detail"].endswith("(API_KEY_INVALID)")
    assert "STRIPE_PRICE_ID" in parts["stripe"]["detail"]
    assert parts["sms"]["detail"] == "Twilio does not accept TWILIO_ACCOUNT_SID with TWILIO_AUTH_TOKEN (20003)."
    assert {parts[name]["state"] for name in ("gemini", "stripe", "sms")} == {"failed"}


def test_vendors_that_cannot_be_reached_are_not_this_deployments_fault(environment: dict[str, str]) -> None:
    nowhere = "http://127.0.0.1:1"
    away = {
        "GEMINI_BASE_URL": nowhere,
        "STRIPE_SECRET_KEY": "sk_test_standin",
        "STRIPE_PRICE_ID": PRICE,
        "STRIPE_WEBHOOK_SECRET": CANARY,
        "STRIPE_API_BASE": nowhere,
        "OTP_SENDER": "twilio",
        "TWILIO_ACCOUNT_SID": ACCOUNT,
        "TWILIO_AUTH_TOKEN": CANARY,
        "TWILIO_FROM": SENDER,
        "TWILIO_API_BASE": nowhere,
    }
    parts = check({**environment, **away}, code=0)
    assert {name: parts[name]["state"] for name in ("gemini", "stripe", "sms")} == dict.fromkeys(
        ("gemini", "stripe", "sms"), "unknown"
    )


@contextmanager
def mute_server() -> Iterator[int]:
    """Accepts connections and says nothing, as a server that hangs: its port."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(listener.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in held:
                connection.close()


def test_servers_that_hang_do_not_hold_it_up() -> None:
    """Each of them alone would take longer than the process has: it ends all the same."""
    with mute_server() as port:
        hanging = {
            "DATABASE_URL": f"postgres://me:{CANARY}@127.0.0.1:{port}/db",
            "REDIS_URL": f"redis://:{CANARY}@127.0.0.1:{port}/0",
            "GEMINI_API_KEY": CANARY,
            "GEMINI_BASE_URL": f"http://127.0.0.1:{port}",
            "POSTGRES_ACQUIRE_SECONDS": "1000",
            "REDIS_COMMAND_SECONDS": "1000",
        }
        parts = check(hanging, code=1, seconds=2)
    assert [parts[name]["state"] for name in ("postgres", "redis", "gemini")] == ["failed", "failed", "unknown"]


async def test_the_state_of_the_schema(environment: dict[str, str], postgres_url: str) -> None:
    def state_of(url: str, code: int) -> tuple[str, str]:
        part = check({**environment, "GEMINI_API_KEY": "", "DATABASE_URL": url}, code=code)["postgres"]
        return part["facts"]["schema"], part["warnings"].get("schema", "")

    run = asyncio.to_thread
    databases = contextlib.ExitStack()
    with databases:
        empty = await run(databases.enter_context, new_database(postgres_url, migrated=False))
        full = await run(databases.enter_context, new_database(postgres_url))
        assert await run(state_of, empty, 1) == ("not migrated", "Run: gemini-backend migrate")
        await execute(full, "INSERT INTO aerich (version, app, content) VALUES ('999_later.py', 'models', '{}')")
        assert (await run(state_of, full, 0))[0].startswith("ahead by 1 ")
        await execute(
            full, "DELETE FROM aerich WHERE id = (SELECT max(id) FROM aerich WHERE version <> '999_later.py')"
        )
        assert await run(state_of, full, 1) == ("behind by 1 migrations", "Run: gemini-backend migrate")
        await run(databases.close)


async def test_privileges_that_are_missing(environment: dict[str, str], database: str) -> None:
    role = f"limited_{secrets.token_hex(4)}"
    await execute(database, f"CREATE ROLE {role} LOGIN PASSWORD '{CANARY}' CONNECTION LIMIT 10")
    try:
        await execute(database, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
        await execute(database, f"REVOKE DELETE, INSERT ON chatrooms FROM {role}")
        limited = urlsplit(database)._replace(netloc=f"{role}:{CANARY}@{urlsplit(database).netloc.split('@')[1]}")
        parts = await asyncio.to_thread(
            check, {**environment, "GEMINI_API_KEY": "", "DATABASE_URL": limited.geturl()}, code=1
        )
        postgres = parts["postgres"]
        assert postgres["facts"]["privileges"] == "missing: INSERT, DELETE on chatrooms"
        assert postgres["warnings"].keys() == {"privileges", "connections"}
        assert " of 10 free, enough for 0 more processes" in postgres["facts"]["connections"]
        assert postgres["facts"]["role"] == role
    finally:
        await execute(database, f"DROP OWNED BY {role}")
        await execute(database, f"DROP ROLE {role}")


def test_a_pooler_is_recognised(environment: dict[str, str], database: str) -> None:
    with transaction_pooler(database) as (pooled, _):
        part = check({**environment, "GEMINI_API_KEY": "", "DATABASE_URL": pooled}, code=0)["postgres"]
    assert part["facts"]["pooler"] == "yes: connections are shared"
    assert part["facts"]["schema"] == "up to date"


async def test_settings_that_the_role_lacks_behind_a_pooler(environment: dict[str, str], database: str) -> None:
    async def warnings() -> dict[str, str]:
        with transaction_pooler(database) as (pooled, _):
            given = {**environment, "GEMINI_API_KEY": "", "DATABASE_URL": pooled}
            found: dict[str, str] = (await asyncio.to_thread(check, given, code=0))["postgres"]["warnings"]
            await set_role_settings(pooled)
        return found

    assert "jit=off, enable_bitmapscan=off, enable_seqscan=off: gemini-backend migrate" in (await warnings())["pooler"]
    assert "pooler" not in await warnings()


async def test_a_database_that_only_reads(environment: dict[str, str], database: str) -> None:
    name = urlsplit(database).path.lstrip("/")
    await execute(database, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    parts = await asyncio.to_thread(check, {**environment, "GEMINI_API_KEY": "", "DATABASE_URL": database}, code=1)
    postgres = parts["postgres"]
    assert postgres["facts"]["writes"] == "refused: read-only"
    assert postgres["warnings"]["writes"]


async def test_a_redis_that_evicts_or_says_nothing_about_itself(environment: dict[str, str], valkey: str) -> None:
    import redis.asyncio

    given = {**environment, "GEMINI_API_KEY": "", "REDIS_URL": valkey}
    client: Any = redis.asyncio.from_url(valkey)
    async with client:
        await client.config_set("maxmemory-policy", "allkeys-lru")
        part = (await asyncio.to_thread(check, given, code=0))["redis"]
        assert part["facts"]["eviction"] == "allkeys-lru"
        assert part["warnings"].keys() == {"eviction"}
        await client.execute_command("ACL", "SETUSER", "quiet", "on", ">quiet", "~*", "&*", "+@all", "-info")
    netloc = urlsplit(valkey).netloc.split("@")[1]
    quiet = {**given, "REDIS_URL": f"redis://quiet:quiet@{netloc}/0"}
    part = (await asyncio.to_thread(check, quiet, code=0))["redis"]
    assert part["facts"]["version"] == "unknown: INFO is not permitted"


@pytest.mark.parametrize(
    ("theirs", "value", "is_wrong"),
    [
        (0.05, "the same as here", False),
        (0.0, "the same as here", False),
        (1.1, "1.0 s ahead of this machine's", False),
        (-2.0, "2.0 s behind this machine's", False),
        (7.1, "7.0 s ahead of this machine's", True),
        (-30.0, "30.0 s behind this machine's", True),
    ],
)
def test_what_is_certain_about_a_clock(theirs: float, value: str, is_wrong: bool) -> None:
    asked = datetime(2026, 1, 1, tzinfo=UTC)
    fact = clock_fact(asked + timedelta(seconds=theirs), asked=asked, answered=asked + timedelta(milliseconds=100))
    assert (fact.value, bool(fact.warning)) == (value, is_wrong)
