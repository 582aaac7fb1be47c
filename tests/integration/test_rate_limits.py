"""Rate limits over HTTP: what they count, what clients learn of them, and what happens without Redis."""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.support.http_client import Person, http_client, new_mobile
from tests.support.patience import HANG
from tests.support.ports import free_port
from tests.support.processes import api_process

WRONG = {"mobile": "9876599999", "password": "not the password"}
PROXY = {"TRUSTED_PROXIES": "127.0.0.1", "RATE_LIMITS": "on"}

_addresses = itertools.count()


def address() -> dict[str, str]:
    """Its own caller, as the proxy in front reports it."""
    number = next(_addresses)
    return {"X-Forwarded-For": f"198.18.{number // 256}.{number % 256}"}


@asynccontextmanager
async def api(environment: dict[str, str], **settings: str) -> AsyncIterator[httpx.AsyncClient]:
    namespace = {"REDIS_NAMESPACE": f"test-{secrets.token_hex(6)}"}
    with api_process({**environment, **PROXY, **namespace, **settings}) as (url, _):
        async with http_client(url) as client:
            yield client


@pytest.fixture(scope="module")
async def behind_proxy(api_environment: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    async with api(api_environment, RATE_READS="20/60") as client:
        yield client


async def count(http: httpx.AsyncClient, method: str, path: str, body: object, headers: dict[str, str]) -> int:
    """How many calls get through before the first 429 that says `rate_limited`."""
    for number in range(400):
        response = await http.request(method, path, json=body, headers=headers)
        if response.status_code == 429 and response.json()["code"] == "rate_limited":
            assert int(response.headers["retry-after"]) >= 1
            assert ";r=0;" in response.headers["ratelimit"]
            return number
    raise AssertionError("there is no limit")


def regained(since: float, calls: int, *, window: int) -> int:
    """How many more calls a slow machine has room for, because time goes on: at most."""
    return int((time.monotonic() - since) * calls / window) + 1


@pytest.mark.parametrize(
    ("path", "body", "limit", "policy"),
    [
        ("/auth/login", WRONG, 7, '"login";q=7;w=300'),
        ("/auth/verify-otp", {"mobile": "9876599998", "otp": "000000"}, 30, '"verify";q=30;w=300'),
        ("/auth/refresh", {"refreshToken": "none"}, 150, '"refresh";q=150;w=300'),
        ("/auth/signup", {"mobile": "9876599997", "name": "Asha"}, 5, '"signup";q=5;w=3600'),
    ],
)
async def test_each_address_has_its_own_rate(
    behind_proxy: httpx.AsyncClient, path: str, body: object, limit: int, policy: str
) -> None:
    caller = address()
    first = await behind_proxy.post(path, json=body, headers=caller)
    assert first.headers["ratelimit-policy"] == policy
    assert re.fullmatch(rf'"\w+";r={limit - 1};t=\d+', first.headers["ratelimit"])
    since = time.monotonic()
    counted = await count(behind_proxy, "POST", path, body, caller)
    assert limit - 1 <= counted <= limit - 1 + regained(since, limit, window=int(policy.rpartition("=")[2]))
    other = await behind_proxy.post(path, json=body, headers=address())
    assert other.json().get("code") != "rate_limited"


async def test_verifying_and_resetting_share_a_rate(behind_proxy: httpx.AsyncClient) -> None:
    caller, mobile = address(), "9876599996"
    await behind_proxy.post("/auth/verify-otp", json={"mobile": mobile, "otp": "000000"}, headers=caller)
    body = {"mobile": mobile, "otp": "000000", "newPassword": "a long new password"}
    response = await behind_proxy.post("/auth/reset-password", json=body, headers=caller)
    assert response.headers["ratelimit"].startswith('"verify";r=28;')


async def test_changing_a_password_shares_their_rate(behind_proxy: httpx.AsyncClient, person: Person) -> None:
    """Of which each costs two slow hashes, and its right proof no guess."""
    headers = {"Authorization": f"Bearer {person.token}", **address()}
    body = {"currentPassword": "wrong", "newPassword": "a long new password"}
    response = await behind_proxy.post("/auth/change-password", json=body, headers=headers)
    assert response.headers["ratelimit"].startswith('"verify";r=29;')


async def test_sending_codes_is_limited_by_address_and_by_block_of_numbers(behind_proxy: httpx.AsyncClient) -> None:
    caller = address()
    block = itertools.count(7_005_500_000)
    statuses = [
        (await behind_proxy.post("/auth/send-otp", json={"mobile": str(next(block))}, headers=caller)).status_code
        for _ in range(21)
    ]
    assert statuses == [404] * 20 + [429]
    other_block = itertools.count(7_005_600_000)
    for _ in range(10):
        path, body = "/auth/forgot-password", {"mobile": str(next(other_block))}
        response = await behind_proxy.post(path, json=body, headers=caller)
        assert response.status_code == 404
    assert response.headers["ratelimit-policy"] == '"codes";q=30;w=3600, "codes-prefix";q=20;w=3600'
    assert response.headers["ratelimit"].startswith('"codes";r=0;')
    response = await behind_proxy.post("/auth/send-otp", json={"mobile": "7005700000"}, headers=caller)
    assert response.status_code == 429
    response = await behind_proxy.post("/auth/send-otp", json={"mobile": "7005500999"}, headers=address())
    assert response.status_code == 429  # the limit of the block


async def test_reads_are_limited_by_user(behind_proxy: httpx.AsyncClient, person: Person, stranger: Person) -> None:
    me = person.at(behind_proxy)
    token = {"Authorization": f"Bearer {person.token}"}
    since = time.monotonic()
    first = await me.ask("GET", "/chatroom")
    assert first.headers["ratelimit-policy"] == '"reads";q=20;w=60'
    counted = await count(behind_proxy, "GET", "/user/me", None, {**token, **address()})
    assert 19 <= counted <= 19 + regained(since, 20, window=60)
    assert (await stranger.at(behind_proxy).ask("GET", "/user/me")).status_code == 200
    assert (await me.ask("POST", "/chatroom", {"name": "Writing is not reading"})).status_code == 201


async def test_public_calls_are_not_limited(behind_proxy: httpx.AsyncClient) -> None:
    for path in ("/health", "/ready", "/openapi.json", "/metrics"):
        assert "ratelimit" not in (await behind_proxy.get(path)).headers


async def test_ten_processes_worth_of_calls_at_once(behind_proxy: httpx.AsyncClient) -> None:
    caller, since = address(), time.monotonic()
    body = {"refreshToken": "none"}
    answers = await asyncio.gather(*(behind_proxy.post("/auth/refresh", json=body, headers=caller) for _ in range(200)))
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() == {401, 429}
    assert 150 <= statuses[401] <= 150 + regained(since, 150, window=300)


async def test_only_some_countries_get_codes(api_environment: dict[str, str]) -> None:
    settings = {"OTP_COUNTRIES": "IN,DE", "RATE_LIMITS": "off"}
    async with api(api_environment, **settings) as http:
        for path in ("/auth/send-otp", "/auth/forgot-password"):
            refused = await http.post(path, json={"mobile": "+12025550123"})
            assert (refused.status_code, refused.json()["code"]) == (422, "country_not_allowed")
            assert refused.json()["errors"][0]["pointer"] == "/mobile"
            for mobile in ("+4915112345678", new_mobile()):
                assert (await http.post(path, json={"mobile": mobile})).json()["code"] == "user_not_found"


async def test_rate_limits_can_be_disabled(http: httpx.AsyncClient, person: Person) -> None:
    assert "ratelimit" not in (await person.ask("GET", "/user/me")).headers
    for _ in range(9):
        response = await http.post("/auth/login", json={"mobile": "98", "password": "x"})
        assert response.status_code == 422


async def test_without_redis_calls_pass_and_few_wait(api_environment: dict[str, str], person: Person) -> None:
    async with api(api_environment, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0", RATE_READS="3/60") as http:
        me = person.at(http)
        for _ in range(20):
            response = await me.ask("GET", "/user/me")
            assert response.status_code == 200
            assert "ratelimit" not in response.headers
        assert "rate_limits_unchecked_total 20.0" in (await http.get("/metrics")).text


async def test_a_hanging_redis_delays_only_one_call(api_environment: dict[str, str], person: Person) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1_000):
            pass
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as hanging:
        port = hanging.sockets[0].getsockname()[1]
        url = f"redis://127.0.0.1:{port}/0"
        async with api(api_environment, REDIS_URL=url, REDIS_COMMAND_SECONDS="2") as http:
            me = person.at(http)
            async with asyncio.timeout(HANG):
                for _ in range(40):  # each waiting for Redis, they would take 80 s
                    assert (await me.ask("GET", "/user/me")).status_code == 200
