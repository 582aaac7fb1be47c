"""GET /metrics and METRICS_PORT: of all processes, of nobody in particular, and cheap however often they are asked."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from dependency_injector import providers

from entrypoints import metrics
from entrypoints.container import Container
from entrypoints.http.server.app import create_app
from entrypoints.settings import Settings
from tests.support.http_client import Person, http_client
from tests.support.patience import HANG, PROCESS_HANG
from tests.support.ports import free_port
from tests.support.processes import ProductProcess, api_process
from tests.support.served import served


async def samples(http: httpx.AsyncClient) -> dict[str, float]:
    response = await http.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = [line for line in response.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


async def samples_once(
    http: httpx.AsyncClient, holds: Callable[[dict[str, float]], bool], *, seconds: float = HANG
) -> dict[str, float]:
    """As soon as this holds: the text may be a second old."""
    give_up = time.monotonic() + seconds
    while not holds(found := await samples(http)):
        assert time.monotonic() < give_up, found
        await asyncio.sleep(0.1)
    return found


async def test_calls_are_counted_by_name_and_status(http: httpx.AsyncClient, person: Person) -> None:
    mark = 'http_requests_total{call="none",status="405"}'
    seen = (await samples(http)).get(mark, 0)
    await http.put("/user/me")  # when this call is counted, so are all before it
    before = await samples_once(http, lambda found: found.get(mark, 0) > seen)
    room = await person.room()
    await person.get(f"/chatroom/{room}")
    await http.get("/user/me")
    await http.get("/nowhere/in/particular")
    nowhere = 'http_requests_total{call="none",status="404"}'
    after = await samples_once(http, lambda found: found.get(nowhere, 0) > before.get(nowhere, 0))
    for labels in (
        'call="create_chatroom",status="201"',
        'call="open_chatroom",status="200"',
        'call="get_profile",status="401"',
        'call="none",status="404"',
    ):
        name = f"http_requests_total{{{labels}}}"
        assert after[name] == before.get(name, 0) + 1
    seconds = 'http_request_duration_seconds_count{call="create_chatroom"}'
    assert after[seconds] == before.get(seconds, 0) + 1


async def test_metrics_contain_no_user_data(http: httpx.AsyncClient, person: Person) -> None:
    room = await person.room()
    await person.get(f"/chatroom/{room}")
    text = (await http.get("/metrics")).text
    for secret in (person.id, person.mobile, person.token, room, "127.0.0.1"):
        assert secret not in text
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}", text)


async def test_a_scrape_covers_all_processes_even_dead_ones(api_environment: dict[str, str]) -> None:
    with api_process(api_environment, workers=2) as (url, api):
        async with http_client(url) as client:
            health = 'http_requests_total{call="health",status="200"}'
            before = (await samples(client)).get(health, 0)
            for _ in range(20):
                async with httpx.AsyncClient(timeout=HANG) as one:  # a connection each, so that both get some
                    await one.get(f"{url}/health")
            assert (await samples_once(client, lambda found: found.get(health, 0) >= before + 20))[
                health
            ] == before + 20
            await asyncio.to_thread(kill_one, api)
        give_up = time.monotonic() + HANG
        while True:  # the process that died takes its connections along
            try:
                async with http_client(url) as client:
                    found = await samples(client)
                break
            except httpx.TransportError:
                assert time.monotonic() < give_up
        assert found[health] >= before + 20
        assert found["http_streams_open"] == 0


def kill_one(api: ProductProcess) -> None:
    children = Path(f"/proc/{api.process.pid}/task/{api.process.pid}/children").read_text().split()
    victim = next(pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(int(victim), signal.SIGKILL)


async def scraped(port: int, wanted: bytes) -> bytes:
    """What this port tells as soon as `wanted` is in it."""
    give_up = time.monotonic() + HANG
    while True:
        assert time.monotonic() < give_up
        with suppress(httpx.TransportError):
            async with httpx.AsyncClient(trust_env=False, timeout=HANG) as client:
                response = await client.get(f"http://127.0.0.1:{port}/metrics")
            assert response.headers["content-type"] == metrics.MEDIA_TYPE
            if wanted in response.content:
                return response.content
        await asyncio.sleep(0.1)


async def test_a_worker_serves_its_metrics_on_its_port(api_environment: dict[str, str]) -> None:
    port = free_port()
    environment = {**api_environment, "GEMINI_API_KEY": "none", "METRICS_PORT": str(port)}
    # Of several processes nothing is known before one has counted something.
    for workers, wanted in (("1", b"messages_attempted"), ("2", b"")):
        worker = ProductProcess("worker", environment, "--workers", workers)
        try:
            await scraped(port, wanted)
        finally:
            worker.kill()


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_api_serves_its_metrics_on_a_private_port(api_environment: dict[str, str], workers: int) -> None:
    port = free_port()
    with api_process({**api_environment, "METRICS_PORT": str(port)}, workers=workers) as (url, _):
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=HANG) as client:
            assert (await client.get("/health")).status_code == 200
        await scraped(port, b'http_requests_total{call="health",status="200"}')


def test_a_port_that_is_taken_is_named(api_environment: dict[str, str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        log = tmp_path / "log"
        api = ProductProcess("serve", {**api_environment, "METRICS_PORT": port, "PORT": "0"}, log=log)
        assert api.process.wait(PROCESS_HANG) == 2
    assert log.read_text() == (f"gemini-backend: METRICS_PORT {port} cannot be listened on: Address already in use.\n")


class SlowText:
    """Makes a text only when it is let, and counts how often."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.made = 0
        self.at_once = 0
        self._making = 0

    def __call__(self) -> bytes:
        self.made += 1
        self._making += 1
        self.at_once = max(self.at_once, self._making)
        assert self.let.wait(PROCESS_HANG)
        self._making -= 1
        return b"made %d\n" % self.made


@asynccontextmanager
async def app_with(
    container: Container, environment: dict[str, str], make: Callable[[], bytes], **more: str
) -> AsyncIterator[httpx.AsyncClient]:
    """The app in this loop, on the container's open connections; its text stays fresh for the whole test."""
    settings = Settings.from_environment({**environment, **more})
    own = Container(settings=settings)
    for name in ("postgres", "redis", "job_sender", "reply_stream"):
        getattr(own, name).override(providers.Object(getattr(container, name)()))
    own.resources.override(providers.Object([]))
    app = create_app(settings, own, name=f"metrics-{uuid4().hex}", exposition=metrics.Exposition(make, seconds=3600))
    limits = httpx.Limits(max_connections=250)
    async with (
        served(app) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=PROCESS_HANG, limits=limits) as http,
    ):
        yield http


async def test_concurrent_scrapes_share_one_text_off_the_event_loop(
    container: Container, environment: dict[str, str]
) -> None:
    text = SlowText()
    async with app_with(container, environment, text) as http:
        scrapes = [asyncio.create_task(http.get("/metrics")) for _ in range(200)]
        while not text.made:  # noqa: ASYNC110 - another thread's, which tells nobody
            await asyncio.sleep(0.01)
        for _ in range(20):
            assert (await http.get("/health")).status_code == 200, "while the text is being made"
        assert not any(scrape.done() for scrape in scrapes)
        text.let.set()
        assert {(await scrape).content for scrape in scrapes} == {b"made 1\n"}
        assert (await http.get("/metrics")).content == b"made 1\n", "it is fresh"
    assert text.made == 1


async def test_a_stale_text_is_generated_again_but_never_concurrently() -> None:
    text = SlowText()
    exposition = metrics.Exposition(text, seconds=0)
    text.let.set()
    assert [await exposition.wait() for _ in range(3)] == [b"made 1\n", b"made 2\n", b"made 3\n"]
    text.let.clear()
    both = [asyncio.create_task(asyncio.to_thread(exposition.text)), asyncio.create_task(exposition.wait())]
    while text.made < 4:  # noqa: ASYNC110 - another thread's, which tells nobody
        await asyncio.sleep(0.01)
    text.let.set()
    await asyncio.gather(*both)
    assert text.at_once == 1


async def test_a_cancelled_scrape_harms_no_other_and_a_failure_is_not_cached() -> None:
    text = SlowText()
    exposition = metrics.Exposition(text)
    impatient, patient = asyncio.create_task(exposition.wait()), asyncio.create_task(exposition.wait())
    await asyncio.sleep(0)
    impatient.cancel()
    text.let.set()
    assert await patient == b"made 1\n"

    failures = iter([OSError("the folder is gone")])

    def fails_once() -> bytes:
        for failure in failures:
            raise failure
        return b"well"

    exposition = metrics.Exposition(fails_once)
    with pytest.raises(OSError, match="gone"):
        await exposition.wait()
    assert await exposition.wait() == b"well"


PRODUCTION = {"APP_ENV": "production", "OTP_IN_RESPONSE": "yes-this-is-a-demo"}
METRICS_TOKEN = "0123456789abcdef" * 4


async def test_in_production_the_public_port_requires_a_token(
    container: Container, environment: dict[str, str]
) -> None:
    text = SlowText()
    text.let.set()
    async with app_with(container, environment, text, **PRODUCTION) as http:
        for headers in ({}, {"authorization": f"Bearer {METRICS_TOKEN}"}):
            refused = await http.get("/metrics", headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (404, "route_not_found")
    for mode in (PRODUCTION, {}):
        async with app_with(container, environment, text, METRICS_TOKEN=METRICS_TOKEN, **mode) as http:
            refused = await http.get("/metrics")
            assert (refused.status_code, refused.json()["code"]) == (401, "token_missing")
            assert refused.headers["www-authenticate"].startswith("Bearer")
            for value in (f"Bearer {METRICS_TOKEN}0", f"Basic {METRICS_TOKEN}", "Bearer", "Bearer \xff\xfe"):
                refused = await http.get("/metrics", headers=[(b"authorization", value.encode("latin-1"))])
                assert (refused.status_code, refused.json()["code"]) == (401, "token_invalid")
            assert text.made == 0, "what is refused costs nothing"
        async with app_with(container, environment, text, METRICS_TOKEN=METRICS_TOKEN, **mode) as http:
            answer = await http.get("/metrics", headers={"authorization": f"Bearer {METRICS_TOKEN}"})
            assert (answer.status_code, answer.content) == (200, b"made 1\n")
        text.made = 0
