"""Replies as they come over HTTP while they are written: streams, and waiting for the end.

There is no worker: each test answers its messages by hand, piece by piece.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from adapters.postgres.chat import PostgresMessages
from adapters.redis.reply_stream import RedisReplyStream
from application.ports.chat import ReplyWriter
from domain.chat.messages import MessageStatus, Outcome
from domain.ids import MessageId
from tests.support.database import connected
from tests.support.http_client import Person, http_client, log_in, sign_up
from tests.support.patience import HANG
from tests.support.processes import api_process
from tests.support.sse_client import Reply, Stream, open_stream
from tests.support.workers import claim

PIECES = ("Because ", "of ", "Rayleigh\n", "आकाश 🌻 \u2028.")
TEXT = "".join(PIECES)
END = f"1-{len(TEXT) + 1}"


class Hand:
    """Answers messages as a worker does, on demand."""

    def __init__(self, stream: RedisReplyStream) -> None:
        self.messages = PostgresMessages()
        self.stream = stream
        self._attempts: dict[MessageId, tuple[int, ReplyWriter]] = {}

    async def begin(self, message: str, *pieces: str) -> None:
        """The next attempt, with what it says."""
        message_id = MessageId(UUID(message))
        claimed = await claim(self.messages, message_id, lease=timedelta(hours=1))
        assert claimed is not None
        writer = self.stream.write(message_id, claimed.attempt, kept=claimed.kept_characters)
        self._attempts[message_id] = claimed.attempt, writer
        self.say(message, *pieces)

    def think(self, message: str, *pieces: str) -> None:
        for piece in pieces:
            self._attempts[MessageId(UUID(message))][1].thought(piece)

    def say(self, message: str, *pieces: str) -> None:
        for piece in pieces:
            self._attempts[MessageId(UUID(message))][1].add(piece)

    async def give_up(self, message: str) -> None:
        message_id = MessageId(UUID(message))
        attempt, writer = self._attempts[message_id]
        await writer.close()
        assert await self.messages.retry(message_id, attempt, delay=timedelta())

    async def end(self, message: str, response: str | None = TEXT, **outcome: Any) -> None:
        message_id = MessageId(UUID(message))
        attempt, writer = self._attempts[message_id]
        await writer.close()
        outcome = {"status": MessageStatus.COMPLETED, **outcome}
        assert await self.messages.finish(message_id, attempt, Outcome(response=response, **outcome))
        await self.stream.wake(message_id)

    async def answer(self, message: str, *pieces: str) -> None:
        await self.begin(message, *(pieces or PIECES))
        await self.end(message, "".join(pieces or PIECES))


@pytest.fixture
async def hand(api_environment: dict[str, str]) -> AsyncIterator[Hand]:
    stream = RedisReplyStream(
        api_environment["REDIS_URL"], namespace=api_environment["REDIS_NAMESPACE"], command_seconds=5
    )
    async with connected(api_environment["DATABASE_URL"]):
        yield Hand(stream)
    await stream.close()


@dataclass
class Room:
    """Somebody's room, and one message in it."""

    person: Person
    room: str
    message: str = ""

    @property
    def path(self) -> str:
        return f"/chatroom/{self.room}/message"

    @property
    def url(self) -> str:
        return str(self.person.http.base_url)

    def at(self, http: httpx.AsyncClient) -> Room:
        return Room(self.person.at(http), self.room, self.message)

    @asynccontextmanager
    async def stream(self, after: str = "", **more: Any) -> AsyncIterator[Stream]:
        path = f"{self.path}/{self.message}/stream" + more.pop("query", "")
        async with open_stream(self.url, path, self.person.token, after=after, **more) as stream:
            yield stream

    @asynccontextmanager
    async def send(self, headers: dict[str, str] | None = None) -> AsyncIterator[Stream]:
        """POST, to be streamed unless the headers say otherwise."""
        async with open_stream(
            self.url, self.path, self.person.token, method="POST", body={"input": "Why?"}, headers=headers
        ) as stream:
            self.message = stream.headers.get("location", "").rpartition("/")[2]
            yield stream

    async def ask(self, *, prefer: str = "", **more: Any) -> httpx.Response:
        headers = {"Prefer": prefer} if prefer else {}
        return await self.person.ask("GET", f"{self.path}/{self.message}", headers=headers, **more)

    async def read(self, after: str = "") -> Reply:
        async with self.stream(after) as stream:
            assert stream.status == 200, stream.body
            return await stream.read_to_end(seconds=HANG)


@pytest.fixture
async def room(person: Person) -> Room:
    room = await person.room()
    return Room(person, room, await person.send(room, "Why?"))


def assert_problem(stream: Stream, status: int, code: str) -> dict[str, Any]:
    assert (stream.status, stream.headers["content-type"]) == (status, "application/problem+json"), stream.body
    problem: dict[str, Any] = stream.json
    assert problem["code"] == code
    return problem


class TestOnTheWire:
    async def test_the_head_and_the_first_bytes_come_at_once(self, room: Room) -> None:
        async with room.stream() as stream:
            assert stream.status == 200
            headers = stream.headers
            assert headers["content-type"] == "text/event-stream"
            assert headers["cache-control"] == "no-store"
            assert headers["x-accel-buffering"] == "no"
            assert headers["x-request-id"]
            assert not {"content-encoding", "content-length"} & headers.keys()
            async with asyncio.timeout(HANG):
                first = await anext(stream.chunks())
        assert first.startswith(b"retry: 1000\n\n:")
        assert len(first) > 1024

    async def test_an_event_is_an_id_a_name_and_a_line(self, room: Room, hand: Hand) -> None:
        async with room.stream() as stream, asyncio.timeout(HANG):
            chunks = stream.chunks()
            await anext(chunks)
            await hand.begin(room.message, PIECES[2])
            assert await anext(chunks) == b'id: 1-9\nevent: delta\ndata: {"text":"Rayleigh\\n"}\n\n'

    async def test_a_thought_has_no_id(self, room: Room, hand: Hand) -> None:
        async with room.stream() as stream, asyncio.timeout(HANG):
            chunks = stream.chunks()
            await anext(chunks)
            await hand.begin(room.message, PIECES[0])
            assert await anext(chunks)
            hand.think(room.message, "आकाश 🌻\n", "Hm.")
            assert await anext(chunks) == 'event: thought\ndata: {"text":"आकाश 🌻\\nHm."}\n\n'.encode()
            hand.say(room.message, *PIECES[1:])
            used: dict[str, Any] = {"input_tokens": 9, "cached_tokens": 4, "output_tokens": 7, "thought_tokens": 3}
            await hand.end(room.message, thoughts="आकाश 🌻\nHm.", thinking_seconds=2.5, **used)
            rest = b"".join([chunk async for chunk in chunks]).decode()
        assert "event: thought" not in rest
        assert rest.endswith("\n\n")
        done = json.loads(rest.split("event: done\ndata: ")[1])
        assert (done["thoughts"], done["thinkingSeconds"]) == ("आकाश 🌻\nHm.", 2.5)
        assert done["usage"] == {"inputTokens": 9, "cachedTokens": 4, "outputTokens": 7, "thoughtTokens": 3}
        assert (await room.person.get(room.path))["data"] == [done]
        assert (await room.read()).thoughts == "", "only who was there has it"

    async def test_done_carries_the_message_as_get_returns_it(self, room: Room, hand: Hand) -> None:
        async with room.stream() as stream:
            await hand.answer(room.message)
            reply = await stream.read_to_end()
        got = await room.ask()
        assert reply.text == TEXT
        assert reply.ended is not None
        assert reply.ended.data == got.json()["data"]
        assert (reply.ended.name, reply.ended.id) == ("done", END)
        assert list(reply.ended.data) == list(got.json()["data"]), "the very same serialisation"

    async def test_available_text_is_sent_in_one_write(self, room: Room, hand: Hand) -> None:
        await hand.begin(room.message, *PIECES)
        await hand.end(room.message)
        async with room.stream() as stream:
            assert len([chunk async for chunk in stream.chunks()]) <= 3

    async def test_a_silent_stream_is_kept_alive_and_its_duration_is_bounded(
        self, api_environment: dict[str, str], room: Room
    ) -> None:
        settings = {"STREAM_PING_SECONDS": "0.1", "STREAM_SECONDS": "2"}
        with api_process({**api_environment, **settings}) as (url, _):
            async with http_client(url) as client, room.at(client).stream() as stream:
                async with asyncio.timeout(HANG):
                    events = [event async for event in stream.events()]
        assert events == []
        assert stream.comments > 1
        assert stream.retries == 2, "at its end it invites to come again"
        assert stream.has_ended

    @pytest.mark.parametrize("connection", ["close", "keep-alive"])
    async def test_http_1_0_gets_no_chunks_and_an_end_of_the_connection(
        self, room: Room, hand: Hand, connection: str
    ) -> None:
        reader, writer = await asyncio.open_connection(room.person.http.base_url.host, room.person.http.base_url.port)
        head = f"GET {room.path}/{room.message}/stream HTTP/1.0\r\nConnection: {connection}\r\n"
        writer.write(f"{head}Authorization: Bearer {room.person.token}\r\n\r\n".encode())
        async with asyncio.timeout(HANG):
            fields = (await reader.readuntil(b"\r\n\r\n")).lower()
            await hand.answer(room.message)
            body = await reader.read()
            while more := await reader.read():
                body += more
        writer.close()
        assert b"transfer-encoding" not in fields
        assert b"connection: close\r\n" in fields
        assert body.startswith(b"retry: 1000\n\n:")
        assert body.endswith(b"\n\n")
        assert b"event: done" in body

    async def test_head_sends_only_the_headers(self, room: Room) -> None:
        reply = await room.person.ask("HEAD", f"{room.path}/{room.message}/stream", timeout=HANG)
        assert (reply.status_code, reply.headers["content-type"]) == (200, "text/event-stream")


class TestEndings:
    async def test_failed_is_a_problem(self, room: Room, hand: Hand) -> None:
        await hand.begin(room.message, "Half a")
        async with room.stream() as stream:
            reply = await stream.read_until("Half a")
            await hand.end(
                room.message,
                None,
                status=MessageStatus.FAILED,
                error_code="model_unavailable",
                error_detail="The model was unavailable.",
            )
            await stream.read_to_end(reply)
        assert reply.names == ["delta", "reset", "error"]
        assert reply.events[1].data == {"attempt": 1}
        problem = reply.events[-1].data
        assert (problem["status"], problem["code"], problem["detail"]) == (
            *(502, "model_unavailable"),
            "The model was unavailable.",
        )
        assert problem.keys() == {"type", "title", "status", "detail", "instance", "code", "requestId"}
        async with room.stream(reply.position) as stream:
            assert stream.status == 204

    @pytest.mark.parametrize("status", [MessageStatus.CANCELLED, MessageStatus.BLOCKED])
    async def test_other_ends_are_done(self, room: Room, hand: Hand, status: MessageStatus) -> None:
        kept = "Half a" if status is MessageStatus.CANCELLED else None
        await hand.begin(room.message, "Half a")
        async with room.stream() as stream:
            reply = await stream.read_until("Half a")
            await hand.end(room.message, kept, status=status)
            await stream.read_to_end(reply)
        assert reply.ended is not None
        assert (reply.ended.name, reply.ended.data["status"]) == ("done", status)
        assert reply.text == (kept or "")

    async def test_deleted(self, room: Room, hand: Hand) -> None:
        await hand.begin(room.message, "Half a")
        async with room.stream() as stream:
            reply = await stream.read_until("Half a")
            await room.person.ask("DELETE", f"/chatroom/{room.room}")
            await stream.read_to_end(reply, seconds=HANG)
        assert reply.ended is not None
        assert (reply.ended.name, reply.ended.data["code"], reply.ended.id) == ("error", "message_not_found", None)
        async with room.stream(reply.position) as stream:
            assert_problem(stream, 404, "message_not_found")

    async def test_another_attempt(self, room: Room, hand: Hand) -> None:
        await hand.begin(room.message, "Perhaps")
        async with room.stream() as stream, room.stream() as late:
            reply = await stream.read_until("Perhaps")
            await hand.give_up(room.message)
            await hand.answer(room.message)
            await stream.read_to_end(reply)
            other = await late.read_to_end()
        assert "reset" in reply.names
        assert reply.text == other.text == TEXT
        assert reply.position == f"2-{len(TEXT) + 1}"


class TestResuming:
    @pytest.mark.parametrize("by", ["header", "query", "header before query"])
    @pytest.mark.parametrize("expired", [False, True])
    async def test_resumes_after_the_id(self, room: Room, hand: Hand, by: str, expired: bool) -> None:
        await hand.answer(room.message)
        if expired:
            client = hand.stream._redis  # noqa: SLF001 - as time does it
            assert await client.delete(hand.stream._key(MessageId(UUID(room.message))))  # noqa: SLF001
        query = {"header": "", "query": "?lastEventId=1-8", "header before query": "?lastEventId=7-7"}[by]
        async with room.stream("" if by == "query" else "1-8", query=query) as stream:
            reply = await stream.read_to_end()
        assert reply.text == TEXT[8:]
        assert reply.names == ["delta", "done"]

    @pytest.mark.parametrize("expired", [False, True])
    async def test_after_the_end_is_nothing(self, room: Room, hand: Hand, expired: bool) -> None:
        await hand.answer(room.message)
        async with room.stream(END) as stream:
            assert stream.status == 204
            assert not stream.body
            assert stream.headers["cache-control"] == "no-store"

    @pytest.mark.parametrize("after", ["7-3", "1-900"])
    async def test_an_unreachable_position_starts_from_the_beginning(self, room: Room, hand: Hand, after: str) -> None:
        await hand.answer(room.message)
        reply = await room.read(after)
        assert (reply.names[0], reply.text) == ("reset", TEXT)

    @pytest.mark.parametrize("after", ["7", "1-x", "1-1-1", "-1-1", "1 - 1", "1-", "9999999999-1"])
    @pytest.mark.parametrize("by", ["header", "query"])
    async def test_a_malformed_id_is_refused(self, room: Room, after: str, by: str) -> None:
        query = f"?lastEventId={after.replace(' ', '%20')}" if by == "query" else ""
        async with room.stream("" if query else after, query=query) as stream:
            problem = assert_problem(stream, 422, "validation_failed")
        assert [error["pointer"] for error in problem["errors"]] == ["?lastEventId" if query else "Last-Event-ID"]

    async def test_at_another_process(self, room: Room, hand: Hand, second_http: httpx.AsyncClient) -> None:
        await hand.begin(room.message, *PIECES[:2])
        async with room.stream() as stream:
            reply = await stream.read_until("of ")
        async with room.at(second_http).stream(reply.position) as stream:
            hand.say(room.message, *PIECES[2:])
            await hand.end(room.message)
            await stream.read_to_end(reply)
        assert reply.text == TEXT


class TestRefusals:
    """Before the first byte, a problem is a problem."""

    async def test_without_a_token(self, room: Room) -> None:
        async with open_stream(room.url, f"{room.path}/{room.message}/stream", None) as stream:
            assert_problem(stream, 401, "token_missing")

    async def test_a_token_has_no_place_in_a_url(self, room: Room) -> None:
        query = f"?token={room.person.token}&access_token={room.person.token}"
        async with open_stream(room.url, f"{room.path}/{room.message}/stream{query}", None) as stream:
            assert_problem(stream, 401, "token_missing")

    async def test_an_unknown_message_or_one_of_someone_else(self, room: Room, stranger: Person) -> None:
        others = Room(stranger, room.room, room.message)
        for one in (others, Room(room.person, room.room, str(uuid4())), Room(room.person, room.room, "7")):
            async with one.stream() as stream:
                assert_problem(stream, 404, "message_not_found")
        async with others.send() as stream:
            assert_problem(stream, 404, "chatroom_not_found")

    async def test_nothing_to_stream(self, room: Room) -> None:
        async with open_stream(room.url, room.path, room.person.token, method="POST", body={"input": ""}) as stream:
            assert_problem(stream, 422, "validation_failed")

    async def test_a_used_up_allowance(self, person: Person, room: Room) -> None:
        for _ in range(4):
            await person.send(room.room, "Why?")
        async with room.send() as stream:
            assert_problem(stream, 403, "quota_exceeded")


class TestLimits:
    async def test_of_a_user(self, limited_http: httpx.AsyncClient) -> None:
        person = await sign_up(limited_http)
        room = await person.room()
        one = Room(person, room, await person.send(room, "Why?"))
        async with AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(one.stream()) for _ in range(3)]
            async with one.stream() as stream:
                assert_problem(stream, 429, "too_many_streams")
                assert int(stream.headers["retry-after"]) >= 1
            async with Room(person, room).send() as stream:
                assert_problem(stream, 429, "too_many_streams")
            assert await person.remaining() == 4, "nothing was accepted, so nothing is paid for"
            other = await sign_up(limited_http)
            room = await other.room()
            async with Room(other, room, await other.send(room, "Why?")).stream() as stream:
                assert stream.status == 200, "somebody else is somebody else"
            streams[0].drop()
            await becomes_free(one)

    async def test_of_a_process(self, api_environment: dict[str, str], room: Room) -> None:
        with api_process({**api_environment, "STREAMS_PER_PROCESS": "2"}) as (url, _):
            async with http_client(url) as client:
                here = room.at(client)
                async with here.stream() as first, here.stream():
                    async with here.stream() as stream:
                        assert_problem(stream, 503, "streams_exhausted")
                        assert int(stream.headers["retry-after"]) >= 1
                    async with Room(here.person, room.room).send() as stream:
                        assert_problem(stream, 503, "streams_exhausted")
                    first.drop()
                    await becomes_free(here)

    async def test_an_ended_stream_no_longer_counts(self, limited_http: httpx.AsyncClient, hand: Hand) -> None:
        person = await sign_up(limited_http)
        room = await person.room()
        one = Room(person, room, await person.send(room, "Why?"))
        await hand.answer(one.message)
        for _ in range(8):
            assert (await one.read()).text == TEXT


class TestEndOfSession:
    """Whichever process hears of it, nothing of the session goes on at any."""

    @pytest.mark.parametrize("by", ["logging out", "another session", "a new password", "deleting the account"])
    async def test_streams_and_waits_end_with_it(
        self, room: Room, hand: Hand, second_http: httpx.AsyncClient, by: str
    ) -> None:
        await hand.begin(room.message, "Half a")
        here, there, owner = room, room.at(second_http), room.person
        other = await log_in(room.person.http, owner.mobile, owner.id)
        async with here.stream() as first, there.stream() as second:
            waiting = [asyncio.create_task(at.ask(prefer="wait=60")) for at in (here, there)]
            sending = asyncio.create_task(
                owner.ask("POST", room.path, {"input": "And?"}, headers={"Prefer": "wait=60"})
            )
            await newest(room)
            match by:
                case "logging out":
                    response = await owner.at(second_http).ask("POST", "/auth/logout")
                case "another session":
                    response = await other.ask("DELETE", "/auth/sessions")
                case "a new password":
                    code = await owner.http.post("/auth/forgot-password", json={"mobile": owner.mobile})
                    body = {"otp": code.json()["otp"], "newPassword": "a dozen red herons"}
                    response = await other.ask("POST", "/auth/change-password", body)
                case _:
                    code = await owner.http.post("/auth/forgot-password", json={"mobile": owner.mobile})
                    response = await other.ask("DELETE", "/user/me", {"otp": code.json()["otp"]})
            assert response.status_code == 200, response.text
            for stream in (first, second):
                reply = await stream.read_to_end(seconds=HANG)
                assert reply.ended is not None
                gone = "message_not_found" if by == "deleting the account" else "token_invalid"
                assert reply.ended.name == "error"
                assert reply.ended.data["code"] in ("token_invalid", gone)
            for waited in await asyncio.gather(*waiting, sending):
                assert waited.json()["code"] in ("token_invalid", gone)

    async def test_other_sessions_of_the_user_go_on(self, room: Room, hand: Hand) -> None:
        await hand.begin(room.message, "Half a")
        other = Room(await log_in(room.person.http, room.person.mobile, room.person.id), room.room, room.message)
        async with room.stream() as ended, other.stream() as stream:
            assert (await room.person.ask("POST", "/auth/logout")).status_code == 200
            assert (await ended.read_to_end(seconds=HANG)).ended is not None
            hand.say(room.message, " word")
            await hand.end(room.message, "Half a word")
            reply = await stream.read_to_end(seconds=HANG)
        assert (reply.text, reply.ended and reply.ended.name) == ("Half a word", "done")


async def becomes_free(room: Room) -> None:
    """One more stream can be opened: at once when the server hears that a client is gone."""
    give_up = time.monotonic() + HANG
    while True:
        async with room.stream() as stream:
            if stream.status == 200:
                return
        assert time.monotonic() < give_up
        await asyncio.sleep(0.02)


class TestSending:
    async def test_streams_in_the_same_response(self, room: Room, hand: Hand) -> None:
        async with room.send() as stream:
            assert stream.status == 200
            assert stream.headers["location"] == f"{room.path}/{room.message}"
            assert stream.headers["content-type"] == "text/event-stream"
            await hand.answer(room.message)
            reply = await stream.read_to_end()
        assert reply.text == TEXT
        assert (await room.ask()).json()["data"]["response"] == TEXT

    async def test_a_repeated_request_gets_the_same_message_from_its_beginning(self, room: Room, hand: Hand) -> None:
        key = {"Idempotency-Key": str(uuid4())}
        async with room.send(key) as stream:
            first = room.message
            await hand.begin(first, *PIECES[:2])
            await stream.read_until("of ")
        async with room.send(key) as stream:
            assert room.message == first
            assert stream.headers["idempotency-replayed"] == "true"
            hand.say(first, *PIECES[2:])
            await hand.end(first)
            assert (await stream.read_to_end()).text == TEXT
        async with room.send(key) as stream:
            assert (await stream.read_to_end()).text == TEXT
        plain = await room.person.ask("POST", room.path, {"input": "Why?"}, headers=key)
        assert (plain.status_code, plain.json()["data"]["status"]) == (202, "queued"), "the acceptance is what is kept"
        waited = await room.person.ask("POST", room.path, {"input": "Why?"}, headers={**key, "Prefer": "wait=60"})
        assert (waited.status_code, waited.json()["data"]["response"]) == (200, TEXT)
        assert await room.person.remaining() == 3, "one message was sent"

    async def test_asks_again(self, room: Room, hand: Hand) -> None:
        await hand.answer(room.message, "An old reply.")
        path = f"{room.path}/{room.message}/regenerate"
        async with open_stream(room.url, path, room.person.token, method="POST") as stream:
            assert stream.status == 200, stream.body
            await hand.answer(room.message)
            reply = await stream.read_to_end()
        assert reply.text == TEXT
        assert reply.names[0] == "delta"
        late = await room.read("1-14")
        assert (late.names[0], late.text) == ("reset", TEXT)

    @pytest.mark.parametrize(
        ("accept", "streamed"),
        [
            ("text/event-stream", True),
            ("TEXT/Event-Stream; charset=utf-8", True),
            ("application/json, text/event-stream", True),
            ("text/event-stream;q=0.9, application/json;q=0.8", True),
            ("text/event-stream;q=0.5, application/json", False),
            ("text/event-stream;q=0", False),
            ("text/event-stream;q=x", False),
            ("application/json", False),
            ("text/*", False),
            ("*/*", False),
            ("", False),
        ],
    )
    async def test_only_clients_that_accept_events_get_them(self, room: Room, accept: str, streamed: bool) -> None:
        async with room.send({"Accept": accept}) as stream:
            assert (stream.status, stream.is_stream) == ((200, True) if streamed else (202, False))


class TestContinuing:
    @pytest.fixture
    async def cut(self, room: Room, hand: Hand) -> Room:
        """A message whose reply was cut off."""
        await hand.begin(room.message, *PIECES[:2])
        await hand.end(room.message, "Because of ", finish_reason="MAX_TOKENS", input_tokens=3, output_tokens=4)
        return room

    @asynccontextmanager
    async def go_on(self, room: Room, headers: dict[str, str] | None = None) -> AsyncIterator[Stream]:
        path = f"{room.path}/{room.message}/continue"
        async with open_stream(room.url, path, room.person.token, method="POST", headers=headers) as stream:
            yield stream

    async def test_it_is_the_same_message_with_its_text(self, cut: Room, hand: Hand) -> None:
        before = (await cut.ask()).json()["data"]
        answer = await cut.person.ask("POST", f"{cut.path}/{cut.message}/continue", content=b"{}")
        assert (answer.status_code, answer.json()["remainingMessages"]) == (202, 3)
        data = answer.json()["data"]
        assert data == {**before, "status": "queued", "finishReason": None, "completedAt": None}
        assert (await cut.ask()).json()["data"] == data
        again = await cut.person.ask("POST", f"{cut.path}/{cut.message}/continue")
        assert (again.status_code, again.json()["code"]) == (409, "message_not_ended")
        await hand.begin(cut.message, *PIECES[2:])
        running = (await cut.ask()).json()["data"]
        assert (running["status"], running["response"]) == ("generating", "Because of ")
        await hand.end(cut.message, "".join(PIECES[2:]), finish_reason="STOP", input_tokens=5, output_tokens=6)
        ended = (await cut.ask()).json()["data"]
        assert (ended["response"], ended["finishReason"], ended["attempts"]) == (TEXT, "STOP", 2)
        assert (ended["usage"]["inputTokens"], ended["usage"]["outputTokens"]) == (8, 10)
        refused = await cut.person.ask("POST", f"{cut.path}/{cut.message}/continue")
        assert (refused.status_code, refused.json()["code"]) == (409, "message_not_continuable")
        assert await cut.person.remaining() == 3

    async def test_streamed_the_text_comes_first(self, cut: Room, hand: Hand) -> None:
        async with self.go_on(cut) as stream:
            assert stream.status == 200, stream.body
            assert stream.headers["location"] == f"{cut.path}/{cut.message}"
            reply = await stream.read_until("of ")
            await hand.begin(cut.message, *PIECES[2:])
            await hand.end(cut.message, "".join(PIECES[2:]))
            await stream.read_to_end(reply)
        assert reply.text == TEXT
        assert "reset" not in reply.names
        assert reply.position == f"2-{len(TEXT) + 1}"

    @pytest.mark.parametrize("after", ["1-12", "1-11", "1-4"])
    @pytest.mark.parametrize("expired", [False, True])
    async def test_after_the_old_end_the_added_text_follows(
        self, cut: Room, hand: Hand, after: str, expired: bool
    ) -> None:
        await cut.person.ask("POST", f"{cut.path}/{cut.message}/continue")
        known = TEXT[: min(11, int(after[2:]))]
        async with cut.stream(after) as stream:
            await hand.begin(cut.message, *PIECES[2:])
            await hand.end(cut.message, "".join(PIECES[2:]))
            reply = await stream.read_to_end()
        if expired:
            await hand.stream._redis.delete(hand.stream._key(MessageId(UUID(cut.message))))  # noqa: SLF001
        for whole in (reply, await cut.read(after)):
            assert whole.text == TEXT[len(known) :]
            assert "reset" not in whole.names

    async def test_if_it_fails_the_end_is_the_message_with_its_error(self, cut: Room, hand: Hand) -> None:
        waiting = asyncio.create_task(
            cut.person.ask("POST", f"{cut.path}/{cut.message}/continue", headers={"Prefer": "wait=30"})
        )
        give_up = time.monotonic() + HANG
        while (await cut.ask()).json()["data"]["status"] != "queued":
            assert time.monotonic() < give_up
            await asyncio.sleep(0.01)
        await hand.begin(cut.message, "Perhaps")
        async with cut.stream("1-12") as stream:
            reply = await stream.read_until("Perhaps")
            failed = {"error_code": "model_unavailable", "error_detail": "The model was unavailable."}
            await hand.end(cut.message, None, status=MessageStatus.FAILED, **failed)
            await stream.read_to_end(reply)
        assert (reply.names, reply.text) == (["delta", "reset", "delta", "done"], "Because of ")
        assert reply.ended is not None
        data = reply.ended.data
        assert (data["status"], data["finishReason"], data["counted"]) == ("completed", "MAX_TOKENS", False)
        assert data["error"] == {"code": "model_unavailable", "detail": "The model was unavailable."}
        waited = await waiting
        assert (waited.status_code, waited.json()["data"]) == (200, data)
        assert await cut.person.remaining() == 4, "it is given back"
        async with cut.stream(reply.position) as stream:
            assert stream.status == 204

    async def test_a_repeated_request_continues_once(self, cut: Room, hand: Hand) -> None:
        key = {"Idempotency-Key": str(uuid4())}
        path = f"{cut.path}/{cut.message}/continue"
        answers = await asyncio.gather(*(cut.person.ask("POST", path, headers=key) for _ in range(10)))
        assert {answer.status_code for answer in answers} <= {202, 409}
        assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"idempotency_key_in_use"}
        await hand.begin(cut.message, "and ")
        await hand.end(cut.message, "and ", finish_reason="MAX_TOKENS")
        again = await cut.person.ask("POST", path, headers=key)
        assert (again.status_code, again.headers["idempotency-replayed"]) == (202, "true")
        assert (await cut.ask()).json()["data"]["status"] == "completed"
        assert await cut.person.remaining() == 3

    async def test_a_cancelled_continuation_restores_the_message(self, cut: Room) -> None:
        await cut.person.ask("POST", f"{cut.path}/{cut.message}/continue")
        stopped = await cut.person.ask("POST", f"{cut.path}/{cut.message}/cancel")
        data = stopped.json()["data"]
        assert (stopped.status_code, data["status"], data["finishReason"]) == (200, "completed", "MAX_TOKENS")
        assert data["response"] == "Because of "


class TestWaiting:
    async def test_sending_waits_for_the_reply(self, room: Room, hand: Hand) -> None:
        sending = asyncio.create_task(
            room.person.ask("POST", room.path, {"input": "Why?"}, headers={"Prefer": "wait=60"})
        )
        room.message = await newest(room)
        await hand.answer(room.message)
        reply = await sending
        assert reply.status_code == 200
        assert reply.headers["preference-applied"] == "wait=60"
        assert reply.json()["data"] == (await room.ask()).json()["data"]
        assert reply.json().keys() == {"message", "data", "remainingMessages", "dailyLimitInfo"}

    async def test_sending_returns_the_message_when_the_time_is_up(self, room: Room, hand: Hand) -> None:
        await hand.begin(room.message, "Half a")
        reply = await room.ask(prefer="respond-async, wait=1")
        assert (reply.status_code, reply.json()["data"]["status"]) == (202, "generating")
        assert reply.headers["preference-applied"] == "wait=1"
        headers = {"Prefer": "wait=0"}
        reply = await room.person.ask("POST", room.path, {"input": "Why?"}, headers=headers)
        assert (reply.status_code, reply.json()["data"]["status"]) == (202, "queued")

    async def test_reading_waits_for_the_end(self, room: Room, hand: Hand) -> None:
        reading = asyncio.create_task(room.ask(prefer="wait=100"))
        await asyncio.sleep(0.1)
        assert not reading.done()
        await hand.answer(room.message)
        reply = await reading
        assert (reply.status_code, reply.json()["data"]["response"]) == (200, TEXT)
        assert reply.headers["preference-applied"] == "wait=60"
        again = await room.ask(prefer='Wait = "5"; more=1')
        assert (again.status_code, again.headers["preference-applied"]) == (200, "wait=5")

    @pytest.mark.parametrize("prefer", ["", "wait", "wait=", "wait=-1", "wait=x", "wait=1.5", "waiting=1", "a b, ;=,"])
    async def test_a_malformed_preference_is_ignored(self, room: Room, prefer: str) -> None:
        reply = await room.ask(prefer=prefer)
        assert (reply.status_code, reply.json()["data"]["status"]) == (200, "queued")
        assert "preference-applied" not in reply.headers

    async def test_a_message_deleted_while_waiting(self, room: Room, hand: Hand) -> None:
        reading = asyncio.create_task(room.ask(prefer="wait=60"))
        await asyncio.sleep(0.1)
        await room.person.ask("DELETE", f"/chatroom/{room.room}")
        assert (await reading).status_code == 404

    async def test_a_problem_is_not_waited_for(self, room: Room) -> None:
        reply = await room.person.ask(
            "POST", f"/chatroom/{uuid4()}/message", {"input": "?"}, headers={"Prefer": "wait=60"}
        )
        assert reply.status_code == 404


async def newest(room: Room) -> str:
    """The id of the message after `room.message`, as soon as it is there."""
    give_up = time.monotonic() + HANG
    while True:
        data = (await room.person.get(room.path))["data"]
        if data and data[-1]["id"] != room.message:
            return str(data[-1]["id"])
        assert time.monotonic() < give_up
        await asyncio.sleep(0.01)


class TestTime:
    """What lasts longer than an ordinary call may: `second_http` gives those two seconds."""

    async def test_a_stream_outlives_the_request_timeout(
        self, room: Room, hand: Hand, second_http: httpx.AsyncClient
    ) -> None:
        here = room.at(second_http)
        async with here.stream() as stream:
            await asyncio.sleep(3.5)
            await hand.answer(room.message)
            assert (await stream.read_to_end()).text == TEXT

    async def test_a_wait_outlives_the_request_timeout(self, room: Room, second_http: httpx.AsyncClient) -> None:
        reply = await room.at(second_http).ask(prefer="wait=4")
        assert (reply.status_code, reply.headers["preference-applied"]) == (202, "wait=4")
        assert (await room.at(second_http).ask()).status_code == 200, "the connection goes on"


@pytest.fixture(scope="module")
def own_api(api_environment: dict[str, str]) -> Iterator[tuple[str, Any]]:
    with api_process(api_environment) as (url, process):
        yield url, process


async def test_a_process_that_shuts_down_ends_its_streams(own_api: tuple[str, Any], room: Room, hand: Hand) -> None:
    url, process = own_api
    async with http_client(url) as client:
        here = room.at(client)
        await hand.begin(room.message, *PIECES[:2])
        async with here.stream() as stream, here.stream() as other:
            reply = await stream.read_until("of ")
            waiting = asyncio.create_task(here.ask(prefer="wait=60"))
            await asyncio.sleep(0.2)
            began = time.monotonic()
            process.process.terminate()
            await stream.read_to_end(reply, seconds=HANG)
            await other.read_to_end(seconds=HANG)
            assert stream.has_ended
            assert stream.retries == 2
            waited = await waiting
            assert (waited.status_code, waited.json()["data"]["status"]) == (202, "generating")
            assert await asyncio.to_thread(process.process.wait, 20) == 0
            assert time.monotonic() - began < 8, "it did not wait for its streams"
    hand.say(room.message, *PIECES[2:])
    await hand.end(room.message)
    async with room.stream(reply.position) as stream:
        await stream.read_to_end(reply)
    assert reply.text == TEXT


async def test_json_on_the_wire_is_utf8(room: Room, hand: Hand) -> None:
    await hand.answer(room.message)
    async with room.stream() as stream:
        data = b"".join([chunk async for chunk in stream.chunks()])
    assert "आकाश 🌻".encode() in data
    assert json.loads(data.split(b"event: done\ndata: ")[1])["response"] == TEXT
