"""Changing and deleting chatrooms, cancelling and regenerating messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from application.chat.chatrooms import PAGE
from domain.accounts import User
from domain.billing import FOREVER
from domain.chat.messages import Message, MessageStatus
from domain.errors import (
    ChatroomNotFound,
    MessageEnded,
    MessageNotEnded,
    MessageNotFound,
    QuotaExceeded,
    TooManyInFlight,
)
from tests.support.patience import HANG
from tests.support.workers import claim
from tests.unit.conftest import World

OTHER = "+919876543211"


def sender(world: World) -> User:
    return world.users.table.all()[0]


async def answered(world: World, message: Message) -> Message:
    await world.container.generate_reply()(message_id=message.id)
    return await world.stored(message)


@pytest.fixture
async def waiting(world: World) -> AsyncIterator[asyncio.Task[Message]]:
    """Somebody who waits for the end of a message, with one in the room to wait for."""
    message = await world.sent()
    task = asyncio.create_task(
        world.container.await_reply()(
            user=sender(world), chatroom_id=message.chatroom_id, message_id=message.id, seconds=30
        )
    )
    await asyncio.sleep(0)
    assert not task.done()
    yield task
    task.cancel()


class TestChangeChatroom:
    async def test_name_and_instructions_show_at_once(self, world: World) -> None:
        user = await world.user()
        room = await world.container.create_chatroom()(
            user=user, name="Physics", instructions="Rhyme.", auto_title=True
        )
        assert (room.instructions, room.auto_title) == ("Rhyme.", True)
        await world.container.list_chatrooms()(user=await world.now(user), limit=PAGE)
        change = world.container.change_chatroom()
        assert await change(user=user, chatroom_id=room.id, name="Optics") == replace(
            room, name="Optics", auto_title=False
        )
        changed = await change(user=user, chatroom_id=room.id, instructions="")
        assert changed == replace(room, name="Optics", auto_title=False, instructions=None)
        listed = await world.container.list_chatrooms()(user=await world.now(user), limit=PAGE)
        assert listed.items == [changed]

    async def test_the_model_is_given_the_new_instructions(self, world: World) -> None:
        room = await world.room()
        first = await answered(world, await world.sent("first", room))
        await world.container.change_chatroom()(user=sender(world), chatroom_id=room.id, instructions="Rhyme.")
        await answered(world, await world.sent("second", room))
        given = [conversation.instructions for conversation in world.model.asked]
        assert given == [None, "Rhyme."]
        assert world.model.asked[-1].turns[0].text == first.input

    async def test_of_others_is_not_found(self, world: World) -> None:
        room, bob = await world.room(), await world.user(OTHER)
        with pytest.raises(ChatroomNotFound):
            await world.container.change_chatroom()(user=bob, chatroom_id=room.id, name="mine")
        with pytest.raises(ChatroomNotFound):
            await world.container.delete_chatroom()(user=bob, chatroom_id=room.id)
        assert world.chatrooms.table.all() == [room]


class TestDeleteChatroom:
    async def test_frees_the_places_of_what_was_unanswered(self) -> None:
        world = World(RATE_LIMITS="on", BASIC_IN_FLIGHT="2")
        room = await world.room()
        messages = [await world.sent(room=room) for _ in range(2)]
        other = await world.room(sender(world))
        with pytest.raises(TooManyInFlight):
            await world.sent(room=other)
        await world.container.delete_chatroom()(user=sender(world), chatroom_id=room.id)
        for _ in range(2):
            await world.sent(room=other)
        for message in messages:
            assert await world.container.generate_reply()(message_id=message.id) is None
        assert world.model.asked == []

    async def test_whoever_waits_learns_of_it(self, world: World, waiting: asyncio.Task[Message]) -> None:
        [room] = world.chatrooms.table.all()
        await world.container.delete_chatroom()(user=sender(world), chatroom_id=room.id)
        with pytest.raises(MessageNotFound):
            async with asyncio.timeout(HANG):
                await waiting

    async def test_leaves_the_list_at_once(self, world: World) -> None:
        user = await world.user()
        rooms = [await world.room(user) for _ in range(3)]
        await world.container.list_chatrooms()(user=await world.now(user), limit=PAGE)
        await world.container.delete_chatroom()(user=user, chatroom_id=rooms[1].id)
        listed = await world.container.list_chatrooms()(user=await world.now(user), limit=PAGE)
        assert listed.items == [rooms[2], rooms[0]]


class TestCancelMessage:
    async def cancel(self, world: World, message: Message) -> Message:
        return await world.container.cancel_message()(
            user=sender(world), chatroom_id=message.chatroom_id, message_id=message.id
        )

    async def test_what_nobody_has_begun_is_never_asked(self, world: World) -> None:
        message = await world.sent()
        cancelled = await self.cancel(world, message)
        assert cancelled.status is MessageStatus.CANCELLED
        assert await world.container.generate_reply()(message_id=message.id) is None
        assert world.model.asked == []
        assert await world.used(message) == 0

    async def test_whoever_waits_learns_of_it(self, world: World, waiting: asyncio.Task[Message]) -> None:
        [message] = world.messages.newest(world.chatrooms.table.all()[0].id, limit=9, before=None)
        cancelled = await self.cancel(world, message)
        async with asyncio.timeout(HANG):
            assert await waiting == cancelled

    async def test_what_is_being_answered_is_requested(self, world: World) -> None:
        message = await world.sent()
        await claim(world.messages, message.id, lease=timedelta(hours=1))
        requested = await self.cancel(world, message)
        assert (requested.status, requested.cancel_requested) == (MessageStatus.GENERATING, True)

    async def test_what_has_ended_and_what_is_not_there(self, world: World) -> None:
        message = await answered(world, await world.sent())
        with pytest.raises(MessageEnded):
            await self.cancel(world, message)
        bob = await world.user(OTHER)
        with pytest.raises(MessageNotFound):
            await world.container.cancel_message()(user=bob, chatroom_id=message.chatroom_id, message_id=message.id)
        assert await world.stored(message) == message


class TestRegenerateMessage:
    async def test_is_counted_and_notified_like_a_new_one(self, world: World) -> None:
        first = await answered(world, await world.sent())
        world.clock.move(timedelta(hours=1))
        message, allowance = await world.container.regenerate_message()(
            user=sender(world), chatroom_id=first.chatroom_id, message_id=first.id
        )
        assert await world.stored(first) == message
        assert (message.id, message.input, message.created_at) == (first.id, first.input, first.created_at)
        assert (message.status, message.response, message.queued_at) == (
            MessageStatus.QUEUED,
            None,
            world.clock.now(),
        )
        assert (allowance.used, allowance.remaining) == (2, 3)
        assert world.queue.notified == [first.id] * 2
        again = await answered(world, message)
        assert (again.status, again.attempt) == (MessageStatus.COMPLETED, 2)
        assert world.model.asked[0] == world.model.asked[1]

    async def test_of_pro_may_be_longer(self, world: World) -> None:
        first = await answered(world, await world.sent())
        user = replace(sender(world), pro_until=FOREVER)
        message, allowance = await world.container.regenerate_message()(
            user=user, chatroom_id=first.chatroom_id, message_id=first.id
        )
        assert (message.max_output_tokens, allowance.total) == (16_384, None)

    async def test_of_an_old_one_is_asked_as_it_was(self, world: World) -> None:
        """What came after it is not part of it."""
        room = await world.room()
        for text in ("first", "second", "third"):
            await answered(world, await world.sent(text, room))
        [_, second, _] = world.messages.newest(room.id, limit=9, before=None)
        await world.container.regenerate_message()(user=sender(world), chatroom_id=room.id, message_id=second.id)
        await answered(world, second)
        assert [turn.text for turn in world.model.asked[-1].turns] == ["first", "Hello, world.", "second"]

    async def test_refused_it_keeps_its_reply(self) -> None:
        world = World(FREE_DAILY_MESSAGES="1")
        message = await answered(world, await world.sent())
        with pytest.raises(QuotaExceeded):
            await world.container.regenerate_message()(
                user=sender(world), chatroom_id=message.chatroom_id, message_id=message.id
            )
        assert await world.stored(message) == message
        assert world.queue.notified == [message.id], "no notification of what was refused"

    async def test_what_has_not_ended_and_what_is_not_there(self, world: World) -> None:
        message, bob = await world.sent(), await world.user(OTHER)
        regenerate = world.container.regenerate_message()
        with pytest.raises(MessageNotEnded):
            await regenerate(user=sender(world), chatroom_id=message.chatroom_id, message_id=message.id)
        with pytest.raises(MessageNotFound):
            await regenerate(user=bob, chatroom_id=message.chatroom_id, message_id=message.id)
        assert world.queue.notified == [message.id]
