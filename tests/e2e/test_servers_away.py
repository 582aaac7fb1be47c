"""Postgres and Valkey go away and come back; nobody restarts the product for it."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from local.postgres import EmbeddedPostgres
from local.valkey import EmbeddedValkey
from tests.support.gemini_standin import GeminiStandIn
from tests.support.http_client import Person, http_client, sign_up
from tests.support.patience import HANG
from tests.support.processes import ProductProcess, api_process, worker_process


@dataclass
class House:
    """The product on its own servers, which may be killed."""

    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey
    http: httpx.AsyncClient
    api: ProductProcess
    worker: ProductProcess

    def all_alive(self) -> bool:
        return self.api.process.poll() is None and self.worker.process.poll() is None


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[EmbeddedPostgres, EmbeddedValkey]]:
    with tempfile.TemporaryDirectory(prefix="gemini-test-") as folder:
        postgres, valkey = EmbeddedPostgres(Path(folder) / "postgres"), EmbeddedValkey(Path(folder) / "valkey")
        try:
            assert ProductProcess("migrate", {"DATABASE_URL": postgres.start()}).process.wait() == 0
            valkey.start()
            yield postgres, valkey
        finally:
            postgres.stop()
            valkey.stop()


@pytest.fixture(scope="module")
async def house(
    servers: tuple[EmbeddedPostgres, EmbeddedValkey], product: dict[str, str], gemini_standin_server: GeminiStandIn
) -> AsyncIterator[House]:
    """Started while both servers are down."""
    postgres, valkey = servers
    postgres.stop()
    valkey.stop()
    environment = {
        **product,
        "DATABASE_URL": postgres.url,
        "REDIS_URL": valkey.url,
        "REDIS_NAMESPACE": f"test-{secrets.token_hex(6)}",
    }
    with api_process(environment) as (url, api), worker_process(environment) as worker:
        async with http_client(url) as http:
            yield House(postgres, valkey, http, api, worker)


@pytest.fixture(autouse=True)
def _servers_are_back(house: House) -> Iterator[None]:
    yield
    for server in (house.postgres, house.valkey):
        if server.pid is None:
            server.start()
    assert house.all_alive()


async def becomes(ask: Callable[[], Awaitable[bool]], *, seconds: float = HANG) -> None:
    give_up = time.monotonic() + seconds
    while not await ask():
        assert time.monotonic() < give_up, f"did not come true within {seconds} s"
        await asyncio.sleep(0.05)


async def ready_is(house: House, status: str) -> None:
    async def ready() -> bool:
        return bool((await house.http.get("/ready")).json()["status"] == status)

    await becomes(ready)


async def assert_unavailable(response: httpx.Response) -> None:
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["retry-after"]) >= 1
    assert response.json()["code"] == "database_unavailable"


async def test_all_start_while_both_servers_are_away(house: House) -> None:
    assert (await house.http.get("/health")).status_code == 200
    ready = await house.http.get("/ready")
    await assert_unavailable(ready)
    assert ready.json()["detail"] == "Unavailable: postgres, redis."
    await assert_unavailable(await house.http.post("/auth/send-otp", json={"mobile": "9876543210"}))
    assert (await house.http.post("/auth/send-otp", json={})).status_code == 422, "what needs no database is answered"

    house.valkey.start()
    ready = await house.http.get("/ready")
    assert ready.json()["detail"] == "Unavailable: postgres."
    house.postgres.start()
    await ready_is(house, "ready")
    asha = await sign_up(house.http)
    room = await asha.room()
    assert (await asha.reply(room, await asha.send(room, "Why?")))["status"] == "completed"


async def test_postgres_is_killed_and_returns(house: House) -> None:
    asha = await sign_up(house.http)
    room = await asha.room()
    sent = await asha.send(room, "Why?")
    house.postgres.kill()
    for method, path, body in (
        ("GET", "/user/me", None),
        ("GET", "/chatroom", None),
        ("POST", "/chatroom", {"name": "A room"}),
        ("POST", f"/chatroom/{room}/message", {"input": "Why?"}),
    ):
        await assert_unavailable(await asha.ask(method, path, body))
    await assert_unavailable(await house.http.get("/ready"))
    house.postgres.start()
    await ready_is(house, "ready")
    assert (await asha.reply(room, sent))["status"] == "completed"
    assert await asha.remaining() == 4
    assert len((await asha.get("/chatroom"))["data"]) == 1


async def test_postgres_returns_while_a_reply_is_written(house: House, gemini_standin: GeminiStandIn) -> None:
    asha = await sign_up(house.http)
    room = await asha.room()
    gemini_standin.reply("Not said twice.", chunks=3, chunk_seconds=0.2)
    sent = await asha.send(room, "Why?")
    await gemini_standin.until(lambda log: log["open"] == 1)
    house.postgres.kill()
    await gemini_standin.until(lambda log: log["open"] == 0)
    house.postgres.start()
    await ready_is(house, "ready")
    message = await asha.reply(room, sent)
    assert message["response"] == "Not said twice."
    assert gemini_standin.log()["total"] == 1


@pytest.fixture
async def asha(house: House) -> Person:
    return await sign_up(house.http)


async def test_valkey_is_killed_and_returns(house: House, asha: Person, gemini_standin: GeminiStandIn) -> None:
    room = await asha.room("Before")
    assert len((await asha.get("/chatroom"))["data"]) == 1
    house.valkey.kill()

    ready = await house.http.get("/ready")
    assert ready.status_code == 200
    assert ready.json() == {"status": "degraded", "dependencies": {"postgres": "ok", "redis": "away"}, "warnings": []}
    await asha.room("Meanwhile")
    assert [listed["name"] for listed in (await asha.get("/chatroom"))["data"]] == ["Meanwhile", "Before"]
    sent = [await asha.send(room, f"Question {number}") for number in range(3)]
    assert (await asha.message(room, sent[0]))["response"] is None

    house.valkey.start()
    await ready_is(house, "ready")
    for message in sent:
        assert (await asha.reply(room, message))["status"] == "completed"
    assert gemini_standin.log()["total"] == 3
    assert [listed["name"] for listed in (await asha.get("/chatroom"))["data"]] == ["Meanwhile", "Before"]


async def test_a_reply_does_not_notice_that_valkey_is_away(
    house: House, asha: Person, gemini_standin: GeminiStandIn
) -> None:
    room = await asha.room()
    gemini_standin.reply("Said to the end.", chunks=4, chunk_seconds=0.2)
    sent = await asha.send(room, "Why?")
    await gemini_standin.until(lambda log: log["open"] == 1)
    house.valkey.kill()
    message = await asha.reply(room, sent)
    assert message["response"] == "Said to the end."
    assert message["attempts"] == 1
