"""Following a reply: from whatever position, through whatever happens, a reader ends with what is stored."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from adapters.memory.chat import MemoryMessages
from application.chat.streaming import AwaitReply, Delta, Ended, Gone, ReplyCursor, ReplyEvent, Reset, Thought
from domain.chat.messages import Message, MessageStatus, Outcome
from domain.chat.streams import StreamPosition
from domain.errors import DatabaseUnavailable, MessageNotFound
from domain.ids import ChatroomId, MessageId, UserId
from tests.support.patience import HANG
from tests.support.workers import claim
from tests.unit.conftest import World

LEASE = timedelta(hours=1)
PIECES = ("Because ", "of", " Ray", "leigh.")
TEXT = "".join(PIECES)
COMPLETED, FAILED = MessageStatus.COMPLETED, MessageStatus.FAILED
BLOCKED, CANCELLED = MessageStatus.BLOCKED, MessageStatus.CANCELLED


def at(text: str) -> StreamPosition:
    position = StreamPosition.parse(text)
    assert position is not None
    return position


class Scene:
    """One message that this test answers itself, attempt by attempt."""

    def __init__(self, world: World, message: Message) -> None:
        self.world = world
        self.message = message
        self.attempt = 0

    async def begin(self, *pieces: str) -> Scene:
        """The next attempt, with what it says."""
        claimed = await claim(self.world.messages, self.message.id, lease=LEASE, alone=True)
        assert claimed is not None
        self.attempt = claimed.attempt
        self.writer = self.world.stream.write(self.message.id, self.attempt, kept=claimed.kept_characters)
        return self.say(*pieces)

    def say(self, *pieces: str) -> Scene:
        for piece in pieces:
            self.writer.add(piece)
        return self

    async def give_up(self) -> Scene:
        assert await self.world.messages.retry(self.message.id, self.attempt, delay=timedelta())
        return self

    async def end(
        self, status: MessageStatus = COMPLETED, response: str | None = TEXT, *, wake: bool = True
    ) -> Message:
        code = "model_unavailable" if status is FAILED else None
        outcome = Outcome(status=status, response=response, error_code=code)
        assert await self.world.messages.finish(self.message.id, self.attempt, outcome)
        if wake:
            await self.world.stream.wake(self.message.id)
        return await self.world.stored(self.message)

    @asynccontextmanager
    async def following(self, after: str = "0-0") -> AsyncIterator[ReplyCursor]:
        user = self.world.users.table.get(self.message.user_id)
        assert user is not None
        async with (
            asyncio.timeout(HANG),
            self.world.container.stream_reply()(
                user=user, chatroom_id=self.message.chatroom_id, message_id=self.message.id, after=at(after)
            ) as following,
        ):
            yield following

    async def events(self, after: str = "0-0") -> list[str]:
        """All to the end, as said below."""
        async with self.following(after) as following:
            return said(await to_end(following))

    async def look(self) -> None:
        await self.world.container.reply_watch().check()

    def leaves_nothing(self) -> bool:
        return not self.world.stream.followed and not len(self.world.container.reply_watch())


async def to_end(following: ReplyCursor) -> list[ReplyEvent]:
    events: list[ReplyEvent] = []
    while more := await following.read():
        events += more
    assert following.has_ended
    return events


def said(events: Sequence[ReplyEvent]) -> list[str]:
    """Each event in a word or two."""
    words = []
    for event in events:
        match event:
            case Delta(position, text):
                words.append(f"{position} {text}")
            case Thought(text):
                words.append(f"thought {text}")
            case Reset(position):
                words.append(f"{position} reset")
            case Ended(position, message):
                words.append(f"{position} {message.status}")
            case Gone():
                words.append("gone")
    return words


@pytest.fixture
async def scene(world: World) -> Scene:
    return Scene(world, await world.sent())


class TestLive:
    async def test_from_the_beginning(self, scene: Scene) -> None:
        async with scene.following() as following:
            reading = asyncio.create_task(to_end(following))
            await asyncio.sleep(0)
            await scene.begin("Because ")
            await asyncio.sleep(0)
            scene.say(*PIECES[1:])
            ended = await scene.end()
            events = await reading
        assert said(events) == ["1-8 Because ", "1-10 of", "1-14  Ray", "1-20 leigh.", "1-21 completed"]
        assert events[-1] == Ended(at("1-21"), ended)
        assert scene.leaves_nothing()

    async def test_thoughts_come_in_their_place_and_only_now(self, scene: Scene) -> None:
        async with scene.following() as following:
            reading = asyncio.create_task(to_end(following))
            await scene.begin()
            await asyncio.sleep(0)
            scene.writer.thought("Hm.")
            scene.say("Because ")
            await asyncio.sleep(0)
            scene.writer.thought("Or is it?")
            scene.say(TEXT[8:])
            await scene.end()
            heard = said(await reading)
        assert heard == ["thought Hm.", "1-8 Because ", "thought Or is it?", f"1-20 {TEXT[8:]}", "1-21 completed"]
        assert await scene.events("1-0") == [f"1-20 {TEXT}", "1-21 completed"]

    async def test_thoughts_of_an_attempt_that_is_over_are_not_shown(self, scene: Scene) -> None:
        async with scene.following() as following:
            await scene.begin()
            scene.writer.thought("Hm.")
            assert said(await following.read()) == ["thought Hm."]
            scene.writer.thought("Void.")
            await scene.give_up()
            await scene.begin("Because")
            assert said(await following.read()) == ["2-0 reset", "2-7 Because"]

    async def test_what_is_there_comes_at_once(self, scene: Scene) -> None:
        await scene.begin(*PIECES)
        async with scene.following() as following:
            assert said(await following.read()) == ["1-8 Because ", "1-10 of", "1-14  Ray", "1-20 leigh."]
            assert not following.has_ended

    async def test_many_read_the_same(self, scene: Scene) -> None:
        async with contextlib.AsyncExitStack() as stack:
            tasks = []
            for after in ("0-0", "0-0", "1-8"):
                following = await stack.enter_async_context(scene.following(after))
                tasks.append(asyncio.create_task(to_end(following)))
            await asyncio.sleep(0)
            await scene.begin(*PIECES)
            await scene.end()
            first, second, third = [said(await task) for task in tasks]
        assert first == second
        assert third == first[1:]

    async def test_a_new_attempt_begins_anew(self, scene: Scene) -> None:
        await scene.begin("Perhaps")
        async with scene.following() as following:
            events = [*await following.read()]
            await scene.give_up()
            await scene.begin(*PIECES)
            await scene.end()
            events += await to_end(following)
        assert said(events) == [
            *("1-7 Perhaps", "2-0 reset"),
            *("2-8 Because ", "2-10 of", "2-14  Ray", "2-20 leigh.", "2-21 completed"),
        ]

    async def test_a_reader_of_nothing_gets_no_reset(self, scene: Scene) -> None:
        await (await scene.begin()).give_up()
        async with scene.following() as following:
            await scene.begin(*PIECES)
            await scene.end()
            assert said(await to_end(following))[0] == "2-8 Because "

    @pytest.mark.parametrize("after", ["0-0", "1-3", "1-7"])
    async def test_what_a_failed_attempt_said_is_void(self, scene: Scene, after: str) -> None:
        await scene.begin("Perhaps")
        await scene.give_up()
        async with scene.following(after) as following:
            reading = asyncio.create_task(to_end(following))
            await asyncio.sleep(0)
            await scene.begin(TEXT)
            await scene.end()
            events = said(await reading)
        assert events == [*(["2-0 reset"] if after != "0-0" else []), f"2-20 {TEXT}", "2-21 completed"]

    async def test_another_attempt_that_has_said_nothing_yet(self, scene: Scene) -> None:
        await (await scene.begin("Perhaps")).give_up()
        await scene.begin()
        async with scene.following("1-7") as following:
            assert said(await following.read()) == ["2-0 reset"]

    async def test_asked_anew_after_its_end(self, scene: Scene) -> None:
        await scene.begin("An old reply.")
        await scene.end(response="An old reply.")
        await regenerate(scene)
        tasks = []
        async with contextlib.AsyncExitStack() as stack:
            for after in ("0-0", "1-6", "1-13", "1-14"):
                following = await stack.enter_async_context(scene.following(after))
                assert not following.has_ended, "the end of another reply is not this one's"
                tasks.append(asyncio.create_task(to_end(following)))
            await asyncio.sleep(0)
            await scene.begin(TEXT)
            await scene.end()
            first, *others = [said(await task) for task in tasks]
        assert first == [f"2-20 {TEXT}", "2-21 completed"]
        assert others == [["2-0 reset", *first]] * 3


async def regenerate(scene: Scene) -> None:
    stored = await scene.world.stored(scene.message)
    limits = scene.world.container.sending_limits()
    user = scene.world.users.table.get(stored.user_id)
    assert user is not None
    await scene.world.messages.regenerate(scene.message, limits=limits[user.tier(scene.world.clock.now())])


class TestResuming:
    """Exactly what comes after a position, whether the pieces are still there or only the stored reply."""

    @pytest.mark.parametrize("characters", range(len(TEXT) + 1))
    @pytest.mark.parametrize("how", ["live", "ended", "ended, and the stream gone", "the stream gone, then ended"])
    async def test_after_any_character(self, scene: Scene, characters: int, how: str) -> None:
        await scene.begin(*PIECES)
        if how.startswith("ended"):
            await scene.end()
        if "gone" in how:
            scene.world.stream.lose_all()
        async with scene.following(f"1-{characters}") as following:
            reading = asyncio.create_task(to_end(following))
            await asyncio.sleep(0)
            if not how.startswith("ended"):
                await scene.end()
            events = await reading
        assert "".join(event.text for event in events if isinstance(event, Delta)) == TEXT[characters:]
        assert not [event for event in events if isinstance(event, Reset)]
        assert said(events)[-1] == "1-21 completed"

    async def test_after_the_end_there_is_nothing(self, scene: Scene) -> None:
        await scene.begin(*PIECES)
        await scene.end()
        async with scene.following("1-21") as following:
            assert following.has_ended
            assert await following.read() == []

    @pytest.mark.parametrize("after", ["1-22", "1-999999999", "2-0", "7-3", "999999999-0"])
    async def test_after_what_nobody_can_have_read_begins_anew(self, scene: Scene, after: str) -> None:
        await scene.begin(*PIECES)
        async with scene.following(after) as following:
            reading = asyncio.create_task(to_end(following))
            await asyncio.sleep(0)
            await scene.end()
            assert said(await reading) == ["1-0 reset", f"1-20 {TEXT}", "1-21 completed"]
        assert await scene.events(after) == ["1-0 reset", f"1-20 {TEXT}", "1-21 completed"]

    async def test_characters_of_no_attempt_are_none(self, scene: Scene) -> None:
        await scene.begin(*PIECES)
        await scene.end()
        assert await scene.events("0-5") == [f"1-20 {TEXT}", "1-21 completed"]

    async def test_an_earlier_attempt_is_reset(self, scene: Scene) -> None:
        await (await scene.begin("Perhaps")).give_up()
        await scene.begin(*PIECES)
        await scene.end()
        assert await scene.events("1-7") == ["2-0 reset", f"2-20 {TEXT}", "2-21 completed"]


class TestEnds:
    @pytest.mark.parametrize("stored", [None, "Because "])
    async def test_cancelled(self, scene: Scene, stored: str | None) -> None:
        await scene.begin(*([stored] if stored else []))
        await scene.end(CANCELLED, stored)
        events = await scene.events()
        assert events == (["1-8 Because ", "1-9 cancelled"] if stored else ["1-999999999 cancelled"])

    async def test_cancelled_before_anybody_asked(self, scene: Scene) -> None:
        await scene.world.messages.cancel(scene.message.id, scene.message.chatroom_id, scene.message.user_id)
        assert await scene.events() == ["0-999999999 cancelled"]
        async with scene.following("0-999999999") as following:
            assert following.has_ended

    @pytest.mark.parametrize("status", [FAILED, BLOCKED])
    async def test_without_a_reply_what_was_said_is_void(self, scene: Scene, status: MessageStatus) -> None:
        await scene.begin("H")
        async with scene.following() as following:
            assert said(await following.read()) == ["1-1 H"]
            await scene.end(status, None)
            assert said(await to_end(following)) == ["1-0 reset", f"1-999999999 {status}"]
        for after in ("1-1", "1-2", "1-17"):  # whatever it has read, it has not read of the end
            assert await scene.events(after) == ["1-0 reset", f"1-999999999 {status}"]
        async with scene.following("1-999999999") as following:
            assert following.has_ended

    async def test_deleted_in_the_middle(self, scene: Scene) -> None:
        await scene.begin("Because ")
        async with scene.following() as following:
            await following.read()
            await scene.world.chatrooms.delete(scene.message.chatroom_id, scene.message.user_id)
            await scene.world.stream.wake(scene.message.id)
            assert said(await to_end(following)) == ["gone"]
        assert scene.leaves_nothing()

    async def test_what_is_not_there_cannot_be_followed(self, scene: Scene) -> None:
        await scene.world.chatrooms.delete(scene.message.chatroom_id, scene.message.user_id)
        with pytest.raises(MessageNotFound):
            await scene.events()
        assert scene.leaves_nothing()

    async def test_nor_what_is_somebody_elses(self, scene: Scene) -> None:
        other = await scene.world.user("+919876543211")
        stream = scene.world.container.stream_reply()
        with pytest.raises(MessageNotFound):
            async with stream(user=other, chatroom_id=scene.message.chatroom_id, message_id=scene.message.id):
                pass
        assert scene.leaves_nothing()


class TestTrouble:
    async def test_an_end_that_was_not_announced_is_found(self, scene: Scene) -> None:
        async with scene.following() as following:
            reading = asyncio.create_task(to_end(following))
            await asyncio.sleep(0)
            await scene.begin(*PIECES)
            scene.world.stream.lose_all()
            await scene.end(wake=False)
            await asyncio.sleep(0)
            assert not reading.done()
            await scene.look()
            assert said(await reading)[-1] == "1-21 completed"

    async def test_a_message_that_goes_on_wakes_nobody(self, scene: Scene) -> None:
        async with scene.following() as following:
            reading = asyncio.create_task(to_end(following))
            await asyncio.sleep(0)
            await scene.look()
            await asyncio.sleep(0)
            assert not reading.done()
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading

    async def test_of_nothing_nobody_is_asked(self) -> None:
        class Asked(MemoryMessages):
            async def ended(self, message_ids: Sequence[MessageId]) -> set[MessageId]:
                raise AssertionError("nothing is followed")

        await World(Asked).container.reply_watch().check()

    async def test_a_needless_wake_loses_nothing(self, scene: Scene) -> None:
        async with scene.following() as following:
            reading = asyncio.create_task(to_end(following))
            for piece in PIECES:
                await asyncio.sleep(0)
                await scene.world.stream.wake(scene.message.id)
                if not scene.attempt:
                    await scene.begin()
                scene.say(piece)
            await scene.end()
            assert said(await reading)[-1] == "1-21 completed"

    async def test_reading_may_be_broken_off_and_taken_up(self, scene: Scene) -> None:
        events: list[ReplyEvent] = []
        async with scene.following() as following:

            async def read() -> None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0):
                        events.extend(await following.read())

            await read()
            await scene.begin()
            for piece in PIECES:
                scene.say(piece)
                await read()
                await read()
            await scene.end()
            await read()
            while not following.has_ended:
                await read()
        assert said(events) == ["1-8 Because ", "1-10 of", "1-14  Ray", "1-20 leigh.", "1-21 completed"]

    async def test_the_database_is_away_for_a_while(self) -> None:
        class Away(MemoryMessages):
            away = 0

            async def get(self, message_id: MessageId, chatroom_id: ChatroomId, user_id: UserId) -> Message:
                if self.away:
                    self.away -= 1
                    raise DatabaseUnavailable
                return await super().get(message_id, chatroom_id, user_id)

        world = World(Away)
        assert isinstance(world.messages, Away)
        scene = await Scene(world, await world.sent()).begin(*PIECES)
        async with scene.following() as following:
            await following.read()
            await scene.end()
            world.messages.away = 2
            assert said(await to_end(following)) == ["1-21 completed"]
        world.messages.away = 1
        with pytest.raises(DatabaseUnavailable):
            await scene.events()
        assert scene.leaves_nothing()

    async def test_who_leaves_leaves_nothing(self, scene: Scene) -> None:
        async def follow() -> None:
            async with scene.following() as following:
                await to_end(following)

        readers = [asyncio.create_task(follow()) for _ in range(10)]
        await asyncio.sleep(0)
        assert scene.world.stream.followed == len(scene.world.container.reply_watch()) == 1
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        assert scene.leaves_nothing()


@pytest.mark.parametrize("seed", range(60))
async def test_whatever_happens_the_text_is_the_stored_one(seed: int) -> None:
    """Attempts that fail, streams that are lost, readers that drop and come again, in any order."""
    world, chance = World(), random.Random(seed)
    scene = Scene(world, await world.sent())
    text = ""

    async def follow() -> str:
        screen, position, has_ended = "", "0-0", False
        while not has_ended:
            async with scene.following(position) as following:
                while not following.has_ended:
                    for event in await following.read():
                        match event:
                            case Delta():
                                screen += event.text
                            case Reset():
                                screen = ""
                            case Ended():
                                has_ended = True
                        assert not isinstance(event, Gone | Thought)
                        position = str(event.position)
                    if chance.random() < 0.4:
                        break
            await asyncio.sleep(0)
        async with scene.following(position) as following:
            assert following.has_ended, "after the end is the end"
        return screen

    readers = [asyncio.create_task(follow()) for _ in range(4)]
    for _ in range(chance.randrange(4)):
        await scene.begin()
        for _ in range(chance.randrange(6)):
            scene.say("".join(chance.choices("abc é🌻", k=chance.randrange(1, 5))))
            if chance.random() < 0.5:
                await asyncio.sleep(0)
        await scene.give_up()
        if chance.random() < 0.3:
            world.stream.lose_all()
    await scene.begin()
    for _ in range(chance.randrange(1, 12)):
        piece = "".join(chance.choices("xyz é🌻", k=chance.randrange(1, 5)))
        text += piece
        scene.say(piece)
        if chance.random() < 0.3:
            world.stream.lose_all()
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
    status = chance.choice([COMPLETED, COMPLETED, CANCELLED, FAILED, BLOCKED])
    stored = text if status in (COMPLETED, CANCELLED) else None
    await scene.end(status, stored, wake=chance.random() < 0.5)
    await scene.look()
    assert await asyncio.gather(*readers) == [stored or ""] * 4
    assert scene.leaves_nothing()


class TestWaiting:
    async def wait(self, scene: Scene, seconds: float) -> Message:
        wait: AwaitReply = scene.world.container.await_reply()
        user = scene.world.users.table.get(scene.message.user_id)
        assert user is not None
        async with asyncio.timeout(HANG):
            return await wait(
                user=user, chatroom_id=scene.message.chatroom_id, message_id=scene.message.id, seconds=seconds
            )

    async def test_ends_with_the_message(self, scene: Scene) -> None:
        waiting = asyncio.create_task(self.wait(scene, 60))
        await asyncio.sleep(0)
        await scene.begin(*PIECES)
        await asyncio.sleep(0)
        assert not waiting.done(), "a piece is not the end"
        ended = await scene.end()
        assert await waiting == ended
        assert scene.leaves_nothing()

    async def test_is_short_when_it_has_ended(self, scene: Scene) -> None:
        await scene.begin()
        ended = await scene.end(FAILED, None)
        assert await self.wait(scene, 60) == ended

    async def test_gives_what_there_is_when_the_time_is_up(self, scene: Scene) -> None:
        await scene.begin("Because ")
        assert (await self.wait(scene, 0.02)).status is MessageStatus.GENERATING
        assert (await self.wait(scene, 0)).status is MessageStatus.GENERATING
        assert scene.leaves_nothing()

    async def test_of_what_is_deleted(self, scene: Scene) -> None:
        waiting = asyncio.create_task(self.wait(scene, 60))
        await asyncio.sleep(0)
        await scene.world.chatrooms.delete(scene.message.chatroom_id, scene.message.user_id)
        await scene.look()
        with pytest.raises(MessageNotFound):
            await waiting

    async def test_an_unannounced_end_is_found(self, scene: Scene) -> None:
        waiting = asyncio.create_task(self.wait(scene, 60))
        await asyncio.sleep(0)
        await scene.begin()
        ended = await scene.end(wake=False)
        await scene.look()
        assert await waiting == ended


async def test_the_watch_goes_on_through_trouble() -> None:
    class Away(MemoryMessages):
        asked = 0

        async def ended(self, message_ids: Sequence[MessageId]) -> set[MessageId]:
            self.asked += 1
            if self.asked == 1:
                raise DatabaseUnavailable
            if self.asked == 2:
                raise LookupError("a defect")
            return await super().ended(message_ids)

    world = World(Away)
    watch = type(world.container.reply_watch())(world.messages, seconds=0.001)
    message, woken = await world.sent(), asyncio.Event()
    await world.messages.cancel(message.id, message.chatroom_id, message.user_id)
    await watch.start()
    try:
        with watch.watching(message.id, woken.set):
            async with asyncio.timeout(HANG):
                await woken.wait()
    finally:
        await watch.close()
