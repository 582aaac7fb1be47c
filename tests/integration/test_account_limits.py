"""What one account can use: writes, rooms, keys, requests at a time, waits and calls of Stripe; and one IPv6 site."""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from adapters.memory.runtime import MemoryClock
from application.billing.calls import PaymentCalls
from application.rate_limiting import ProcessRateLimiter
from domain.errors import RateLimited
from domain.ids import UserId
from entrypoints.http.steps.rate_limits import rules_of
from entrypoints.settings import LimitSettings, RateSettings
from tests.support.http_client import Person, http_client, log_in, sign_up
from tests.support.patience import HANG
from tests.support.ports import free_port
from tests.support.processes import ROOT, api_process

#: Of `api`, where a test does not need the limit itself.
AMPLE = {
    "RATE_LIMITS": "on",
    "RATE_SIGNUP": "1000/60",
    "RATE_CODES": "1000/60",
    "RATE_CODES_PREFIX": "1000/60",
    "RATE_WRITES": "100000/60",
    "RATE_READS": "100000/60",
}


@asynccontextmanager
async def api(environment: dict[str, str], **settings: str) -> AsyncIterator[httpx.AsyncClient]:
    namespace = {"REDIS_NAMESPACE": f"test-{secrets.token_hex(6)}"}
    with api_process({**environment, **AMPLE, **namespace, **settings}) as (url, _):
        async with http_client(url) as client:
            yield client


def code_of(response: httpx.Response) -> str:
    return str(response.json()["code"])


async def refused(person: Person, method: str, path: str, json: Any = None, *, code: str = "rate_limited") -> int:
    """How many calls are not refused for this reason before one is."""
    for number in range(1000):
        response = await person.ask(method, path, json)
        if not response.is_success and code_of(response) == code:
            assert response.status_code == 403 or int(response.headers["retry-after"]) >= 1
            return number
    raise AssertionError("there is no limit")


async def test_writes_are_counted_together(api_environment: dict[str, str]) -> None:
    async with api(api_environment, RATE_WRITES="6/3600") as http:
        person, other = await sign_up(http), await sign_up(http)
        room = await person.room()
        first = await person.ask("PATCH", f"/chatroom/{room}", {"name": "Another"})
        assert first.headers["ratelimit-policy"] == '"writes";q=6;w=3600'
        assert first.headers["ratelimit"].startswith('"writes";r=4;')
        assert (await person.ask("PATCH", "/user/me", {"name": "Ann"})).status_code == 200
        assert (await person.ask("POST", f"/chatroom/{room}/message/{room}/cancel")).status_code == 404
        assert (await person.ask("DELETE", f"/chatroom/{room}")).status_code == 200
        assert await refused(person, "POST", "/chatroom", {"name": "More"}) == 1
        assert (await person.ask("GET", "/chatroom")).status_code == 200, "reads have another rule"
        assert (await other.ask("POST", "/chatroom", {"name": "Mine"})).status_code == 201
        assert (await person.ask("POST", "/auth/logout")).status_code == 200, "nobody is kept from ending a session"


async def test_a_session_that_floods_does_not_keep_its_user_from_ending_it(
    api_environment: dict[str, str], http: httpx.AsyncClient
) -> None:
    async with api(api_environment, RATE_SESSIONS="5/3600", RATE_WRITES="5/3600") as limited:
        thief = (await sign_up(http)).at(limited)
        assert await refused(thief, "DELETE", f"/auth/sessions/{thief.id}") == 5
        assert await refused(thief, "POST", "/chatroom", {"name": "A"}) == 5
        owner = (await log_in(http, thief.mobile, thief.id)).at(limited)
        assert (await owner.ask("DELETE", "/auth/sessions")).status_code == 200
        assert (await thief.ask("GET", "/user/me")).status_code == 401


async def test_rooms(api_environment: dict[str, str]) -> None:
    async with api(api_environment, CHATROOMS_PER_USER="3") as http:
        person, other = await sign_up(http), await sign_up(http)
        key = {"Idempotency-Key": "first"}
        first = await person.ask("POST", "/chatroom", {"name": "First"}, headers=key)
        assert await refused(person, "POST", "/chatroom", {"name": "More"}, code="too_many_chatrooms") == 2
        again = await person.ask("POST", "/chatroom", {"name": "First"}, headers=key)
        assert again.json() == first.json()
        await other.room()
        assert (await person.ask("DELETE", f"/chatroom/{first.json()['data']['id']}")).status_code == 200
        await person.room()
        creating = [person.ask("POST", "/chatroom", {"name": "More"}) for _ in range(8)]
        assert {response.status_code for response in await asyncio.gather(*creating)} == {403}


async def test_keys(api_environment: dict[str, str]) -> None:
    async with api(api_environment, IDEMPOTENCY_KEYS_PER_USER="20") as http:
        person = await sign_up(http)
        turns = asyncio.Semaphore(6)

        async def create(number: int) -> httpx.Response:
            async with turns:
                return await person.ask(
                    "POST", "/chatroom", {"name": "A"}, headers={"Idempotency-Key": f"key-{number}"}
                )

        # One in 32 trims: that none of the last 580 does has a probability of 1e-8.
        found = await asyncio.gather(*(create(number) for number in range(600)))
        assert {response.status_code for response in found} == {201}
        connection = await asyncpg.connect(api_environment["DATABASE_URL"])
        stored = await connection.fetchval("SELECT count(*) FROM idempotency_keys WHERE scope LIKE $1", f"{person.id}%")
        await connection.close()
        assert 20 <= stored < 600
        again = await create(599)
        assert again.json() == found[599].json()
        assert again.headers["idempotency-replayed"] == "true"


async def test_two_keys_are_refused(api_environment: dict[str, str], http: httpx.AsyncClient) -> None:
    person = await sign_up(http)
    headers = [("Authorization", f"Bearer {person.token}"), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    response = await http.post("/chatroom", json={"name": "A"}, headers=headers)
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "Idempotency-Key")


@asynccontextmanager
async def blocking(
    environment: dict[str, str], statement: str, *values: object
) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Hold what the statement locks. What it yields waits until `expected` statements wait for that."""
    connection = await asyncpg.connect(environment["DATABASE_URL"])

    async def blocked(expected: int) -> None:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        give_up = time.monotonic() + HANG
        while await connection.fetchval(waiting) < expected:
            assert time.monotonic() < give_up
            await asyncio.sleep(0.02)
            await connection.execute("SELECT pg_stat_clear_snapshot()")

    try:
        async with connection.transaction():
            await connection.execute(statement, *values)
            yield blocked
    finally:
        await connection.close()


async def test_requests_at_a_time(api_environment: dict[str, str]) -> None:
    async with api(api_environment, REQUESTS_PER_USER="3", REQUEST_SECONDS="60") as http:
        person, other = await sign_up(http), await sign_up(http)
        async with blocking(api_environment, "SELECT FROM users WHERE id = $1 FOR UPDATE", person.id) as blocked:
            slow = [asyncio.create_task(person.ask("PATCH", "/user/me", {"name": "Ann"})) for _ in range(3)]
            await blocked(3)
            response = await person.ask("GET", "/user/me")
            assert (response.status_code, code_of(response)) == (429, "too_many_concurrent")
            assert int(response.headers["retry-after"]) >= 1
            assert (await other.ask("GET", "/user/me")).status_code == 200
            assert (await person.ask("DELETE", "/auth/sessions")).status_code == 200, "this is never refused for others"
        assert {response.status_code for response in await asyncio.gather(*slow)} == {200}
        assert (await person.ask("GET", "/user/me")).status_code == 200
        room = await person.room()
        message = await person.send(room, "Why?")
        waiting = [
            asyncio.create_task(person.ask("GET", f"/chatroom/{room}/message/{message}", headers={"Prefer": "wait=60"}))
            for _ in range(3)
        ]
        await asyncio.sleep(0.5)
        assert (await person.ask("GET", "/user/me")).status_code == 200, "waits have other places"
        await person.ask("DELETE", f"/chatroom/{room}")
        assert {response.status_code for response in await asyncio.gather(*waiting)} == {404}


async def test_waits_take_the_places_of_streams(api_environment: dict[str, str]) -> None:
    async with api(api_environment, STREAMS_PER_USER="1") as http:
        person = await sign_up(http)
        room = await person.room()
        message = await person.send(room, "Why?")
        path, wait = f"/chatroom/{room}/message/{message}", {"Prefer": "wait=60"}
        first = asyncio.create_task(person.ask("GET", path, headers=wait))
        give_up = time.monotonic() + HANG
        while "http_streams_open 1.0" not in (await http.get("/metrics")).text:
            assert time.monotonic() < give_up
            await asyncio.sleep(0.5)  # it is made once a second
        response = await person.ask("GET", f"{path}/stream")
        assert (response.status_code, code_of(response)) == (429, "too_many_streams")
        for reply in (
            await person.ask("GET", path, headers=wait),
            await person.ask("POST", f"/chatroom/{room}/message", {"input": "And?"}, headers=wait),
        ):
            assert (reply.status_code, reply.json()["data"]["status"]) == (202, "queued")
            assert "preference-applied" not in reply.headers
            assert reply.headers["retry-after"] == "1"
        cancelled = await person.ask("POST", f"{path}/cancel")
        assert (cancelled.status_code, cancelled.json()["data"]["status"]) == (200, "cancelled")
        assert (await first).status_code == 200
        assert (await person.ask("GET", path, headers=wait)).headers["preference-applied"] == "wait=60"


async def test_messages_that_are_refused(api_environment: dict[str, str]) -> None:
    """Counted by the process, so Redis does not matter."""
    redis = {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    async with api(api_environment, **redis, RATE_MESSAGES="20/3600", FREE_DAILY_MESSAGES="0") as http:
        person, other = await sign_up(http), await sign_up(http)
        body, path = {"input": "Why?"}, f"/chatroom/{await person.room()}/message"
        assert [code_of(await person.ask("POST", path, body)) for _ in range(22)] == [
            *["quota_exceeded"] * 20,
            *["rate_limited"] * 2,
        ]
        assert code_of(await other.ask("POST", f"/chatroom/{await other.room()}/message", body)) == "quota_exceeded"


async def test_billing_calls(api_environment: dict[str, str]) -> None:
    async with api(api_environment, RATE_BILLING="4/3600") as http:
        person = await sign_up(http)
        assert (await person.ask("POST", "/subscription/portal")).status_code == 409
        assert await refused(person, "POST", "/subscribe/pro") == 3
        assert await refused(person, "POST", "/subscription/portal") == 0


@pytest.mark.parametrize(
    ("network", "allowed"),
    [("2001:db8:1:1100::{:x}", 2), ("2001:db8:2:11{:02x}::1", 8), ("2001:db8:3:{:02x}00::1", 32)],
    ids=["one /64", "one /56", "one /48"],
)
async def test_an_ipv6_site(api_environment: dict[str, str], network: str, allowed: int) -> None:
    wrong = {"mobile": "9876599999", "password": "not the password"}
    async with api(api_environment, RATE_LOGIN="2/3600", TRUSTED_PROXIES="127.0.0.1") as http:
        for number in itertools.count():
            caller = {"X-Forwarded-For": network.format(number)}
            response = await http.post("/auth/login", json=wrong, headers=caller)
            if response.status_code == 429 and code_of(response) == "rate_limited":
                break
        assert number == allowed
        assert '"login";r=0;' in response.headers["ratelimit"]
        elsewhere = {"X-Forwarded-For": "2001:db8:ffff::1"}
        assert code_of(await http.post("/auth/login", json=wrong, headers=elsewhere)) != "rate_limited"


def test_the_document_names_every_rule_and_every_limit_with_its_test() -> None:
    document = (ROOT / "docs/security.md").read_text()
    table = document.partition("## What one account, one address and one network can use")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "`" in line]
    named = {setting for row in rows for setting in re.findall(r"`([A-Z_]+)`", row)}
    limits = {field.alias or name.upper() for name, field in LimitSettings.model_fields.items()} - {"RATE_LIMITS"}
    rates = {f"RATE_{name.upper()}" for name in RateSettings.model_fields}
    streams = {"STREAMS_PER_USER", "STREAMS_PER_PROCESS", "JSON_BODY_BYTES", "HEADER_BYTES"}
    assert named == limits | rates | streams
    for rule in rules_of(RateSettings()):
        assert f"`RATE_{rule.upper().replace('-', '_')}`" in table
    tests = {test for row in rows for test in re.findall(r"`([a-z][a-z0-9_]+)` \|$", row)}
    written = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    assert len(tests) > 15
    assert [test for test in sorted(tests) if f"def {test}(" not in written] == []


async def test_of_one_user_stripe_is_called_ten_times_a_minute_at_most() -> None:
    clock, user = MemoryClock(), UserId(uuid4())
    calls = PaymentCalls(ProcessRateLimiter(clock), RateSettings().payments)
    made = list[float]()
    for second in range(180):
        for _ in range(5):
            try:
                await calls.count(user)
            except RateLimited:
                continue
            made.append(second)
        clock.move(timedelta(seconds=1))
    assert made.count(0) == 5, "they may come at once"
    assert max(sum(start <= at < start + 60 for at in made) for start in range(120)) <= 10
    await calls.count(UserId(uuid4()))
