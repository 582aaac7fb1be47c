"""The recipes in deploy/ for reverse proxies, each with its proxy before two APIs and a worker, over TLS."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from entrypoints.settings import Settings
from tests.support.certificates import self_signed
from tests.support.gemini_standin import GeminiStandIn
from tests.support.http_client import Person, http_client, new_mobile, sign_up
from tests.support.patience import HANG, PROCESS_HANG
from tests.support.processes import ProductProcess, api_process, worker_process
from tests.support.proxies import caddy_before, nginx, nginx_before, recipe

#: Where nginx cannot be had, its recipe is only read: see the last tests. `make test` then says so.
PROXIES = {"caddy": caddy_before, **({"nginx": nginx_before} if nginx() else {})}
WORDS = [f"word{number} " for number in range(8)]


@dataclass
class Front:
    url: str
    tls: ssl.SSLContext
    apis: list[ProductProcess]

    def client(self, address: str = "127.0.0.1") -> httpx.AsyncClient:
        """Without checks, for streams, from this address."""
        transport = httpx.AsyncHTTPTransport(verify=self.tls, local_address=address)
        return httpx.AsyncClient(base_url=self.url, timeout=HANG, transport=transport)


@pytest.fixture(params=PROXIES)
def front(request: pytest.FixtureRequest, product: dict[str, str], tmp_path: Path) -> Iterator[Front]:
    environment = {
        **product,
        "REDIS_NAMESPACE": f"test-{secrets.token_hex(6)}",
        "TRUSTED_PROXIES": "127.0.0.1",
        "DRAIN_SECONDS": "6",
        "RATE_LIMITS": "on",
        "RATE_SIGNUP": "3/3600",
        "RATE_WRITES": "10000/60",
    }
    certificate = self_signed(tmp_path / "certificate.pem")
    before: Callable[..., Any] = PROXIES[request.param]
    with ExitStack() as stack:
        apis = [stack.enter_context(api_process(environment)) for _ in range(2)]
        stack.enter_context(worker_process(environment))
        ports = [int(url.rpartition(":")[2]) for url, _ in apis]
        url = stack.enter_context(before(ports, certificate))
        tls = ssl.create_default_context(cafile=certificate)
        yield Front(url, tls, [process for _, process in apis])


@pytest.fixture
async def asha(front: Front) -> AsyncIterator[Person]:
    async with http_client(front.url, verify=front.tls) as http:
        yield await sign_up(http)


@asynccontextmanager
async def stream(
    front: Front, person: Person, method: str, path: str, **more: Any
) -> AsyncIterator[AsyncIterator[tuple[str, str, Any]]]:
    headers = {"Authorization": f"Bearer {person.token}", "Accept": "text/event-stream", **more.pop("headers", {})}
    async with front.client() as client, client.stream(method, path, headers=headers, **more) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream"
        assert "content-encoding" not in response.headers
        yield events(response)


async def events(response: httpx.Response) -> AsyncIterator[tuple[str, str, Any]]:
    """Id, name and data of each."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        name, _, value = line.partition(":")
        if name:
            fields[name] = value.strip()
        elif "event" in fields:
            yield fields.get("id", ""), fields["event"], json.loads(fields["data"])
            fields = {}


async def test_a_stream_comes_piece_by_piece_and_is_resumed(
    front: Front, asha: Person, gemini_standin: GeminiStandIn
) -> None:
    gemini_standin.reply("".join(WORDS), chunks=len(WORDS), chunk_seconds=0.5)
    room = await asha.room()
    text, position = "", ""
    async with stream(front, asha, "POST", f"/chatroom/{room}/message", json={"input": "Why?"}) as received:
        async for identifier, name, data in received:
            if name == "delta":
                text, position = text + data["text"], identifier
                break
    assert gemini_standin.log()["open"] == 1, "the model was still writing"
    message = (await asha.get(f"/chatroom/{room}"))["data"]["messages"][0]["id"]
    path = f"/chatroom/{room}/message/{message}/stream"
    ended = ""
    async with stream(front, asha, "GET", path, headers={"Last-Event-ID": position}) as received:
        async for _, name, data in received:
            text += data["text"] if name == "delta" else ""
            ended = name
    assert (ended, text) == ("done", "".join(WORDS))


async def test_a_call_may_wait(front: Front, asha: Person, gemini_standin: GeminiStandIn) -> None:
    gemini_standin.reply("Here you are.", chunks=2, chunk_seconds=2)
    room = await asha.room()
    reply = await asha.ask("POST", f"/chatroom/{room}/message", {"input": "Why?"}, headers={"Prefer": "wait=60"})
    assert (reply.status_code, reply.json()["data"]["response"]) == (200, "Here you are.")


async def test_callers_are_distinguished_and_cannot_pretend(front: Front, asha: Person) -> None:
    async def sign_up_from(address: str, pretended: str) -> int:
        async with front.client(address) as client:
            body = {"mobile": new_mobile(), "name": "Ben"}
            headers = {"X-Forwarded-For": pretended} if pretended else {}
            return (await client.post("/auth/signup", json=body, headers=headers)).status_code

    # Not from 127.0.0.1, which is the proxy's address and so may say what it likes.
    statuses = [await sign_up_from("127.0.0.2", f"198.51.100.{number}") for number in range(5)]
    assert statuses == [201, 201, 201, 429, 429]
    assert await sign_up_from("127.0.0.3", "") == 201


async def test_what_is_too_long_is_refused(front: Front, asha: Person) -> None:
    async with front.client() as client:  # without checks: the proxy's own answer is in its own words
        reply = await client.post("/auth/login", content=b"a" * 2_000_000)
    assert reply.status_code == 413


async def test_an_api_that_stops_is_not_noticed(front: Front, asha: Person, gemini_standin: GeminiStandIn) -> None:
    """Requests go on all the while, and so do streams, on the other one."""
    gemini_standin.reply("".join(WORDS), chunks=len(WORDS), chunk_seconds=1)
    room = await asha.room()
    message = await asha.send(room, "Why?")
    path = f"/chatroom/{room}/message/{message}/stream"
    text = ""

    async def follow() -> None:
        nonlocal text
        position, name = "", ""
        while name != "done":
            async with stream(front, asha, "GET", path, headers={"Last-Event-ID": position} if position else {}) as got:
                async for identifier, name, data in got:
                    position = identifier or position
                    text += data["text"] if name == "delta" else ""

    following = asyncio.create_task(follow())
    while not text:  # noqa: ASYNC110 - the text has no event
        await asyncio.sleep(0.05)
    stopped = front.apis[0].process
    stopped.terminate()
    statuses = []
    while stopped.poll() is None:
        statuses.append((await asha.http.get("/health")).status_code)
        statuses.append((await asha.ask("POST", "/chatroom/", {"name": "A room"})).status_code)
        await asyncio.sleep(0.05)
    statuses += [(await asha.ask("POST", "/chatroom/", {"name": "A room"})).status_code for _ in range(20)]
    assert set(statuses) == {200, 201}
    assert stopped.wait(PROCESS_HANG) == 0
    await asyncio.wait_for(following, HANG)
    assert text == "".join(WORDS)


@pytest.mark.parametrize(
    ("file", "keep_alive", "answer"),
    [
        ("nginx.conf", r"keepalive_timeout (\d+)s;", r"proxy_read_timeout (\d+)s;"),
        ("Caddyfile", r"keepalive (\d+)s\n", r"response_header_timeout (\d+)s\n"),
    ],
)
def test_times_fit_together(file: str, keep_alive: str, answer: str) -> None:
    """A connection that the API closes while the proxy sends a request on it would be a 502."""
    [idle], [wait] = re.findall(keep_alive, recipe(file)), re.findall(answer, recipe(file))
    settings = Settings()
    assert int(idle) < settings.http.keep_alive_seconds
    assert int(wait) > 60 + settings.http.request_seconds


def test_nginx_recipe_is_complete() -> None:
    """Also where nginx cannot be run: braces match, and what the API relies on is there."""
    text = re.sub(r"#.*", "", recipe("nginx.conf"))
    assert text.count("{") == text.count("}")
    assert all(line.endswith((";", "{", "}")) for line in map(str.strip, text.splitlines()) if line)
    for directive in (
        "proxy_http_version 1.1",
        'proxy_set_header Connection ""',
        "proxy_set_header Host $host",
        "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for",
        "proxy_pass http://gemini_backend",
    ):
        assert f"{directive};" in text
    assert "upstream gemini_backend {" in text
    for forbidden in ("gzip_types", "proxy_ignore_headers", "proxy_cache"):
        assert forbidden not in text
