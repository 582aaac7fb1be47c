"""Titles: a chatroom without a name gets one, and nothing that goes wrong with it costs a reply."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from adapters.memory.language_model import Line, ScriptedReply
from application.chat.replies import MAX_UNTITLED
from application.chat.titles import MAX_TITLE_CHARACTERS, clean_title
from domain.chat.calls import CallPurpose, ThinkingLevel
from domain.chat.chatrooms import Chatroom
from domain.chat.messages import MessageStatus
from domain.errors import ModelUnavailable, ReplyBlocked
from tests.support.patience import HANG
from tests.unit.conftest import World


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("The Blue Sky", "The Blue Sky"),
        ("  The Blue Sky.\n", "The Blue Sky"),
        ('"The Blue Sky"', "The Blue Sky"),
        ("“The Blue Sky”", "The Blue Sky"),
        ("**Title: The Blue Sky**", "The Blue Sky"),
        ("# The Blue Sky\n\nIt is about …", "The Blue Sky"),
        ("\n---\n`The Blue   Sky`", "The Blue Sky"),
        ("Don't panic", "Don't panic"),
        ("आकाश नीला क्यों है", "आकाश नीला क्यों है"),
        ("", ""),
        ("***", ""),
        ("Title:", ""),
    ],
)
def test_is_one_plain_line(said: str, title: str) -> None:
    assert clean_title(said) == title


def test_is_cut_between_words() -> None:
    title = clean_title("Why the sky looks blue at noon and red at dusk, " * 3)
    assert title == "Why the sky looks blue at noon and red at dusk, Why the sky…"
    assert len(title) <= MAX_TITLE_CHARACTERS
    assert len(clean_title("x" * 300)) == MAX_TITLE_CHARACTERS


class Scene:
    def __init__(self, world: World, *said: Line) -> None:
        self.world = world
        world.model.add(*said)

    async def room(self, *, auto_title: bool = True) -> Chatroom:
        self.created = await self.world.room()
        self.world.chatrooms.table.put(self.created.id, replace(self.created, auto_title=auto_title))
        return self.created

    async def answer(self, room: Chatroom) -> MessageStatus | None:
        message = await self.world.sent("Why is the sky blue?", room)
        return await self.world.container.generate_reply()(message_id=message.id)

    def name(self) -> str:
        found = self.world.chatrooms.table.get(self.created.id)
        assert found is not None
        return found.name


async def test_after_the_first_exchange_the_room_is_named(world: World) -> None:
    scene = Scene(world, "Rayleigh scattering.", "**The Blue Sky**")
    room = await scene.room()
    assert await scene.answer(room) is MessageStatus.COMPLETED
    assert scene.name() == "The Blue Sky"
    question = world.model.asked[1]
    assert "Why is the sky blue?" in question.turns[0].text
    assert "Rayleigh scattering." in question.turns[0].text
    assert await world.used(await world.sent(room=room)) == 2, "no title is paid for"
    assert len(world.model.asked) == 2


async def test_a_room_with_a_name_keeps_it(world: World) -> None:
    scene = Scene(world)
    await scene.answer(await scene.room(auto_title=False))
    assert (scene.name(), len(world.model.asked)) == ("Physics", 1)


@pytest.mark.parametrize(
    "said",
    [ModelUnavailable(), ReplyBlocked("SAFETY"), "***", LookupError("a defect")],
    ids=repr,
)
async def test_without_a_title_the_next_reply_tries_again(world: World, said: Line) -> None:
    line = ScriptedReply(pieces=(), error=said) if isinstance(said, Exception) else said
    scene = Scene(world, "Rayleigh.", line, "Again.", "The Blue Sky")
    room = await scene.room()
    assert await scene.answer(room) is MessageStatus.COMPLETED
    assert scene.name() == "Physics"
    assert await scene.answer(room) is MessageStatus.COMPLETED
    assert scene.name() == "The Blue Sky"


async def test_not_for_ever() -> None:
    world = World(FREE_DAILY_MESSAGES="100")
    said: list[Line] = ["A reply.", ReplyBlocked("SAFETY")]
    scene = Scene(world, *said * MAX_UNTITLED)
    room = await scene.room()
    for _ in range(MAX_UNTITLED + 2):
        await scene.answer(room)
    assert len(world.model.asked) == 2 * MAX_UNTITLED + 2


async def test_a_title_that_was_cut_is_dropped(world: World) -> None:
    scene = Scene(world, "Rayleigh.", ScriptedReply(pieces=("Half an ans",), finish_reason="MAX_TOKENS"))
    await scene.answer(await scene.room())
    assert (scene.name(), len(world.model.asked)) == ("Physics", 2)


async def test_it_is_asked_for_with_little_thought(world: World) -> None:
    scene = Scene(world, "Rayleigh.", "The Blue Sky")
    await scene.answer(await scene.room())
    asked = world.model.asked[1]
    assert (asked.thinking, asked.thought_tokens, asked.max_output_tokens) == (ThinkingLevel.MINIMAL, 1_024, 256)


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ("The Blue Sky", "completed"),
        (ModelUnavailable(), "model_unavailable"),
        (ReplyBlocked("SAFETY"), "blocked"),
        (LookupError("a defect"), "generation_failed"),
    ],
    ids=repr,
)
async def test_is_booked_but_not_the_users(world: World, said: Line, outcome: str) -> None:
    line = ScriptedReply(pieces=(), error=said) if isinstance(said, Exception) else said
    scene = Scene(world, "Rayleigh.", line)
    await scene.answer(await scene.room())
    reply, title = world.messages.calls.all()
    assert (reply.purpose, reply.outcome) == (CallPurpose.REPLY, "completed")
    assert (title.purpose, title.outcome, title.attempt) == (CallPurpose.TITLE, outcome, 1)
    allowance = await world.container.get_allowance()(user=world.users.table.all()[0])
    assert (allowance.input_tokens, allowance.output_tokens) == (reply.usage.input, reply.usage.output)  # type: ignore[union-attr]


async def test_interrupted_it_is_booked(world: World) -> None:
    scene = Scene(world, "Rayleigh.", ScriptedReply(pieces=("The",), finish_reason=None))
    message = await world.sent(room=await scene.room())
    task = asyncio.create_task(world.container.generate_reply()(message_id=message.id))
    async with asyncio.timeout(HANG):
        while len(world.model.asked) < 2 or not world.model.open:  # noqa: ASYNC110 - no event to wait on
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    assert [call.outcome for call in world.messages.calls.all()] == ["completed", "interrupted"]


async def test_a_failed_reply_names_nothing(world: World) -> None:
    scene = Scene(world, ReplyBlocked("SAFETY"))
    await scene.answer(await scene.room())
    assert (scene.name(), len(world.model.asked)) == ("Physics", 1)


async def test_readers_get_the_end_before(world: World) -> None:
    hangs = ScriptedReply(pieces=("The",), finish_reason=None)
    scene = Scene(world, "Rayleigh.", hangs)
    message = await world.sent(room=await scene.room())
    async with world.stream.follow(message.id) as reader, asyncio.timeout(HANG):
        task = asyncio.create_task(world.container.generate_reply()(message_id=message.id))
        while await reader.read():
            pass
        assert (await world.stored(message)).status is MessageStatus.COMPLETED
        assert not task.done()
        while not world.model.open:  # noqa: ASYNC110 - no event to wait on
            await asyncio.sleep(0)
        world.queue.notified.clear()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert world.model.left == 1
    assert world.queue.notified == [], "the message needs nobody any more"
