"""Following a reply that is continued: its positions go on, so nobody reads twice or misses what was cut off."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from adapters.memory.chat import MemoryMessages
from domain.chat.messages import CUT_OFF, Message, MessageStatus, Outcome
from domain.ids import ChatroomId, MessageId, UserId
from tests.unit.conftest import World
from tests.unit.test_streaming import CANCELLED, COMPLETED, FAILED, PIECES, TEXT, Scene, regenerate, said, to_end

KEPT = len(TEXT)
MORE = (" And so", " on.")
WHOLE = TEXT + "".join(MORE)


class Cut(Scene):
    """A message whose reply was cut off by attempt 1, and its continuations."""

    async def cut(self, text: str = TEXT, *, wake: bool = True) -> Cut:
        outcome = Outcome(status=COMPLETED, response=text, finish_reason=CUT_OFF)
        assert await self.world.messages.finish(self.message.id, self.attempt, outcome)
        if wake:
            await self.world.stream.wake(self.message.id)
        return self

    async def continued(self) -> Cut:
        user = self.world.users.table.get(self.message.user_id)
        assert user is not None
        await self.world.container.continue_message()(
            user=user, chatroom_id=self.message.chatroom_id, message_id=self.message.id
        )
        return self

    async def add(self, *pieces: str) -> Message:
        """The whole continuation."""
        await self.begin(*pieces)
        return await self.end(response="".join(pieces))


@pytest.fixture
async def cut(world: World) -> Cut:
    scene = Cut(world, await world.sent())
    await scene.begin(*PIECES)
    return await scene.cut()


class TestLive:
    async def test_from_the_beginning_the_kept_text_comes_first(self, cut: Cut) -> None:
        await cut.continued()
        async with cut.following() as following:
            assert said(await following.read()) == [f"1-20 {TEXT}"], "before anybody answers"
            await cut.begin(MORE[0])
            assert said(await following.read()) == ["2-27  And so"]
            cut.say(MORE[1])
            await cut.end(response="".join(MORE))
            assert said(await to_end(following)) == ["2-31  on.", "2-32 completed"]
        assert (await cut.world.stored(cut.message)).response == WHOLE
        assert cut.leaves_nothing()

    @pytest.mark.parametrize("characters", range(KEPT + 2))
    @pytest.mark.parametrize("when", ["queued", "writing", "ended"])
    async def test_after_any_character_and_the_end_only_what_follows(
        self, cut: Cut, characters: int, when: str
    ) -> None:
        await cut.continued()
        if when != "queued":
            await cut.begin(MORE[0])
        if when == "ended":
            cut.say(MORE[1])
            await cut.end(response="".join(MORE))
        async with cut.following(f"1-{characters}") as following:
            reading = asyncio.create_task(to_end(following))
            await asyncio.sleep(0)
            if when == "queued":
                await cut.add(*MORE)
            elif when == "writing":
                cut.say(MORE[1])
                await cut.end(response="".join(MORE))
            events = said(await reading)
        assert "".join(event.partition(" ")[2] for event in events[:-1]) == WHOLE[min(characters, KEPT) :]
        assert not [event for event in events if "reset" in event]
        assert events[-1] == "2-32 completed"

    async def test_thoughts_come_before_it(self, cut: Cut) -> None:
        await cut.continued()
        async with cut.following("1-21") as following:
            reading = asyncio.create_task(following.read())
            await cut.begin()
            cut.writer.thought("Where was I?")
            assert said(await reading) == ["thought Where was I?"]
            cut.say(MORE[0])
            assert said(await following.read()) == ["2-27  And so"]

    async def test_who_follows_since_before_it_was_cut_off_reads_on(self, world: World) -> None:
        scene = Cut(world, await world.sent())
        await scene.begin(PIECES[0])
        async with scene.following() as following:
            assert said(await following.read()) == ["1-8 Because "]
            await scene.cut(wake=False)
            await scene.continued()
            await scene.begin(MORE[0])
            assert said(await following.read()) == [f"1-20 {TEXT[8:]}"]
            assert said(await following.read()) == ["2-27  And so"]

    async def test_asked_anew_it_begins_anew(self, cut: Cut) -> None:
        await cut.continued()
        async with cut.following("1-21") as following:
            await cut.begin(MORE[0])
            await following.read()
            await cut.end(response=MORE[0], wake=False)
            await regenerate(cut)
            await cut.begin("New")
            assert said(await following.read()) == ["3-0 reset", "3-3 New"]


class TestAttempts:
    async def test_one_that_fails_is_void_and_the_kept_text_is_not(self, cut: Cut) -> None:
        await cut.continued()
        async with cut.following("1-21") as reader, cut.following("1-21") as early:
            await cut.begin("Perhaps")
            assert said(await reader.read()) == ["2-27 Perhaps"]
            await cut.give_up()
            await cut.begin(MORE[0])
            assert said(await reader.read()) == ["1-0 reset", f"1-20 {TEXT}"]
            assert said(await reader.read()) == ["3-27  And so"]
            assert said(await early.read()) == ["3-27  And so"], "what it has not seen is not void"
        assert cut.leaves_nothing()

    @pytest.mark.parametrize("after", ["2-21", "2-27", "2-900", "7-3", "1-22", "1-900"])
    async def test_after_what_is_void_it_begins_anew(self, cut: Cut, after: str) -> None:
        await (await (await cut.continued()).begin("Perhaps")).give_up()
        async with cut.following(after) as following:
            assert said(await following.read()) == ["1-0 reset", f"1-20 {TEXT}"]
            reading = asyncio.create_task(to_end(following))
            await cut.add(*MORE)
            assert "".join(event.partition(" ")[2] for event in said(await reading)[:-1]) == "".join(MORE)
        assert await cut.events(after) == ["3-0 reset", f"3-31 {WHOLE}", "3-32 completed"]

    async def test_once_more_continued(self, cut: Cut) -> None:
        await (await cut.continued()).begin(MORE[0])
        await cut.cut(MORE[0])
        assert await cut.events("1-21") == ["2-27  And so", "2-28 completed"]
        await cut.continued()
        await cut.begin(MORE[1])
        async with cut.following("2-28") as latest, cut.following("1-21") as older, cut.following() as new:
            assert said(await latest.read()) == ["3-31  on."]
            assert said(await older.read()) == ["2-0 reset", f"2-27 {TEXT}{MORE[0]}"]
            assert said(await new.read()) == [f"2-27 {TEXT}{MORE[0]}"]
            for following in (older, new):
                assert said(await following.read()) == ["3-31  on."]
            await cut.end(response=MORE[1])
            for following in (latest, older, new):
                assert said(await to_end(following)) == ["3-32 completed"]


class TestEnds:
    @pytest.mark.parametrize("status", [FAILED, MessageStatus.BLOCKED, CANCELLED])
    async def test_without_a_word_the_reply_is_what_it_was(self, cut: Cut, status: MessageStatus) -> None:
        await (await cut.continued()).begin("Perh")
        async with cut.following("1-21") as reader, cut.following("1-21") as early:
            assert said(await reader.read()) == ["2-24 Perh"]
            ended = await cut.end(status, None)
            assert (ended.status, ended.response, ended.finish_reason) == (COMPLETED, TEXT, CUT_OFF)
            assert said(await to_end(reader)) == ["2-0 reset", f"2-20 {TEXT}", "2-999999999 completed"]
            assert said(await to_end(early)) == ["2-24 Perh", "2-0 reset", f"2-20 {TEXT}", "2-999999999 completed"]
        for position in ("1-7", "1-21", "2-21", "2-24"):
            text = [f"2-20 {TEXT[7:]}"] if position == "1-7" else []
            void = ["2-0 reset", f"2-20 {TEXT}"] if position.startswith("2") else []
            assert await cut.events(position) == [*text, *void, "2-999999999 completed"]
        async with cut.following("2-999999999") as following:
            assert following.has_ended

    async def test_and_who_saw_that_end_reads_on_when_it_is_continued_again(self, cut: Cut) -> None:
        await (await cut.continued()).begin("Perh")
        await cut.end(FAILED, None)
        await cut.continued()
        async with (
            cut.following("2-999999999") as after,
            cut.following("1-21") as before,
            cut.following("2-21") as void,
        ):
            await cut.begin(MORE[0])
            for following in (after, before):
                assert said(await following.read()) == ["3-27  And so"]
            assert said(await void.read()) == ["1-0 reset", f"1-20 {TEXT}"]

    async def test_stopped_it_keeps_what_was_added(self, cut: Cut) -> None:
        await (await cut.continued()).begin(MORE[0])
        async with cut.following("1-21") as following:
            await following.read()
            ended = await cut.end(CANCELLED, MORE[0])
            assert (ended.status, ended.response, ended.finish_reason) == (COMPLETED, TEXT + MORE[0], CUT_OFF)
            assert said(await to_end(following)) == ["2-28 completed"]

    async def test_stopped_before_anybody_asked(self, cut: Cut) -> None:
        await cut.continued()
        async with cut.following("1-21") as following:
            reading = asyncio.create_task(to_end(following))
            await asyncio.sleep(0)
            await cut.world.messages.cancel(cut.message.id, cut.message.chatroom_id, cut.message.user_id)
            await cut.world.stream.wake(cut.message.id)
            assert said(await reading) == ["1-999999999 completed"]
        assert await cut.events() == [f"1-20 {TEXT}", "1-999999999 completed"]
        await (await cut.continued()).begin(MORE[0])
        for position in ("1-999999999", "1-21", "1-20"):
            async with cut.following(position) as following:
                assert said(await following.read()) == ["2-27  And so"]

    async def test_stopped_when_its_worker_was_dead(self, cut: Cut) -> None:
        await (await cut.continued()).begin("Perh")
        async with cut.following("1-21") as following:
            await following.read()
            cut.world.clock.move(timedelta(hours=2))
            await cut.world.messages.cancel(cut.message.id, cut.message.chatroom_id, cut.message.user_id)
            await cut.world.stream.wake(cut.message.id)
            assert said(await to_end(following)) == ["2-0 reset", f"2-20 {TEXT}", "2-999999999 completed"]

    async def test_deleted(self, cut: Cut) -> None:
        await (await cut.continued()).begin(MORE[0])
        async with cut.following("1-21") as following:
            await following.read()
            await cut.world.chatrooms.delete(cut.message.chatroom_id, cut.message.user_id)
            await cut.world.stream.wake(cut.message.id)
            assert said(await to_end(following)) == ["gone"]


class TestTrouble:
    async def test_with_the_stream_gone_the_store_has_it_all(self, cut: Cut) -> None:
        await cut.continued()
        async with cut.following("1-21") as one, cut.following() as other:
            assert said(await other.read()) == [f"1-20 {TEXT}"]
            readings = [asyncio.create_task(to_end(following)) for following in (one, other)]
            await cut.begin(MORE[0])
            await asyncio.sleep(0)
            cut.world.stream.lose_all()
            cut.say(MORE[1])
            await cut.end(response="".join(MORE), wake=False)
            await cut.look()
            for reading in readings:
                heard = said(await reading)
                assert "".join(event.partition(" ")[2] for event in heard[:-1]) == "".join(MORE)
                assert heard[-1] == "2-32 completed"

    async def test_reading_may_be_broken_off_where_it_looks_again(self) -> None:
        class Slow(MemoryMessages):
            is_slow = False

            async def get(self, message_id: MessageId, chatroom_id: ChatroomId, user_id: UserId) -> Message:
                if self.is_slow:
                    await asyncio.sleep(60)
                return await super().get(message_id, chatroom_id, user_id)

        world = World(Slow)
        assert isinstance(world.messages, Slow)
        scene = Cut(world, await world.sent())
        await scene.begin(*PIECES)
        async with scene.following() as following:
            await following.read()
            await scene.cut(wake=False)
            await scene.continued()
            await scene.begin(*MORE)
            world.messages.is_slow = True
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await following.read()
            world.messages.is_slow = False
            assert said(await following.read()) == ["2-27  And so", "2-31  on."]
