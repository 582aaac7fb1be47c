"""Hosts whose clocks are ten minutes wrong, in both directions, serve the same people from one database."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Any

import httpx
import pytest

from tests.support.http_client import Person, http_client, new_mobile
from tests.support.ports import free_port
from tests.support.processes import ROOT, ProductProcess, wait_for_api

TEN_MINUTES = 600


@contextmanager
def host(environment: dict[str, str], seconds: int) -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.moved_host", str(port), str(seconds)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
    )
    try:
        wait_for_api(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
async def hosts(product: dict[str, str]) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Ahead, behind, and right."""
    limited = {**product, "RATE_LIMITS": "on", "RATE_SIGNUP": "100/60", "RATE_VERIFY": "100/60", "RATE_CODES": "100/60"}
    async with AsyncExitStack() as stack:
        urls = [stack.enter_context(host(limited, seconds)) for seconds in (TEN_MINUTES, -TEN_MINUTES, 0)]
        yield [await stack.enter_async_context(http_client(url)) for url in urls]


async def ask(http: httpx.AsyncClient, path: str, body: dict[str, str], status: int = 200) -> dict[str, Any]:
    reply = await http.post(path, json=body)
    assert reply.status_code == status, reply.text
    found: dict[str, Any] = reply.json()
    return found


@pytest.mark.parametrize("first", range(3))
async def test_what_one_host_stamps_another_accepts(hosts: list[httpx.AsyncClient], first: int) -> None:
    turns = cycle(hosts[first:] + hosts[:first])
    mobile = new_mobile()
    await ask(next(turns), "/auth/signup", {"mobile": mobile, "name": "Asha"}, 201)
    sent = await ask(next(turns), "/auth/send-otp", {"mobile": mobile})
    for _ in range(3):
        assert (await next(turns).post("/auth/send-otp", json={"mobile": mobile})).status_code == 429
    proof = {"mobile": mobile, "otp": sent["otp"], "challenge": sent["challenge"]}
    signed_in = await ask(next(turns), "/auth/verify-otp", proof)
    for _ in range(6):
        person = Person(next(turns), signed_in["user"]["id"], mobile, signed_in["token"])
        found = await person.get("/auth/sessions")
        assert len(found["data"]) == 1, "a session is neither over nor of the future"
        seen = datetime.fromisoformat(found["data"][0]["lastSeenAt"])
        assert abs(datetime.now(UTC) - seen) < timedelta(minutes=5)
        signed_in = await ask(next(turns), "/auth/refresh", {"refreshToken": signed_in["refreshToken"]})


async def test_guesses_wait_as_long_at_every_host(hosts: list[httpx.AsyncClient]) -> None:
    mobile = new_mobile()
    await ask(hosts[0], "/auth/signup", {"mobile": mobile, "name": "Asha"}, 201)
    sent = await ask(hosts[0], "/auth/send-otp", {"mobile": mobile})
    wrong = f"{(int(sent['otp']) + 1) % 1_000_000:06d}"
    turns = cycle(hosts)
    replies = [await next(turns).post("/auth/verify-otp", json={"mobile": mobile, "otp": wrong}) for _ in range(8)]
    assert [reply.json()["code"] for reply in replies[:5]] == ["otp_invalid"] * 5
    late = [reply for reply in replies[5:] if reply.status_code == 429]
    assert all(int(reply.headers["retry-after"]) <= 2 for reply in late)


async def test_a_room_keeps_the_order_in_which_its_messages_came(
    hosts: list[httpx.AsyncClient], worker: ProductProcess
) -> None:
    mobile = new_mobile()
    user = (await ask(hosts[0], "/auth/signup", {"mobile": mobile, "name": "Asha"}, 201))["user"]
    sent = await ask(hosts[0], "/auth/send-otp", {"mobile": mobile})
    signed_in = await ask(hosts[1], "/auth/verify-otp", {"mobile": mobile, "otp": sent["otp"]})
    people = [Person(http, user["id"], mobile, signed_in["token"]) for http in hosts]
    room = await people[0].room()
    for number, person in zip(range(5), cycle(people), strict=False):
        message = await person.send(room, f"message {number}")
        await person.reply(room, message)
        assert await person.remaining() == 4 - number, "one day for all"
    found = (await people[2].get(f"/chatroom/{room}"))["data"]["messages"]
    assert [message["input"] for message in found] == [f"message {number}" for number in range(5)]
