"""A primary is demoted or dies, and its standby is promoted: DATABASE_URL names both, and nobody restarts anything."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from adapters.postgres.migrate import migrate
from local.postgres import EmbeddedPostgres
from tests.support.database import execute
from tests.support.http_client import Person, http_client, sign_up
from tests.support.patience import HANG
from tests.support.processes import api_process, worker_process
from tests.support.standby import Standby


@dataclass
class Pair:
    primary: EmbeddedPostgres
    standby: Standby
    http: httpx.AsyncClient


@dataclass
class Traffic:
    """Somebody who sends messages all the time."""

    person: Person
    room: str
    statuses: Counter[int] = field(default_factory=Counter)
    accepted: list[str] = field(default_factory=list)
    last_failure: float = 0.0
    last_success: float = 0.0

    async def run(self) -> None:
        while True:
            reply = await self.person.ask("POST", f"/chatroom/{self.room}/message", {"input": "Why?"})
            self.statuses[reply.status_code] += 1
            if reply.status_code == 202:
                self.accepted.append(reply.json()["data"]["id"])
                self.last_success = time.monotonic()
            else:
                self.last_failure = time.monotonic()
            await asyncio.sleep(0.02)


@pytest.fixture
async def pair(product: dict[str, str]) -> AsyncIterator[Pair]:
    """The product on a primary with a synchronous standby, so that what was committed is on both."""
    with tempfile.TemporaryDirectory(prefix="gemini-test-") as folder:
        primary = EmbeddedPostgres(Path(folder) / "primary")
        standby = Standby(Path(folder) / "standby", primary)
        try:
            await migrate(primary.start())
            standby.start()
            await execute(primary.url, "ALTER SYSTEM SET synchronous_standby_names = '*'")
            await execute(primary.url, "SELECT pg_reload_conf()")
            environment = {
                **product,
                "DATABASE_URL": primary.url.replace(f":{primary.port}/", f":{primary.port},127.0.0.1:{standby.port}/"),
                "REDIS_NAMESPACE": f"test-{secrets.token_hex(6)}",
                "FREE_DAILY_MESSAGES": "1000000",
                "POSTGRES_ACQUIRE_SECONDS": "2",
            }
            with api_process(environment) as (url, _), worker_process(environment):
                async with http_client(url) as http:
                    yield Pair(primary, standby, http)
        finally:
            standby.stop()
            primary.stop()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(HANG):
        while not await condition():  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.02)


async def demote(pair: Pair) -> None:
    """In place, as managed services do: its connections live on, and refuse to write."""
    await execute(pair.primary.url, "ALTER SYSTEM SET default_transaction_read_only = on")
    await execute(pair.primary.url, "SELECT pg_reload_conf()")

    async def not_ready() -> bool:
        return (await pair.http.get("/ready")).status_code == 503

    await until(not_ready)
    await pair.standby.has_all()


async def kill(pair: Pair) -> None:
    pair.primary.kill()


@pytest.mark.parametrize("fail", [demote, kill])
async def test_nothing_is_lost_and_everything_resumes(pair: Pair, fail: Callable[[Pair], Awaitable[None]]) -> None:
    person = await sign_up(pair.http)
    traffic = Traffic(person, await person.room())
    running = asyncio.create_task(traffic.run())

    async def more() -> None:
        """Another message is accepted, after a failure if there was any."""
        before = len(traffic.accepted)

        async def accepted() -> bool:
            return len(traffic.accepted) > before and traffic.last_success > traffic.last_failure

        await until(accepted)

    await more()
    await fail(pair)
    await until(lambda: asyncio.sleep(0, traffic.last_failure > traffic.last_success))
    await pair.standby.promote()
    await more()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    async def ready() -> bool:
        return (await pair.http.get("/ready")).status_code == 200

    await until(ready)
    assert set(traffic.statuses) == {202, 503}, traffic.statuses
    stored = {str(row["id"]) for row in await execute(pair.standby.url, "SELECT id FROM messages")}
    assert set(traffic.accepted) <= stored, "lost"

    async def all_answered() -> bool:
        left = "SELECT id FROM messages WHERE status NOT IN ('completed', 'failed')"
        return await execute(pair.standby.url, left) == []

    await until(all_answered)
