"""Replies while they are written, through real processes: a client always ends with the stored reply."""

from __future__ import annotations

import asyncio
import random
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.valkey import EmbeddedValkey
from tests.support.gemini_standin import GeminiStandIn
from tests.support.http_client import Person, http_client, sign_up
from tests.support.patience import HANG
from tests.support.processes import ProductProcess, api_process, worker_process
from tests.support.sse_client import Cut, Reply, Stream, open_stream

LONG = "Because short waves are scattered more than long ones, and blue ones are short: आकाश 🌻. " * 6


@dataclass
class Chat:
    """Somebody's room."""

    person: Person
    room: str
    message: str = ""

    def at(self, http: httpx.AsyncClient) -> Chat:
        return Chat(self.person.at(http), self.room, self.message)

    @property
    def url(self) -> str:
        return str(self.person.http.base_url)

    @property
    def path(self) -> str:
        return f"/chatroom/{self.room}/message"

    @asynccontextmanager
    async def send(self) -> AsyncIterator[Stream]:
        async with open_stream(
            self.url, self.path, self.person.token, method="POST", body={"input": "Why?"}, seconds=HANG
        ) as stream:
            assert stream.status == 200, stream.body
            self.message = stream.headers["location"].rpartition("/")[2]
            yield stream

    @asynccontextmanager
    async def follow(self, after: str = "") -> AsyncIterator[Stream]:
        path = f"{self.path}/{self.message}/stream"
        async with open_stream(self.url, path, self.person.token, after=after, seconds=HANG) as stream:
            yield stream

    async def resume(self, reply: Reply) -> None:
        """Follow on to the end, coming again as often as it takes."""
        async with asyncio.timeout(HANG):
            while reply.ended is None:
                try:
                    async with self.follow(reply.position) as stream:
                        assert stream.status == 200, stream.body
                        await stream.read_to_end(reply)
                except (Cut, OSError, EOFError):
                    await asyncio.sleep(0.1)

    async def stored(self) -> dict[str, Any]:
        return await self.person.message(self.room, self.message)

    async def assert_is_stored(self, reply: Reply) -> None:
        stored = await self.stored()
        assert reply.ended is not None
        assert reply.ended.data == stored
        assert reply.text == stored["response"]

    async def cancel(self) -> httpx.Response:
        return await self.person.ask("POST", f"{self.path}/{self.message}/cancel")


async def chat_at(http: httpx.AsyncClient) -> Chat:
    person = await sign_up(http)
    return Chat(person, await person.room())


@pytest.fixture
async def chat(http: httpx.AsyncClient) -> Chat:
    return await chat_at(http)


@pytest.fixture(scope="module")
async def other_http(product: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """Another API process of the same product."""
    with api_process(product) as (url, _):
        async with http_client(url) as client:
            yield client


@pytest.fixture(scope="class")
def steady_worker(product: dict[str, str]) -> Iterator[None]:
    with worker_process(product):
        yield


@pytest.fixture
def slow(gemini_standin: GeminiStandIn) -> GeminiStandIn:
    """A long reply in many pieces, about a second of it."""
    gemini_standin.reply(LONG, chunks=50, first_chunk_seconds=0.1, chunk_seconds=0.02)
    return gemini_standin


@pytest.mark.usefixtures("steady_worker", "slow")
class TestReading:
    async def test_dropped_and_taken_up_again_and_again(self, chat: Chat, other_http: httpx.AsyncClient) -> None:
        chance, reply = random.Random(1), Reply()
        async with chat.send() as stream:
            await stream.read_until("Because", reply)
        drops = 0
        while reply.ended is None:
            async with chance.choice([chat, chat.at(other_http)]).follow(reply.position) as stream:
                assert stream.status == 200, stream.body
                for _ in range(chance.randrange(1, 3)):
                    if reply.ended is None:
                        reply.take(await asyncio.wait_for(anext(stream.rest), HANG))
                stream.drop()
                drops += 1
        assert drops >= 3
        assert "reset" not in reply.names
        await chat.assert_is_stored(reply)
        assert reply.text == LONG

    async def test_three_followers_at_two_processes_read_the_same(
        self, chat: Chat, other_http: httpx.AsyncClient
    ) -> None:
        async with chat.send() as stream, chat.follow() as second, chat.at(other_http).follow() as third:
            replies = await asyncio.gather(*(one.read_to_end(seconds=HANG) for one in (stream, second, third)))
        assert [reply.text for reply in replies] == [LONG] * 3
        assert len({reply.position for reply in replies}) == 1
        assert all(len(reply.events) > 10 for reply in replies), "piece by piece"
        await chat.assert_is_stored(replies[0])

    async def test_who_leaves_does_not_stop_the_model(self, chat: Chat, slow: GeminiStandIn) -> None:
        async with chat.send() as stream:
            await stream.read_until("Because")
            stream.drop()
        assert (await chat.person.reply(chat.room, chat.message))["response"] == LONG
        assert slow.log()["counts"]["client_left"] == 0

    async def test_waiting_for_it(self, chat: Chat) -> None:
        reply = await chat.person.ask("POST", chat.path, {"input": "Why?"}, headers={"Prefer": "wait=60"})
        assert (reply.status_code, reply.json()["data"]["response"]) == (200, LONG)

    async def test_a_stopped_process_is_left_for_another(self, chat: Chat, product: dict[str, str]) -> None:
        with api_process(product) as (url, process):
            async with http_client(url) as client:
                here = chat.at(client)
                async with here.send() as stream:
                    reply = await stream.read_until("Because")
                    process.process.terminate()
                    await stream.read_to_end(reply, seconds=HANG)
                    assert stream.has_ended, "the stream is closed, not cut"
                    assert reply.ended is None
                    assert await asyncio.to_thread(process.process.wait, HANG) == 0
        chat.message = here.message
        await chat.resume(reply)
        assert "reset" not in reply.names
        await chat.assert_is_stored(reply)


class TestDeath:
    async def test_of_the_worker_in_mid_reply(
        self, chat: Chat, product: dict[str, str], worker: ProductProcess, slow: GeminiStandIn
    ) -> None:
        async with chat.send() as stream, chat.follow() as late:
            reply = await stream.read_until("blue ones")
            worker.kill()
            slow.reply("From the other one.", chunks=3)
            with worker_process(product):
                await stream.read_to_end(reply, seconds=HANG)
                other = await late.read_to_end(seconds=HANG)
        assert reply.names.count("reset") == 1
        assert reply.text == other.text == "From the other one."
        await chat.assert_is_stored(reply)
        stale = Reply()
        async with chat.follow("1-7") as stream:
            await stream.read_to_end(stale)
        assert stale.names == ["reset", "delta", "done"]

    async def test_of_the_worker_that_continues(
        self, chat: Chat, product: dict[str, str], worker: ProductProcess, gemini_standin: GeminiStandIn
    ) -> None:
        gemini_standin.reply("Because short waves", chunks=3, finish_reason="MAX_TOKENS")
        async with chat.send() as stream:
            reply = await stream.read_to_end(seconds=HANG)
        gemini_standin.fault("hang_mid_stream", text=" are scattered", after=2, chunks=3)
        continued = await chat.person.ask("POST", f"{chat.path}/{chat.message}/continue")
        assert (continued.status_code, continued.json()["data"]["response"]) == (202, "Because short waves")
        reply.ended = None
        async with chat.follow(reply.position) as stream:
            await stream.read_until("waves are", reply)
            worker.kill()
            gemini_standin.reply(" more than long ones.", chunks=3)
            with worker_process(product):
                await stream.read_to_end(reply, seconds=HANG)
        assert reply.text == "Because short waves more than long ones."
        assert reply.names.count("reset") == 1
        await chat.assert_is_stored(reply)
        stored = await chat.stored()
        assert (stored["status"], stored["attempts"], stored["finishReason"]) == ("completed", 3, "STOP")
        roles = [content["role"] for content in gemini_standin.log()["lastBody"]["contents"]]
        assert roles == ["user", "model", "user"]

    async def test_of_the_api_process(
        self, chat: Chat, product: dict[str, str], worker: ProductProcess, slow: GeminiStandIn
    ) -> None:
        with api_process(product) as (url, process):
            async with http_client(url) as client:
                here = chat.at(client)
                async with here.send() as stream:
                    reply = await stream.read_until("Because")
                    process.kill()
                    with pytest.raises(Cut):
                        await stream.read_to_end(reply, seconds=HANG)
        chat.message = here.message
        await chat.resume(reply)
        await chat.assert_is_stored(reply)
        assert reply.text == LONG
        assert slow.log()["total"] == 1

    async def test_of_a_worker_after_sigterm(
        self, chat: Chat, product: dict[str, str], gemini_standin: GeminiStandIn
    ) -> None:
        gemini_standin.fault("hang_mid_stream", after=1)
        with worker_process({**product, "SHUTDOWN_SECONDS": "0.5"}) as hurried:
            async with chat.send() as stream:
                reply = Reply()
                reply.take(await asyncio.wait_for(anext(stream.rest), HANG))
                assert await asyncio.to_thread(hurried.stop) == 0
                gemini_standin.reply("From the other one.")
                with worker_process(product):
                    await stream.read_to_end(reply, seconds=HANG)
        assert reply.names[:2] == ["delta", "reset"]
        await chat.assert_is_stored(reply)


@dataclass
class House:
    http: httpx.AsyncClient
    valkey: EmbeddedValkey


@pytest.fixture(scope="class")
async def house(product: dict[str, str]) -> AsyncIterator[House]:
    """The product with a separate Valkey, which may die. Its worker, which sweeps for all, ends with the test."""
    with tempfile.TemporaryDirectory(prefix="gemini-test-") as folder:
        valkey = EmbeddedValkey(Path(folder) / "valkey")
        environment = {**product, "REDIS_URL": valkey.start(), "REDIS_NAMESPACE": f"test-{secrets.token_hex(6)}"}
        try:
            with api_process(environment) as (url, _), worker_process(environment):
                async with http_client(url) as client:
                    yield House(client, valkey)
        finally:
            valkey.stop()


@pytest.fixture
def _valkey_is_back(house: House) -> Iterator[None]:
    yield
    if house.valkey.pid is None:
        house.valkey.start()


@pytest.mark.usefixtures("_valkey_is_back")
class TestWithoutRedis:
    @pytest.mark.parametrize("returns", [False, True])
    async def test_who_follows_has_the_whole_reply_in_the_end(
        self, house: House, slow: GeminiStandIn, returns: bool
    ) -> None:
        chat = await chat_at(house.http)
        async with chat.send() as stream, chat.follow() as other:
            reply = await stream.read_until("Because")
            await asyncio.to_thread(house.valkey.kill)
            if returns:
                await asyncio.to_thread(house.valkey.start)
            await stream.read_to_end(reply, seconds=HANG)
            second = await other.read_to_end(seconds=HANG)
        await chat.assert_is_stored(reply)
        assert reply.text == second.text == LONG
        assert slow.log()["total"] == 1

    async def test_from_the_very_beginning(self, house: House, slow: GeminiStandIn) -> None:
        chat = await chat_at(house.http)
        await asyncio.to_thread(house.valkey.kill)
        async with chat.send() as stream:
            waiting = chat.person.ask("POST", chat.path, {"input": "Why?"}, headers={"Prefer": "wait=60"})
            reply, waited = await asyncio.gather(stream.read_to_end(seconds=HANG), waiting)
        await chat.assert_is_stored(reply)
        assert (waited.status_code, waited.json()["data"]["status"]) == (200, "completed")

    async def test_cancelling_works(self, house: House, gemini_standin: GeminiStandIn) -> None:
        chat = await chat_at(house.http)
        gemini_standin.fault("hang_mid_stream", after=3)
        async with chat.send() as stream:
            reply = await stream.read_until("local")
            await asyncio.to_thread(house.valkey.kill)
            await assert_cancel_stops(chat, gemini_standin)
            await stream.read_to_end(reply, seconds=HANG)
        await chat.assert_is_stored(reply)


async def assert_cancel_stops(chat: Chat, gemini: GeminiStandIn) -> None:
    cancelled = await chat.cancel()
    assert cancelled.status_code in (200, 202), cancelled.text
    await gemini.until(lambda log: log["counts"]["client_left"] == 1)
    stored = await chat.person.reply(chat.room, chat.message)
    assert (stored["status"], stored["attempts"]) == ("cancelled", 1)
    assert stored["usage"]["outputTokens"], "what was written was counted"


@pytest.mark.usefixtures("steady_worker")
class TestCancelling:
    async def test_in_mid_reply_keeps_what_was_written(
        self, chat: Chat, gemini_standin: GeminiStandIn, other_http: httpx.AsyncClient
    ) -> None:
        gemini_standin.fault("hang_mid_stream", after=3)
        async with chat.send() as stream, chat.at(other_http).follow() as other:
            reply = await stream.read_until("local")
            await assert_cancel_stops(chat.at(other_http), gemini_standin)
            await stream.read_to_end(reply, seconds=HANG)
            second = await other.read_to_end(seconds=HANG)
        await chat.assert_is_stored(reply)
        assert reply.text == second.text
        assert reply.text.startswith("Hello! I am the local")
        assert await chat.person.remaining() == 4, "it is paid for"
        assert (await chat.cancel()).status_code == 409
        assert gemini_standin.log()["total"] == 1

    @pytest.mark.parametrize("kind", ["hang", "latency"])
    async def test_before_the_first_word(self, chat: Chat, gemini_standin: GeminiStandIn, kind: str) -> None:
        gemini_standin.fault(kind, seconds=600)
        async with chat.send() as stream:
            await gemini_standin.until(lambda log: log["open"] == 1)
            assert (await chat.cancel()).status_code in (200, 202)
            reply = await stream.read_to_end(seconds=HANG)
        assert reply.ended is not None
        assert (reply.ended.data["status"], reply.ended.data["response"]) == ("cancelled", None)
        await gemini_standin.until(lambda log: log["open"] == 0)


async def test_cancelled_in_the_queue_it_never_reaches_the_model(
    chat: Chat, product: dict[str, str], gemini_standin: GeminiStandIn
) -> None:
    async with chat.send() as stream:
        cancelled = await chat.cancel()
        assert (cancelled.status_code, cancelled.json()["data"]["status"]) == (200, "cancelled")
        reply = await stream.read_to_end(seconds=HANG)
    assert (reply.names, reply.text) == (["done"], "")
    with worker_process(product):
        other = await chat.person.send(chat.room, "And why?")
        await chat.person.reply(chat.room, other)
    assert [call["lastUserText"] for call in gemini_standin.calls()] == ["And why?"]


async def test_a_room_is_named_after_its_first_exchange(
    http: httpx.AsyncClient, product: dict[str, str], gemini_standin: GeminiStandIn
) -> None:
    asha = await sign_up(http)
    body = {"name": "New chat", "autoTitle": True, "instructions": "Answer in rhyme."}
    room = (await asha.ask("POST", "/chatroom", body)).json()["data"]["id"]
    gemini_standin.reply("**Why the Sky is Blue**", match="Title:", chunks=2)
    with worker_process({**product, "SYSTEM_INSTRUCTION": "Be brief."}):
        chat = Chat(asha, room)
        async with chat.send() as stream:
            await stream.read_to_end(seconds=HANG)
        give_up = time.monotonic() + HANG
        while (await asha.get(f"/chatroom/{room}"))["data"]["name"] != "Why the Sky is Blue":
            assert time.monotonic() < give_up
            await asyncio.sleep(0.02)
        assert [listed["name"] for listed in (await asha.get("/chatroom"))["data"]] == ["Why the Sky is Blue"]
    assert gemini_standin.calls()[0]["systemInstruction"] == "Be brief.\n\nAnswer in rhyme."
    assert gemini_standin.log()["total"] == 2
    assert await asha.remaining() == 4, "the title is not paid for"
