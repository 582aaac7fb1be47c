"""Processes that die or receive SIGTERM: every accepted message is answered, once."""

from __future__ import annotations

import httpx

from tests.support.gemini_standin import GeminiStandIn
from tests.support.http_client import http_client, sign_up
from tests.support.processes import ProductProcess, api_process, worker_process


async def test_another_worker_answers_when_one_is_killed_in_mid_reply(
    http: httpx.AsyncClient, product: dict[str, str], worker: ProductProcess, gemini_standin: GeminiStandIn
) -> None:
    asha = await sign_up(http)
    room = await asha.room()
    gemini_standin.fault("hang_mid_stream", after=1)
    sent = await asha.send(room, "Why?")
    await gemini_standin.until(lambda log: log["open"] == 1)
    worker.kill()
    await gemini_standin.until(lambda log: log["open"] == 0)
    gemini_standin.reply("From the other one.")
    with worker_process(product), worker_process(product):
        message = await asha.reply(room, sent)
    assert message["response"] == "From the other one."
    assert message["attempts"] == 2
    assert gemini_standin.log()["total"] == 2
    assert await asha.remaining() == 4


async def test_a_message_is_answered_although_the_api_died_with_its_202(
    product: dict[str, str], http: httpx.AsyncClient, gemini_standin: GeminiStandIn
) -> None:
    with api_process(product) as (url, api):
        async with http_client(url) as client:
            asha = await sign_up(client)
            room = await asha.room()
            sent = await asha.send(room, "Why?")
            api.kill()
    gemini_standin.reply("Here you are.")
    with worker_process(product):
        message = await asha.at(http).reply(room, sent)
    assert message["response"] == "Here you are."


async def test_a_worker_finishes_its_replies_after_sigterm(
    http: httpx.AsyncClient, worker: ProductProcess, gemini_standin: GeminiStandIn
) -> None:
    asha = await sign_up(http)
    room = await asha.room()
    # Longer than a lease: it is renewed while the worker drains.
    gemini_standin.reply("Said to the end.", chunks=6, chunk_seconds=1)
    sent = await asha.send(room, "Why?")
    await gemini_standin.until(lambda log: log["open"] == 1)
    assert worker.stop() == 0
    message = await asha.message(room, sent)
    assert message["response"] == "Said to the end."
    assert message["attempts"] == 1
    assert gemini_standin.log()["total"] == 1


async def test_a_stopping_worker_hands_back_what_takes_too_long(
    http: httpx.AsyncClient, product: dict[str, str], gemini_standin: GeminiStandIn
) -> None:
    asha = await sign_up(http)
    room = await asha.room()
    gemini_standin.fault("hang_mid_stream", after=1)
    with worker_process({**product, "SHUTDOWN_SECONDS": "0.5"}) as hurried:
        sent = await asha.send(room, "Why?")
        await gemini_standin.until(lambda log: log["open"] == 1)
        assert hurried.stop() == 0
    assert (await asha.message(room, sent))["status"] == "queued"
    gemini_standin.reply("From the other one.")
    with worker_process(product):
        assert (await asha.reply(room, sent))["response"] == "From the other one."
    assert await asha.remaining() == 4


async def test_an_api_finishes_its_requests_after_sigterm(product: dict[str, str]) -> None:
    with api_process(product) as (url, api):
        async with http_client(url) as client:
            asha = await sign_up(client)
            assert (await asha.get("/chatroom"))["data"] == []  # leaves an idle connection open
            assert api.stop() == 0
