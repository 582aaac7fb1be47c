"""Replies that are continued, over either stream: what it promises of attempts that go on from a text, and
that every reader, wherever it was cut off, ends with the stored reply.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from adapters.memory.chat import MemoryMessages
from adapters.memory.runtime import MemoryClock
from adapters.system import TimeOrderedIds
from application.chat.streaming import Delta, Ended, ReplyCursor, ReplyWatch, Reset, StreamReply
from domain.accounts import MobileNumber, User
from domain.billing import SendingLimits
from domain.chat.chatrooms import Chatroom
from domain.chat.messages import CUT_OFF, Message, MessageStatus, Outcome
from domain.chat.streams import ReplyPiece, StreamPosition
from domain.ids import ChatroomId, MessageId, UserId
from tests.contracts.test_reply_stream import (
    START,
    TEXT,
    Streams,
    memory_streams,
    message_id,
    redis_streams,
    streams,
    until,
    written,
)
from tests.support.patience import PROCESS_HANG
from tests.support.workers import claim

__all__ = ["memory_streams", "message_id", "redis_streams", "streams"]  # fixtures

NO_LIMITS = SendingLimits()
KEPT = 5


@asynccontextmanager
async def reading(
    streams: Streams, message_id: MessageId, after: StreamPosition = START
) -> AsyncIterator[list[ReplyPiece]]:
    """All pieces that come, as they come."""
    pieces: list[ReplyPiece] = []
    async with streams.reading.follow(message_id, after=after) as reader:

        async def read() -> None:
            while True:
                pieces.extend(await reader.read())

        task = asyncio.create_task(read())
        try:
            yield pieces
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def text_of(pieces: list[ReplyPiece]) -> str:
    return "".join(piece.text for piece in pieces)


class TestKept:
    @pytest.mark.parametrize(
        "after", [START, StreamPosition(1, 3), StreamPosition(1, 6), StreamPosition(1, 99)], ids=str
    )
    async def test_an_attempt_begins_where_the_kept_text_ends(
        self, streams: Streams, message_id: MessageId, after: StreamPosition
    ) -> None:
        async with reading(streams, message_id, after) as early:
            writer = streams.writing.write(message_id, 2, kept=KEPT)
            await until(lambda: early == [ReplyPiece(StreamPosition(2, KEPT))])
            for character in TEXT:
                writer.add(character)
                await asyncio.sleep(0.001)
            await writer.close()
            async with reading(streams, message_id, after) as late:
                for pieces in (early, late):
                    await until(lambda pieces=pieces: text_of(pieces) == TEXT)  # type: ignore[misc]
                    assert pieces[0] == ReplyPiece(StreamPosition(2, KEPT))
                    assert [piece.start for piece in pieces[2:]] == [p.position.characters for p in pieces[1:-1]]
                    assert pieces[-1].position == StreamPosition(2, KEPT + len(TEXT))

    async def test_it_is_resumed_after_any_character(self, streams: Streams, message_id: MessageId) -> None:
        writer = streams.writing.write(message_id, 2, kept=KEPT)
        writer.add(TEXT)
        await writer.close()
        for characters in range(len(TEXT)):
            async with reading(streams, message_id, StreamPosition(2, KEPT + characters)) as pieces:
                await until(lambda pieces=pieces, n=characters: text_of(pieces) == TEXT[n:])  # type: ignore[misc]

    async def test_nothing_of_the_attempt_before_comes_after_it(self, streams: Streams, message_id: MessageId) -> None:
        await written(streams.writing, message_id, "Hello")
        zombie = streams.writing.write(message_id, 1)
        writer = streams.reading.write(message_id, 2, kept=KEPT)  # in another process
        writer.add(", world.")
        await writer.close()
        zombie.add("Hello again")
        await zombie.close()
        async with reading(streams, message_id) as pieces:
            await until(lambda: text_of(pieces) == ", world.")
            assert pieces[0] == ReplyPiece(StreamPosition(2, KEPT))

    async def test_what_the_stream_has_lost_is_written_anew(self, streams: Streams, message_id: MessageId) -> None:
        async with reading(streams, message_id) as early:
            writer = streams.writing.write(message_id, 2, kept=KEPT)
            writer.add("One")
            await until(lambda: text_of(early) == "One")
            await streams.lose_all()
            writer.add(" two")
            await until(lambda: text_of(early) == "One two")
        async with reading(streams, message_id) as late:
            await until(lambda: text_of(late) == "One two")

    async def test_its_thoughts_come_before_its_text(self, streams: Streams, message_id: MessageId) -> None:
        async with reading(streams, message_id) as pieces:
            writer = streams.writing.write(message_id, 2, kept=KEPT)
            await until(lambda: len(pieces) == 1)
            writer.thought("Where was I?")
            writer.add("One")
            await until(lambda: text_of(pieces) == "One")
        assert [piece.thought for piece in pieces] == ["", "Where was I?", ""]


class Story:
    """One message in a store of memory; its replies go over the stream, and clients follow them."""

    def __init__(self, streams: Streams, seed: int) -> None:
        self.chance = random.Random(seed)
        self.streams = streams
        self.clock = MemoryClock()
        self.messages = MemoryMessages(self.clock)
        self.watch = ReplyWatch(self.messages)
        self.stream_reply = StreamReply(self.messages, streams.reading, self.watch)
        ids, now = TimeOrderedIds(), self.clock.now()
        self.user = User(id=UserId(ids.new()), mobile=MobileNumber("+919876543210"), name="Ann", created_at=now)
        room = Chatroom(id=ChatroomId(ids.new()), user_id=self.user.id, name="Physics", created_at=now)
        self.messages.rooms.put(room.id, room)
        self.sent = Message(
            id=MessageId(ids.new()),
            chatroom_id=room.id,
            user_id=self.user.id,
            input="Why?",
            created_at=now,
            queued_at=now,
            allowance_day=now.date(),
            max_output_tokens=9,
        )
        self.is_over = False

    async def stored(self) -> Message:
        return await self.messages.get(self.sent.id, self.sent.chatroom_id, self.user.id)

    async def pause(self) -> None:
        """For as long as it takes others to do much, little or nothing."""
        await asyncio.sleep(self.chance.choice((0, 0, 0.001, 0.004)))

    async def tell(self) -> None:
        await self.messages.accept(self.sent, limits=NO_LIMITS)
        for _ in range(self.chance.randrange(1, 4)):
            await self.answer(CUT_OFF)
            await self.pause()
            if self.chance.random() < 0.15:
                await self.messages.regenerate(await self.stored(), limits=NO_LIMITS)
                await self.answer(CUT_OFF)
            message = await self.stored()
            if message.is_continuable:
                continued = message.continued(at=self.clock.now(), max_output_tokens=9, thinking=None)
                await self.messages.continue_reply(continued, limits=NO_LIMITS)
                if self.chance.random() < 0.1:
                    await self.messages.cancel(message.id, message.chatroom_id, message.user_id)
        if not (await self.stored()).status.is_final:
            await self.answer("STOP")
        self.is_over = True
        await self.streams.writing.wake(self.sent.id)
        await self.watch.check()

    async def answer(self, reason: str) -> None:
        while not (await self.attempt(reason)):
            await self.pause()
        if self.chance.random() < 0.7:
            await self.streams.writing.wake(self.sent.id)
        else:
            await self.watch.check()

    async def attempt(self, reason: str) -> bool:
        """Whether it was the last one."""
        claimed = await claim(self.messages, self.sent.id, lease=timedelta(hours=1), alone=True)
        if claimed is None:
            return True
        writer = self.streams.writing.write(claimed.id, claimed.attempt, kept=claimed.kept_characters)
        text = ""
        for _ in range(self.chance.randrange(8)):
            piece = "".join(self.chance.choices("abc é🌻", k=self.chance.randrange(1, 5)))
            text += piece
            writer.add(piece)
            writer.thought("Hm.")
            await self.pause()
            if self.chance.random() < 0.05:
                await self.streams.lose_all()
        if self.chance.random() < 0.7:
            await writer.close()
        how = self.chance.choice(["completed", "completed", "completed", "retry", "cancelled", "failed", "dead"])
        outcome = Outcome(status=MessageStatus.COMPLETED, response=text, finish_reason=reason)
        match how:
            case "retry":
                return not await self.messages.retry(claimed.id, claimed.attempt, delay=timedelta())
            case "dead":
                self.clock.move(timedelta(hours=2))
                return False
            case "cancelled":
                outcome = Outcome(status=MessageStatus.CANCELLED, response=text or None)
            case "failed":
                outcome = Outcome(status=MessageStatus.FAILED, error_code="model_unavailable")
            case _ if not text:
                return not await self.messages.retry(claimed.id, claimed.attempt, delay=timedelta())
        assert await self.messages.finish(claimed.id, claimed.attempt, outcome)
        return True

    async def follow(self) -> str:
        """What a client has on its screen that comes again after each end, with its last id."""
        screen, position = "", START
        while True:
            last_round = self.is_over
            async with self.following(position) as following:
                while not following.has_ended:
                    for event in await following.read():
                        match event:
                            case Delta(position, text):
                                screen += text
                            case Reset(position):
                                screen = ""
                            case Ended(position, message):
                                assert screen == (message.response or "")
                    if self.chance.random() < 0.3:
                        break
                else:
                    if last_round:
                        return screen
            await self.pause()

    @asynccontextmanager
    async def following(self, after: StreamPosition) -> AsyncIterator[ReplyCursor]:
        async with self.stream_reply(
            user=self.user, chatroom_id=self.sent.chatroom_id, message_id=self.sent.id, after=after
        ) as following:
            yield following


@pytest.mark.parametrize("seed", range(60))
async def test_whatever_happens_a_reader_has_what_is_stored(streams: Streams, seed: int) -> None:
    """Attempts that fail or die, streams that are lost, continuations that end in every way, clients that drop."""
    story = Story(streams, seed)
    async with asyncio.timeout(PROCESS_HANG):
        telling = asyncio.create_task(story.tell())
        await asyncio.sleep(0)
        readers = [asyncio.create_task(story.follow()) for _ in range(4)]
        await telling
        while not all(reader.done() for reader in readers):
            await story.watch.check()
            await asyncio.wait(readers, timeout=0.05)
    response = (await story.stored()).response or ""
    assert [reader.result() for reader in readers] == [response] * 4
