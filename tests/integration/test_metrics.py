"""GET /metrics: of all processes behind the port, and of nobody in particular."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from pathlib import Path
from urllib.request import urlopen

import httpx

from entrypoints.local.processes import free_port
from tests.http_client import Person, http_client
from tests.processes import ProductProcess, api_process


async def samples(http: httpx.AsyncClient) -> dict[str, float]:
    response = await http.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = [line for line in response.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


async def test_calls_are_counted_by_name_and_status(http: httpx.AsyncClient, person: Person) -> None:
    before = await samples(http)
    room = await person.room()
    await person.get(f"/chatroom/{room}")
    await http.get("/user/me")
    await http.get("/nowhere/in/particular")
    after = await samples(http)
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


async def test_nothing_in_them_tells_who_called(http: httpx.AsyncClient, person: Person) -> None:
    room = await person.room()
    await person.get(f"/chatroom/{room}")
    text = (await http.get("/metrics")).text
    for secret in (person.id, person.mobile, person.token, room, "127.0.0.1"):
        assert secret not in text
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}", text)


async def test_a_scrape_tells_of_all_processes_also_of_those_that_died(api_environment: dict[str, str]) -> None:
    with api_process(api_environment, workers=2) as (url, api):
        async with http_client(url) as client:
            before = (await samples(client)).get('http_requests_total{call="health",status="200"}', 0)
            for _ in range(20):
                async with httpx.AsyncClient() as one:  # a connection each, so that both get some
                    await one.get(f"{url}/health")
            assert (await samples(client))['http_requests_total{call="health",status="200"}'] == before + 20
            await asyncio.to_thread(kill_one, api)
        give_up = time.monotonic() + 20
        while True:  # the process that died takes its connections along
            try:
                async with http_client(url) as client:
                    found = await samples(client)
                break
            except httpx.TransportError:
                assert time.monotonic() < give_up
        assert found['http_requests_total{call="health",status="200"}'] >= before + 20
        assert found["http_streams_open"] == 0


def kill_one(api: ProductProcess) -> None:
    children = Path(f"/proc/{api.process.pid}/task/{api.process.pid}/children").read_text().split()
    victim = next(pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(int(victim), signal.SIGKILL)


async def test_a_worker_tells_its_own_if_asked_to(api_environment: dict[str, str]) -> None:
    port = free_port()
    environment = {**api_environment, "GEMINI_API_KEY": "none", "METRICS_PORT": str(port)}
    for workers in ("1", "2"):
        worker = ProductProcess("worker", environment, "--workers", workers)
        try:
            text, give_up = b"", time.monotonic() + 20
            while b"messages_attempted" not in text:
                assert time.monotonic() < give_up
                try:
                    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1) as reply:  # noqa: ASYNC210
                        text = reply.read()
                except OSError:
                    await asyncio.sleep(0.1)
                if workers == "2" and text:
                    break  # nothing is known of a counter that nobody has counted with
        finally:
            worker.kill()
