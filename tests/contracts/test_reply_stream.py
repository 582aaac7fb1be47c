"""What ReplyStream promises: in memory, and over Redis between a process that writes and one that reads."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from adapters.memory.reply_stream import MemoryReplyStream
from adapters.redis.reply_stream import RedisReplyStream
from adapters.system import TimeOrderedIds
from application.ports.chat import ReplyReader, ReplyStream, ReplyWriter
from domain.chat.streams import ReplyPiece, StreamPosition
from domain.ids import MessageId
from tests.support.patience import HANG

IDS = TimeOrderedIds()
START = StreamPosition()
# Outside the first plane, joined, combining and right-to-left: a character is a code point.
TEXT = "Grüße! 👋🏽 👩‍👩‍👧 e\u0301a\u0308 שלום 日本\n\x00."


@dataclass(frozen=True)
class Streams:
    writing: ReplyStream
    reading: ReplyStream
    lose_all: Callable[[], Awaitable[None]]
    followed: Callable[[], Awaitable[int]]
    """Messages that somebody follows."""


class Follower:
    """Reads all the time, and checks each piece against what it has."""

    def __init__(self, reader: ReplyReader, after: StreamPosition = START, text: str = "") -> None:
        self.reader = reader
        self.position = after
        self.text = text
        self.pieces: list[ReplyPiece] = []
        self.thoughts: list[tuple[int, str]] = []
        """Each with the characters that came before it."""
        self.looks = 0
        self.attempts: list[int] = []

    async def run(self, *, pause: float | None = None) -> None:
        while True:
            self.take(await self.reader.read())
            if pause is not None:
                await asyncio.sleep(pause)

    def take(self, pieces: object) -> None:
        assert isinstance(pieces, list | tuple)
        self.looks += not pieces
        for piece in pieces:
            if piece.thought:
                assert (piece.position, piece.text) == (self.position, "")
                self.thoughts.append((len(self.text), piece.thought))
                continue
            if piece.position.attempt == self.position.attempt:
                assert piece.text
                assert piece.start == self.position.characters, "something is missing or comes twice"
            else:
                assert piece.position.attempt > self.position.attempt
                assert (piece.position.characters, piece.text) == (0, "")
                self.text = ""
                self.thoughts.clear()
                self.attempts.append(piece.position.attempt)
            self.text += piece.text
            self.position = piece.position
            self.pieces.append(piece)
            assert len(self.text) == self.position.characters

    async def has(self, text: str, *, attempt: int = 1) -> None:
        await until(
            lambda: (self.position.attempt, self.text) == (attempt, text),
            lambda: f"at {self.position}: {self.text[-50:]!r}",
        )

    async def has_thought(self, text: str) -> None:
        await until(lambda: self.thought == text, lambda: self.thoughts)

    @property
    def thought(self) -> str:
        return "".join(thought for _, thought in self.thoughts)

    async def looked(self, times: int) -> None:
        await until(lambda: self.looks >= times, lambda: f"looked {self.looks} times")
        assert self.looks == times


async def until(
    condition: Callable[[], bool], why: Callable[[], object] = lambda: "it never came", *, pause: float = 0.005
) -> None:
    give_up = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < give_up, why()
        await asyncio.sleep(pause)


@asynccontextmanager
async def following(
    stream: ReplyStream,
    message_id: MessageId,
    *,
    after: StreamPosition = START,
    text: str = "",
    pause: float | None = None,
) -> AsyncIterator[Follower]:
    async with stream.follow(message_id, after=after) as reader:
        follower = Follower(reader, after, text)
        task = asyncio.create_task(follower.run(pause=pause))
        try:
            yield follower
        finally:
            task.cancel()
            [result] = await asyncio.gather(task, return_exceptions=True)
        if isinstance(result, Exception):
            raise result


async def written(stream: ReplyStream, message_id: MessageId, text: str = TEXT, *, attempt: int = 1) -> None:
    """In three pieces or more."""
    writer = stream.write(message_id, attempt)
    async with following(stream, message_id) as follower:
        for end in (len(text) // 3, len(text) * 2 // 3, len(text)):
            writer.add(text[len(follower.text) : end])
            await follower.has(text[:end], attempt=attempt)
    await writer.close()


def tasks_left() -> list[str]:
    """Of streams in Redis that should be closed."""
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith(("_Flusher.", "ReplyHub."))]


def new_id() -> MessageId:
    return MessageId(IDS.new())


@pytest.fixture
async def memory_streams() -> AsyncIterator[Streams]:
    stream = MemoryReplyStream()

    async def lose_all() -> None:
        stream.lose_all()

    async def followed() -> int:
        return stream.followed

    yield Streams(stream, stream, lose_all, followed)
    await stream.close()


@pytest.fixture
async def redis_streams(redis_url: str) -> AsyncIterator[Streams]:
    namespace = f"test-{secrets.token_hex(6)}"
    writing, reading = (
        RedisReplyStream(redis_url, namespace=namespace, command_seconds=2, flush_seconds=0.001) for _ in range(2)
    )
    async with Redis.from_url(redis_url) as redis:

        async def lose_all() -> None:
            if keys := [key async for key in redis.scan_iter(f"{namespace}:*")]:
                await redis.delete(*keys)

        async def followed() -> int:
            return len(await redis.pubsub_channels(f"{namespace}:*"))

        for stream in (writing, reading):
            await stream.start()
        try:
            yield Streams(writing, reading, lose_all, followed)
        finally:
            async with asyncio.timeout(HANG):
                await reading.close()
                await writing.close()
            await lose_all()
    assert not tasks_left()


@pytest.fixture(params=["memory_streams", "redis_streams"])
def streams(request: pytest.FixtureRequest) -> Streams:
    chosen = request.getfixturevalue(request.param)
    assert isinstance(chosen, Streams)
    return chosen


@pytest.fixture
def message_id() -> MessageId:
    return new_id()


class TestRead:
    async def test_all_of_it_in_order(self, streams: Streams, message_id: MessageId) -> None:
        async with following(streams.reading, message_id) as follower:
            writer = streams.writing.write(message_id, 1)
            for character in TEXT:
                writer.add(character)
                await asyncio.sleep(0.002)
            await writer.close()
            await follower.has(TEXT)
        assert follower.pieces[0] == ReplyPiece(StreamPosition(1, 0))

    async def test_an_attempt_begins_before_its_first_word(self, streams: Streams, message_id: MessageId) -> None:
        async with following(streams.reading, message_id) as follower:
            streams.writing.write(message_id, 1)
            await follower.has("")
            assert follower.pieces == [ReplyPiece(StreamPosition(1, 0))]

    async def test_as_soon_as_there_is_something(self, streams: Streams, message_id: MessageId) -> None:
        async with following(streams.reading, message_id) as follower:
            writer = streams.writing.write(message_id, 1)
            for end in range(1, 6):
                writer.add(TEXT[end - 1])
                await follower.has(TEXT[:end])

    async def test_nothing_is_not_a_piece(self, streams: Streams, message_id: MessageId) -> None:
        async with following(streams.reading, message_id) as follower:
            writer = streams.writing.write(message_id, 1)
            for text in ("", "a", "", "b", ""):
                writer.add(text)
            await writer.close()
            await follower.has("ab")

    async def test_by_one_who_comes_late(self, streams: Streams, message_id: MessageId) -> None:
        await written(streams.writing, message_id)
        async with following(streams.reading, message_id) as follower:
            await follower.has(TEXT)

    async def test_by_those_who_come_while_it_is_written(self, streams: Streams, message_id: MessageId) -> None:
        writer = streams.writing.write(message_id, 1)
        async with AsyncExitStack() as stack:
            followers = []
            for character in TEXT:
                writer.add(character)
                followers.append(await stack.enter_async_context(following(streams.reading, message_id)))
                await asyncio.sleep(0.003)
            await writer.close()
            for follower in followers:
                await follower.has(TEXT)

    async def test_many_see_the_same(self, streams: Streams, message_id: MessageId) -> None:
        async with AsyncExitStack() as stack:
            followers = [
                await stack.enter_async_context(following(stream, message_id))
                for stream in (streams.reading, streams.writing)
                for _ in range(20)
            ]
            await written(streams.writing, message_id)
            for follower in followers:
                await follower.has(TEXT)

    async def test_each_message_has_its_own(self, streams: Streams) -> None:
        texts = {new_id(): f"{number} {TEXT}" for number in range(20)}
        async with AsyncExitStack() as stack:
            followers = {
                message_id: await stack.enter_async_context(following(streams.reading, message_id))
                for message_id in texts
            }
            await asyncio.gather(*(written(streams.writing, message_id, text) for message_id, text in texts.items()))
            for message_id, text in texts.items():
                await followers[message_id].has(text)

    async def test_half_a_surrogate_pair_harms_nobody(self, streams: Streams, message_id: MessageId) -> None:
        other = new_id()
        async with (
            following(streams.reading, message_id) as follower,
            following(streams.reading, other) as other_follower,
        ):
            writers = [streams.writing.write(id, 1) for id in (message_id, other)]
            for writer in writers:
                writer.add("a")
            for writer, text in zip(writers, ("\ud83d", "b"), strict=True):
                writer.add(text)
            await other_follower.has("ab")
            await follower.has("a\ud83d")

    async def test_a_read_that_was_cancelled_has_lost_nothing(self, streams: Streams, message_id: MessageId) -> None:
        writer = streams.writing.write(message_id, 1)
        async with streams.reading.follow(message_id) as reader:
            follower = Follower(reader)
            for character in TEXT * 5:
                writer.add(character)
                reading = asyncio.create_task(reader.read())
                await asyncio.sleep(random.choice((0, 0.001, 0.002)))
                reading.cancel()
                [result] = await asyncio.gather(reading, return_exceptions=True)
                if not isinstance(result, BaseException):
                    follower.take(result)
            async with asyncio.timeout(HANG):
                while follower.text != TEXT * 5:
                    follower.take(await reader.read())


class TestResume:
    async def test_after_any_character(self, streams: Streams, message_id: MessageId) -> None:
        await written(streams.writing, message_id)
        for characters in range(len(TEXT)):
            after = StreamPosition(1, characters)
            async with following(streams.reading, message_id, after=after, text=TEXT[:characters]) as follower:
                await follower.has(TEXT)
            assert follower.attempts == []
            assert "".join(piece.text for piece in follower.pieces) == TEXT[characters:]

    async def test_after_any_character_while_it_is_written(self, streams: Streams, message_id: MessageId) -> None:
        half = len(TEXT) // 2
        writer = streams.writing.write(message_id, 1)
        async with following(streams.reading, message_id) as first:
            writer.add(TEXT[:half])
            await first.has(TEXT[:half])
        async with AsyncExitStack() as stack:
            followers = [
                await stack.enter_async_context(
                    following(streams.reading, message_id, after=StreamPosition(1, n), text=TEXT[:n])
                )
                for n in range(len(TEXT))  # also ahead of what is written
            ]
            for character in TEXT[half:]:
                writer.add(character)
                await asyncio.sleep(0.003)
            await writer.close()
            for follower in followers:
                await follower.has(TEXT)

    @pytest.mark.parametrize("beyond", [0, 1, 100])
    async def test_after_the_end_there_is_nothing(self, streams: Streams, message_id: MessageId, beyond: int) -> None:
        await written(streams.writing, message_id)
        after = StreamPosition(1, len(TEXT) + beyond)
        async with following(streams.reading, message_id, after=after, text=TEXT) as follower:
            await streams.writing.write(message_id, 2).close()
            await follower.has("", attempt=2)
        assert [piece.position for piece in follower.pieces] == [StreamPosition(2, 0)]

    async def test_in_an_attempt_that_is_over_begins_with_the_new_one(
        self, streams: Streams, message_id: MessageId
    ) -> None:
        await written(streams.writing, message_id, "not this")
        await written(streams.writing, message_id, attempt=3)
        for after in (START, StreamPosition(1, 0), StreamPosition(1, 5), StreamPosition(1, 8), StreamPosition(2, 3)):
            async with following(streams.reading, message_id, after=after, text="x" * after.characters) as follower:
                await follower.has(TEXT, attempt=3)
            assert follower.attempts == [3]

    async def test_of_an_attempt_still_to_come_waits_for_it(self, streams: Streams, message_id: MessageId) -> None:
        await written(streams.writing, message_id)
        async with following(streams.reading, message_id, after=StreamPosition(2, 0)) as follower:
            await written(streams.writing, message_id, TEXT[::-1], attempt=2)
            await follower.has(TEXT[::-1], attempt=2)
        assert follower.attempts == []


class TestAttempts:
    async def test_a_new_one_is_announced_before_its_first_word(self, streams: Streams, message_id: MessageId) -> None:
        async with following(streams.reading, message_id) as follower:
            streams.writing.write(message_id, 1).add("One")
            await follower.has("One")
            writer = streams.writing.write(message_id, 2)
            await follower.has("", attempt=2)
            writer.add("Two")
            await follower.has("Two", attempt=2)
        assert follower.attempts == [1, 2]

    async def test_what_was_not_read_of_the_old_one_is_gone(self, streams: Streams, message_id: MessageId) -> None:
        async with streams.reading.follow(message_id) as reader, following(streams.reading, message_id) as probe:
            streams.writing.write(message_id, 1).add("One")
            await probe.has("One")
            follower = Follower(reader)
            streams.writing.write(message_id, 2).add("Two")
            await probe.has("Two", attempt=2)
            async with asyncio.timeout(HANG):
                while follower.text != "Two":
                    follower.take(await reader.read())
            assert follower.attempts == [2]

    async def test_who_lost_its_message_is_heard_by_nobody(self, streams: Streams, message_id: MessageId) -> None:
        async with following(streams.reading, message_id) as follower:
            zombie = streams.writing.write(message_id, 1)
            zombie.add("One")
            await follower.has("One")
            heir = streams.reading.write(message_id, 2)  # in another process
            await follower.has("", attempt=2)
            zombie.add(" and a half")
            await zombie.close()
            heir.add("Two")
            await follower.has("Two", attempt=2)
            late = streams.writing.write(message_id, 1)
            late.add("One again")
            await late.close()
            heir.add(", indeed")
            await heir.close()
            await follower.has("Two, indeed", attempt=2)
        assert follower.attempts == [1, 2]
        async with following(streams.reading, message_id) as late_reader:
            await late_reader.has("Two, indeed", attempt=2)
        assert late_reader.attempts == [2]

    async def test_many_in_a_row(self, streams: Streams, message_id: MessageId) -> None:
        async with following(streams.reading, message_id) as follower:
            for attempt in range(1, 8):
                writer = streams.writing.write(message_id, attempt)
                for character in TEXT:
                    writer.add(character)
                await writer.close()
            await follower.has(TEXT, attempt=7)


class TestThoughts:
    async def test_come_in_order_before_the_text_that_follows_them(
        self, streams: Streams, message_id: MessageId
    ) -> None:
        async with following(streams.reading, message_id) as follower:
            writer = streams.writing.write(message_id, 1)
            await follower.has("")
            for thought in ("Blue", " waves", " are", " short. 🌻\n\x00\ud83d"):
                writer.thought(thought)
                await asyncio.sleep(0.002)
            writer.add("Because ")
            await follower.has("Because ")
            assert follower.thoughts[0] == (0, follower.thoughts[0][1])
            assert follower.thought == "Blue waves are short. 🌻\n\x00\ud83d"
            writer.thought("And so on.")
            await follower.has_thought("Blue waves are short. 🌻\n\x00\ud83dAnd so on.")
            writer.add("of it.")
            await follower.has("Because of it.")
        assert follower.thoughts[-1] == (8, "And so on.")

    async def test_reach_all_who_follow_and_are_kept_for_nobody(self, streams: Streams, message_id: MessageId) -> None:
        other = new_id()
        async with AsyncExitStack() as stack:
            early = [
                await stack.enter_async_context(following(stream, message_id))
                for stream in (streams.reading, streams.writing, streams.reading)
            ]
            stranger = await stack.enter_async_context(following(streams.reading, other))
            writers = [streams.writing.write(id, 1) for id in (message_id, other)]
            for follower in (*early, stranger):
                await follower.has("")
            writers[0].thought("Hm.")
            for follower in early:
                await follower.has_thought("Hm.")
            late = await stack.enter_async_context(following(streams.reading, message_id))
            await late.has("")
            again = StreamPosition(1, 0)
            resumed = await stack.enter_async_context(following(streams.reading, message_id, after=again))
            for writer in writers:
                writer.add("Because")
            for follower in (*early, late, resumed, stranger):
                await follower.has("Because")
            assert [follower.thought for follower in (late, resumed, stranger)] == ["", "", ""]

    async def test_move_no_position(self, streams: Streams, message_id: MessageId) -> None:
        async with following(streams.reading, message_id) as follower:
            writer = streams.writing.write(message_id, 1)
            await follower.has("")
            text = ""
            for character in TEXT:
                writer.add(character)
                writer.thought("hm ")
                text += character
                await follower.has(text)
            await follower.has_thought("hm " * len(TEXT))
        assert "".join(piece.text for piece in follower.pieces) == TEXT

    async def test_of_an_attempt_that_is_over_reach_nobody(self, streams: Streams, message_id: MessageId) -> None:
        async with following(streams.reading, message_id) as follower:
            zombie = streams.writing.write(message_id, 1)
            await follower.has("")
            zombie.thought("Hm.")
            await follower.has_thought("Hm.")
            heir = streams.reading.write(message_id, 2)  # in another process
            await follower.has("", attempt=2)
            zombie.thought("I still think.")
            await zombie.close()
            heir.thought("So do I.")
            await follower.has_thought("So do I.")
            heir.add("Two")
            await follower.has("Two", attempt=2)
        assert follower.thoughts == [(0, "So do I.")]

    async def test_of_which_many_were_not_read_cost_no_text(self, streams: Streams, message_id: MessageId) -> None:
        async with streams.reading.follow(message_id) as reader, following(streams.reading, message_id) as probe:
            writer = streams.writing.write(message_id, 1)
            text = ""
            for number in range(400):
                writer.thought(f"{number} ")
                await asyncio.sleep(0.002)
                if number % 4 == 0:
                    writer.add("ab")
                    text += "ab"
            await probe.has(text)
            follower = Follower(reader)
            async with asyncio.timeout(HANG):
                while follower.text != text:
                    follower.take(await reader.read())

    async def test_nothing_is_none_and_after_the_end_is_none(self, streams: Streams, message_id: MessageId) -> None:
        async with following(streams.reading, message_id) as follower:
            writer = streams.writing.write(message_id, 1)
            await follower.has("")
            writer.thought("")
            writer.thought("Last.")
            await writer.close()
            writer.thought("Too late.")
            await streams.writing.wake(message_id)
            await follower.looked(1)
        assert follower.thoughts == [(0, "Last.")]


class TestClose:
    async def test_sends_what_is_left(self, streams: Streams, message_id: MessageId) -> None:
        writer = streams.writing.write(message_id, 1)
        for character in TEXT:
            writer.add(character)
        await writer.close()
        async with streams.reading.follow(message_id) as reader:
            follower = Follower(reader)
            async with asyncio.timeout(HANG):
                while follower.text != TEXT:
                    pieces = await reader.read()
                    assert pieces
                    follower.take(pieces)

    async def test_ends_the_attempt(self, streams: Streams, message_id: MessageId) -> None:
        writer = streams.writing.write(message_id, 1)
        writer.add("Before")
        await writer.close()
        writer.add("after")
        await writer.close()
        await streams.writing.wake(message_id)
        async with following(streams.reading, message_id) as follower:
            await follower.has("Before")
            await streams.writing.wake(message_id)
            await follower.looked(1)
            assert follower.text == "Before"

    async def test_without_a_word(self, streams: Streams, message_id: MessageId) -> None:
        await streams.writing.write(message_id, 1).close()
        async with following(streams.reading, message_id) as follower:
            await follower.has("")


class TestWake:
    async def test_comes_after_what_was_written_before(self, streams: Streams, message_id: MessageId) -> None:
        async with streams.reading.follow(message_id) as reader:
            for attempt in range(1, 20):
                writer = streams.writing.write(message_id, attempt)
                for character in TEXT:
                    writer.add(character)
                if attempt % 2:
                    await writer.close()
                await streams.writing.wake(message_id)
                async with asyncio.timeout(HANG):
                    pieces = list(await reader.read())
                    while more := await reader.read():
                        pieces += more
                assert pieces[0] == ReplyPiece(StreamPosition(attempt, 0))
                assert "".join(piece.text for piece in pieces) == TEXT

    async def test_reaches_all_who_follow_the_message_and_nobody_else(self, streams: Streams) -> None:
        woken, other = new_id(), new_id()
        async with AsyncExitStack() as stack:
            followers = [
                await stack.enter_async_context(following(stream, woken))
                for stream in (streams.reading, streams.writing, streams.reading)
            ]
            others = [await stack.enter_async_context(following(streams.reading, other)) for _ in range(2)]
            for message_id in (woken, other):
                await written(streams.writing, message_id)
            for follower in (*followers, *others):
                await follower.has(TEXT)
            await streams.writing.wake(woken)
            for follower in followers:
                await follower.looked(1)
            await streams.writing.wake(other)
            for follower in others:
                await follower.looked(1)
            for follower in followers:
                await follower.looked(1)

    async def test_is_not_kept_for_those_who_come_later(self, streams: Streams, message_id: MessageId) -> None:
        await written(streams.writing, message_id)
        await streams.writing.wake(message_id)
        async with following(streams.reading, message_id) as follower:
            await follower.has(TEXT)
            await streams.writing.write(message_id, 2).close()
            await follower.has("", attempt=2)
            assert follower.looks == 0

    async def test_of_a_message_that_nobody_follows(self, streams: Streams, message_id: MessageId) -> None:
        await streams.writing.wake(message_id)

    async def test_of_one_reader(self, streams: Streams, message_id: MessageId) -> None:
        async with (
            following(streams.reading, message_id) as one,
            following(streams.reading, message_id) as other,
        ):
            await written(streams.writing, message_id)
            await one.has(TEXT)
            one.reader.wake()
            await one.looked(1)
            await other.has(TEXT)
            assert other.looks == 0
            streams.writing.write(message_id, 2).add("Two")
            for follower in (one, other):
                await follower.has("Two", attempt=2)

    async def test_of_one_reader_before_it_reads(self, streams: Streams, message_id: MessageId) -> None:
        async with streams.reading.follow(message_id) as reader, following(streams.reading, message_id) as probe:
            await written(streams.writing, message_id)
            await probe.has(TEXT)
            reader.wake()
            reader.wake()
            async with asyncio.timeout(HANG):
                assert not await reader.read()
                follower = Follower(reader)
                while follower.text != TEXT:
                    follower.take(await reader.read())
            assert follower.looks == 0

    async def test_of_a_reader_that_has_fallen_behind_comes_after_all_pieces(
        self, streams: Streams, message_id: MessageId
    ) -> None:
        async with streams.reading.follow(message_id) as reader, following(streams.reading, message_id) as probe:
            text = await write_many_pieces(streams.writing, message_id, 400, probe)
            await streams.writing.wake(message_id)
            await probe.looked(1)
            follower = Follower(reader)
            async with asyncio.timeout(HANG):
                while pieces := await reader.read():
                    follower.take(pieces)
            assert follower.text == text


async def write_many_pieces(stream: ReplyStream, message_id: MessageId, count: int, probe: Follower) -> str:
    """Each one flushed by itself."""
    writer, text = stream.write(message_id, 1), ""
    for number in range(count):
        text += f"{number} "
        writer.add(f"{number} ")
        await until(lambda: len(probe.text) >= len(text), pause=0.001)  # noqa: B023 - it is not kept
    await writer.close()
    return text


class TestSlowReaders:
    async def test_lose_nothing(self, streams: Streams, message_id: MessageId) -> None:
        async with AsyncExitStack() as stack:
            probe = await stack.enter_async_context(following(streams.reading, message_id))
            slow = [
                await stack.enter_async_context(following(streams.reading, message_id, pause=pause))
                for pause in (0.01, 0.1, 0.5)
            ]
            sleeper = await stack.enter_async_context(streams.reading.follow(message_id))
            text = await write_many_pieces(streams.writing, message_id, 500, probe)
            for follower in slow:
                await follower.has(text)
            follower = Follower(sleeper)
            async with asyncio.timeout(HANG):
                while follower.text != text:
                    follower.take(await sleeper.read())

    async def test_go_on_with_the_next_attempt(self, streams: Streams, message_id: MessageId) -> None:
        async with streams.reading.follow(message_id) as reader, following(streams.reading, message_id) as probe:
            await write_many_pieces(streams.writing, message_id, 400, probe)
            await written(streams.writing, message_id, attempt=2)
            await probe.has(TEXT, attempt=2)
            follower = Follower(reader)
            async with asyncio.timeout(HANG):
                while follower.text != TEXT:
                    follower.take(await reader.read())
            assert follower.attempts == [2]


class TestFollow:
    async def test_left_by_cancellation_leaves_nothing(self, streams: Streams, message_id: MessageId) -> None:
        async def follow() -> None:
            async with streams.reading.follow(message_id) as reader:
                while True:
                    await reader.read()

        for moment in (0, 0.001, 0.01, 0.05):
            tasks = [asyncio.create_task(follow()) for _ in range(20)]
            await asyncio.sleep(moment)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        give_up = time.monotonic() + HANG
        while await streams.followed():
            assert time.monotonic() < give_up, "still followed"
            await asyncio.sleep(0.01)
        await written(streams.writing, message_id)
        async with following(streams.reading, message_id) as follower:
            await follower.has(TEXT)

    async def test_left_and_taken_up_again_at_once(self, streams: Streams, message_id: MessageId) -> None:
        writer, text, position = streams.writing.write(message_id, 1), "", START
        for number in range(200):
            writer.add(f"{number} ")
            async with streams.reading.follow(message_id, after=position) as reader:
                if number % 3:
                    continue
                follower = Follower(reader, position, text)
                async with asyncio.timeout(HANG):
                    follower.take(await reader.read())
                text, position = follower.text, follower.position
        await writer.close()
        async with following(streams.reading, message_id, after=position, text=text) as rest:
            await rest.has("".join(f"{number} " for number in range(200)))


class TestLoss:
    async def test_of_the_stream_is_mended_by_the_next_piece(self, streams: Streams, message_id: MessageId) -> None:
        writer = streams.writing.write(message_id, 1)
        async with following(streams.reading, message_id) as follower:
            for end in range(1, 10):
                writer.add(TEXT[end - 1])
                await follower.has(TEXT[:end])
                if end % 3 == 0:
                    await streams.lose_all()
            writer.add(TEXT[9:])
            await writer.close()
            await follower.has(TEXT)
        async with following(streams.reading, message_id) as late:
            await late.has(TEXT)
        assert (follower.attempts, late.attempts) == ([1], [1])

    async def test_of_the_stream_before_anything_was_said(self, streams: Streams, message_id: MessageId) -> None:
        writer = streams.writing.write(message_id, 1)
        async with following(streams.reading, message_id) as follower:
            await follower.has("")
            await streams.lose_all()
            writer.add(TEXT)
            await follower.has(TEXT)


@pytest.mark.parametrize("seed", range(6))
async def test_any_mixture(streams: Streams, seed: int) -> None:
    """Messages, attempts, zombies and losses; readers that join, leave, doze and resume: the text is the same."""
    chance = random.Random(seed)
    ids = [new_id() for _ in range(4)]
    spoken = dict.fromkeys(ids, "")
    is_over = False

    async def write(message_id: MessageId) -> None:
        attempts = chance.randint(1, 3)
        zombies: list[ReplyWriter] = []
        for attempt in range(1, attempts + 1):
            writer = streams.writing.write(message_id, attempt)
            for zombie in zombies:
                zombie.add("the dead speak")
            text = ""
            for _ in range(chance.randint(0, 40) if attempt < attempts else 40):
                piece = "".join(chance.choices(TEXT, k=chance.randint(1, 30)))
                text += piece
                writer.add(piece)
                if chance.random() < 0.7:
                    await asyncio.sleep(chance.random() * 0.02)
            if attempt == attempts:
                spoken[message_id] = text
                await writer.close()
            else:
                await asyncio.sleep(0.03)  # its beginning has been sent
                zombies.append(writer)

    async def read(message_id: MessageId) -> None:
        text, position = "", START
        while True:
            last_time = is_over
            async with streams.reading.follow(message_id, after=position) as reader:
                follower = Follower(reader, position, text)
                for _ in range(chance.randint(1, 20)):
                    if last_time and follower.text == spoken[message_id]:
                        return
                    follower.take(await reader.read())
                    if chance.random() < 0.3:
                        await asyncio.sleep(chance.random() * 0.03)
                text, position = follower.text, follower.position

    async with asyncio.timeout(HANG):
        readers = [asyncio.create_task(read(message_id)) for message_id in ids for _ in range(8)]
        await asyncio.gather(*(write(message_id) for message_id in ids))
        is_over = True
        while not all(reader.done() for reader in readers):  # a reader that has all waits for this
            for message_id in ids:
                await streams.writing.wake(message_id)
            await asyncio.sleep(0.02)
        await asyncio.gather(*readers)
