"""Rate limits over HTTP: what they count, what clients learn of them, and what happens without Redis."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import secrets
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.http_client import Person, http_client, new_mobile
from tests.support.ports import free_port
from tests.support.processes import api_process
from tests.support.redis_lab import LabValkey

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


async def full(server: LabValkey) -> None:
    await server.set(maxmemory=1)


async def read_only(server: LabValkey) -> None:
    async with server.admin as redis:
        await redis.replicaof("127.0.0.1", str(free_port()))


async def dead(server: LabValkey) -> None:
    await asyncio.to_thread(server.kill)


async def hanging(server: LabValkey) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)


@pytest.mark.parametrize("trouble", [full, read_only, dead, hanging])
async def test_limits_hold_whatever_has_befallen_redis(
    api_environment: dict[str, str], data_dir: Path, trouble: Callable[[LabValkey], Awaitable[None]]
) -> None:
    """With the bounds of a healthy one: signups, codes that cost money, guesses at passwords and codes, refreshes."""
    server = LabValkey(data_dir / f"limits-{secrets.token_hex(4)}")
    await asyncio.to_thread(server.start)
    try:
        rates = {"RATE_CODES_PREFIX": "6/3600", "RATE_VERIFY": "6/300", "RATE_REFRESH": "10/300"}
        async with api(api_environment, REDIS_URL=server.url, **rates) as http:
            assert (await http.get("/ready")).json()["status"] == "ready"
            await trouble(server)
            caller, block, since = address(), itertools.count(7_005_800_000), time.monotonic()
            for path, limit, window, bodies in (
                ("/auth/signup", 5, 3600, ({"mobile": new_mobile(), "name": "Asha"} for _ in itertools.count())),
                ("/auth/send-otp", 6, 3600, ({"mobile": str(next(block))} for _ in itertools.count())),
                ("/auth/login", 7, 300, itertools.repeat(WRONG)),
                ("/auth/verify-otp", 6, 300, itertools.repeat({"mobile": "9876599998", "otp": "000000"})),
                ("/auth/refresh", 10, 300, itertools.repeat({"refreshToken": "none"})),
            ):
                codes: list[str | None] = []
                for body in itertools.islice(bodies, limit + 4):
                    answer = await http.post(path, json=body, headers=caller)
                    codes.append(answer.json().get("code"))
                through = len(codes) - codes.count("rate_limited")
                assert limit <= through <= limit + regained(since, limit, window=window), path
            other = await http.post("/auth/login", json=WRONG, headers=address())
            assert other.json()["code"] != "rate_limited"
            assert "rate_limits_in_process_total" in (await http.get("/metrics")).text
    finally:
        server.kill()
