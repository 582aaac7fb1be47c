"""Continuing a reply that was cut off: what the model is asked, what becomes of the reply, and what it costs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from adapters.memory.language_model import Line, ScriptedReply
from domain.chat.conversation import (
    GO_ON,
    MAX_WINDOW_TOKENS,
    Context,
    Role,
    Turn,
    conversation_window,
    estimated_tokens,
)
from domain.chat.messages import CUT_OFF, Message, MessageStatus
from domain.errors import (
    MessageNotContinuable,
    MessageNotEnded,
    MessageNotFound,
    ModelRejectedRequest,
    ModelUnavailable,
    QuotaExceeded,
    ReplyBlocked,
)
from tests.unit.conftest import World
from tests.unit.test_changing import OTHER, sender
from tests.unit.test_conversation import MESSAGE, past
from tests.unit.test_replies import COMPLETED, HANGS, answer, answering

FIRST = ScriptedReply(pieces=("Because ", "of Ray"), thoughts=("Blue.",), finish_reason=CUT_OFF)
SECOND = ScriptedReply(pieces=("leigh", "."), thoughts=("Where was I?",))


async def cut(world: World, *then: Line) -> Message:
    """A message whose reply was cut off; the model says `then` afterwards."""
    world.model.add(FIRST, *then)
    message = await world.sent()
    assert await answer(world, message) is COMPLETED
    return await world.stored(message)


async def go_on(world: World, message: Message) -> Message:
    continued, _ = await world.container.continue_message()(
        user=sender(world), chatroom_id=message.chatroom_id, message_id=message.id
    )
    return continued


class TestContinueMessage:
    async def test_is_counted_and_notified_like_a_new_one(self, world: World) -> None:
        first = await cut(world, SECOND)
        message, allowance = await world.container.continue_message()(
            user=sender(world), chatroom_id=first.chatroom_id, message_id=first.id
        )
        assert await world.stored(first) == message
        assert (message.id, message.status, message.response) == (first.id, MessageStatus.QUEUED, "Because of Ray")
        assert (message.finish_reason, message.completed_at, message.charged) == (None, None, True)
        assert (allowance.used, allowance.remaining) == (2, 3)
        assert world.queue.notified == [first.id] * 2
        assert await answer(world, message) is COMPLETED
        ended = await world.stored(message)
        assert (ended.response, ended.finish_reason, ended.attempt) == ("Because of Rayleigh.", "STOP", 2)
        assert ended.thoughts == "Blue.\n\nWhere was I?"
        assert (first.output_tokens, ended.output_tokens) == (6, 11)

    async def test_the_model_has_its_text_and_is_asked_to_go_on(self, world: World) -> None:
        message = await cut(world, SECOND)
        await answer(world, await go_on(world, message))
        question, more = world.model.asked
        assert more.turns == (*question.turns, Turn(Role.MODEL, "Because of Ray"), Turn(Role.USER, GO_ON))
        assert replace(more, turns=()) == replace(question, turns=())

    async def test_later_messages_have_it_whole(self, world: World) -> None:
        message = await cut(world, SECOND)
        await answer(world, await go_on(world, message))
        room = (await world.chatrooms.get_with_messages(message.chatroom_id, message.user_id, limit=1))[0]
        await answer(world, await world.sent("And at sunset?", room))
        texts = [turn.text for turn in world.model.asked[-1].turns]
        assert texts == [message.input, "Because of Rayleigh.", "And at sunset?"]

    async def test_refused_it_keeps_its_reply(self) -> None:
        world = World(FREE_DAILY_MESSAGES="1")
        message = await cut(world)
        with pytest.raises(QuotaExceeded):
            await go_on(world, message)
        assert await world.stored(message) == message
        assert world.queue.notified == [message.id]

    async def test_what_was_not_cut_off_goes_on_or_is_not_there(self, world: World) -> None:
        message, bob = await world.sent(), await world.user(OTHER)
        with pytest.raises(MessageNotEnded):
            await go_on(world, message)
        await answer(world, message)
        with pytest.raises(MessageNotContinuable):
            await go_on(world, message)
        with pytest.raises(MessageNotFound):
            await world.container.continue_message()(user=bob, chatroom_id=message.chatroom_id, message_id=message.id)
        assert world.queue.notified == [message.id]

    async def test_repeated_with_its_id_it_has_one_effect(self, world: World) -> None:
        message, request_id = await cut(world, FIRST), world.container.ids().new()
        for _ in range(2):
            _, allowance = await world.container.continue_message()(
                user=sender(world), chatroom_id=message.chatroom_id, message_id=message.id, request_id=request_id
            )
            assert allowance.used == 2
            await answer(world, message)
        assert (await world.stored(message)).response == "Because of Ray" * 2


class TestEnds:
    @pytest.mark.parametrize(
        ("line", "code", "used"),
        [(ModelRejectedRequest(), "model_refused", 1), (ReplyBlocked("SAFETY"), "reply_blocked", 2)],
        ids=repr,
    )
    async def test_if_it_fails_the_reply_is_what_it_was(self, world: World, line: Line, code: str, used: int) -> None:
        message = await cut(world, line)
        await answer(world, await go_on(world, message))
        ended = await world.stored(message)
        assert (ended.status, ended.response, ended.finish_reason) == (COMPLETED, message.response, CUT_OFF)
        assert (ended.error_code, await world.used(message)) == (code, used)
        world.model.add(SECOND)
        await answer(world, await go_on(world, ended))
        assert (await world.stored(message)).response == "Because of Rayleigh."

    async def test_what_an_attempt_wrote_that_failed_is_in_no_reply(self, world: World) -> None:
        message = await cut(world, ScriptedReply(pieces=("leg",), error=ModelUnavailable()), SECOND)
        await answer(world, await go_on(world, message))
        waiting = await world.stored(message)
        assert (waiting.status, waiting.response) == (MessageStatus.QUEUED, message.response)
        world.clock.move(timedelta(minutes=1))
        await answer(world, message)
        assert (await world.stored(message)).response == "Because of Rayleigh."

    async def test_stopped_it_can_go_on_later(self, world: World) -> None:
        message = await cut(world, ScriptedReply(pieces=("leigh",), finish_reason=None), ".")
        await go_on(world, message)
        async with answering(world, message) as task:
            await world.container.cancel_message()(
                user=sender(world), chatroom_id=message.chatroom_id, message_id=message.id
            )
            await asyncio.sleep(0)
            await world.container.leases().stop_cancelled()
            await task
        ended = await world.stored(message)
        assert (ended.status, ended.response, ended.finish_reason) == (COMPLETED, "Because of Rayleigh", CUT_OFF)
        await answer(world, await go_on(world, ended))
        assert (await world.stored(message)).response == "Because of Rayleigh."

    async def test_handed_back_in_the_middle_nothing_is_doubled(self, world: World) -> None:
        message = await cut(world, HANGS, SECOND)
        await go_on(world, message)
        async with answering(world, message):
            pass
        await answer(world, message)
        assert (await world.stored(message)).response == "Because of Rayleigh."

    async def test_its_room_is_named_after_all_of_it(self, world: World) -> None:
        room = await world.container.create_chatroom()(user=await world.user(), name="New chat", auto_title=True)
        world.model.add(FIRST, ModelRejectedRequest(), SECOND, "Sky")
        message = await world.sent(room=room)
        await answer(world, message)
        await answer(world, await go_on(world, await world.stored(message)))
        assert "Assistant: Because of Rayleigh." in world.model.asked[-1].turns[0].text


class TestWindow:
    def test_of_a_text_longer_than_itself_it_has_the_end(self) -> None:
        text = "".join(f"{number} " for number in range(60_000))
        message = replace(MESSAGE, response=text, kept_characters=len(text), kept_attempt=1)
        conversation = conversation_window(message, Context())
        assert [turn.role for turn in conversation.turns] == [Role.USER, Role.MODEL, Role.USER]
        end = conversation.turns[1].text
        assert text.endswith(end)
        assert MAX_WINDOW_TOKENS / 2 < estimated_tokens(end) <= MAX_WINDOW_TOKENS

    def test_the_text_takes_from_the_budget_of_what_came_before(self) -> None:
        message = replace(MESSAGE, response="x" * 400, kept_characters=400, kept_attempt=1)
        earlier = [past("q" * 4, "a" * 4), past("old" * 40, "answer" * 40)]
        turns = conversation_window(message, Context(earlier), max_tokens=120).turns
        assert [turn.text[:4] for turn in turns] == ["qqqq", "aaaa", MESSAGE.input[:4], "xxxx", GO_ON[:4]]
