"""How processes stop: not ready first, then closed, then done. A second Ctrl-C does not wait for anything."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from tests.support.gemini_standin import GeminiStandIn
from tests.support.http_client import http_client, sign_up
from tests.support.patience import HANG, PROCESS_HANG
from tests.support.processes import ProductProcess, api_process, worker_process
from tests.support.sse_client import open_stream

#: Nobody waits for it: a test that did would hang.
LONG = {"DRAIN_SECONDS": "1000", "SHUTDOWN_SECONDS": "2000"}


async def becomes(ask: Callable[[], Awaitable[bool]]) -> None:
    give_up = time.monotonic() + HANG
    while not await ask():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.05)


def is_running(process: ProductProcess) -> bool:
    return process.process.poll() is None


async def says(log: Path, text: str) -> bool:
    return text in await asyncio.to_thread(log.read_text)


async def is_stopping(client: httpx.AsyncClient) -> bool:
    ready = await client.get("/ready")
    return ready.status_code == 503 and ready.json()["code"] == "stopping"


@pytest.mark.parametrize("workers", [1, 2])
async def test_an_api_that_drains_serves_everything_but_its_readiness(product: dict[str, str], workers: int) -> None:
    with api_process({**product, **LONG}, workers=workers) as (url, api):
        async with http_client(url) as client:
            asha = await sign_up(client)
            api.process.terminate()
            # With two processes either may answer, so each answer of the one has to be that of the other.
            await becomes(lambda: is_stopping(client))
            for _ in range(20 if workers > 1 else 1):
                await becomes(lambda: is_stopping(client))
            api.process.terminate()  # platforms do so, and it changes nothing
            health = await client.get("/health")
            assert health.status_code == 200
            assert health.headers["connection"] == "close", "the next connection may go to another process"
            room = await asha.room()
            assert (await asha.get("/chatroom"))["data"][0]["id"] == room
            assert is_running(api)
            # The first Ctrl-C of a person comes after a SIGTERM: they want it to end.
            api.process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(api.process.wait, PROCESS_HANG) == 0


async def test_streams_end_after_the_listener_has_closed(
    product: dict[str, str], worker: ProductProcess, gemini_standin: GeminiStandIn
) -> None:
    gemini_standin.fault("hang_mid_stream", after=1)
    with api_process({**product, "DRAIN_SECONDS": "2"}) as (url, api):
        async with http_client(url) as client:
            asha = await sign_up(client)
            room = await asha.room()
            path, body = f"/chatroom/{room}/message", {"input": "Why?"}
            async with open_stream(url, path, asha.token, method="POST", body=body) as stream:
                while not (await anext(stream.rest)).data["text"]:
                    pass
                api.process.terminate()
                await becomes(lambda: is_stopping(client))
                reply = await stream.read_to_end(seconds=HANG)  # raises Cut if it is not closed properly
                assert reply.ended is None
                assert stream.retries == 2, "it says when to come back"
                with pytest.raises(httpx.ConnectError):
                    await client.get("/health")
            assert await asyncio.to_thread(api.process.wait, PROCESS_HANG) == 0


async def test_a_second_interrupt_ends_an_api_at_once(
    product: dict[str, str], worker: ProductProcess, gemini_standin: GeminiStandIn
) -> None:
    """Also while a request is being answered for longer than the test would wait."""
    gemini_standin.fault("hang_mid_stream", after=1)
    with api_process({**product, **LONG}) as (url, api):
        async with http_client(url) as client:
            asha = await sign_up(client)
            room = await asha.room()
            asking = asyncio.create_task(asha.ask("POST", f"/chatroom/{room}/message", {"input": "Why?"}))
            await asking
            api.process.send_signal(signal.SIGINT)
            await becomes(lambda: is_stopping(client))
            api.process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(api.process.wait, PROCESS_HANG) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_second_interrupt_has_a_worker_return_its_replies(
    http: httpx.AsyncClient, product: dict[str, str], gemini_standin: GeminiStandIn, tmp_path: Path, workers: str
) -> None:
    asha = await sign_up(http)
    room = await asha.room()
    gemini_standin.fault("hang_mid_stream", after=1)
    log = tmp_path / "log"
    worker = ProductProcess("worker", {**product, "SHUTDOWN_SECONDS": "2000"}, "--workers", workers, log=log)
    try:
        sent = await asha.send(room, "Why?")
        await gemini_standin.until(lambda log: log["open"] == 1)
        worker.process.send_signal(signal.SIGINT)
        await becomes(lambda: says(log, "draining"))
        worker.process.terminate()  # changes nothing
        await asyncio.sleep(0.5)
        assert is_running(worker), "it finishes its reply"
        worker.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(worker.process.wait, PROCESS_HANG) == 0
    finally:
        worker.kill()
    assert (await asha.message(room, sent))["status"] == "queued"
    with worker_process(product):
        assert (await asha.reply(room, sent))["status"] == "completed"
