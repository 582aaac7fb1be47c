"""What Chatrooms promises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.accounts import User
from domain.billing import SendingLimits
from domain.chat.chatrooms import Chatroom
from domain.chat.conversation import Context
from domain.chat.messages import Message
from domain.errors import ChatroomNotFound, MessageNotFound, UserNotFound
from domain.ids import ChatroomId, MessageId
from tests.contracts.conftest import BLOCKED, CANCELLED, COMPLETED, FAILED, HOUR, Adapters, names


def new_room(adapters: Adapters, user: User) -> Chatroom:
    return Chatroom(id=ChatroomId(adapters.ids.new()), user_id=user.id, name="A room", created_at=adapters.clock.now())


class TestChatrooms:
    async def test_lists_the_users_own_newest_first_in_pages(self, adapters: Adapters) -> None:
        user = await adapters.user()
        rooms = [await adapters.room(user, f"room {n}") for n in range(5)][::-1]
        await adapters.room()
        list_for_user = adapters.chatrooms.list_for_user
        assert await list_for_user(user.id, limit=10) == rooms
        assert await list_for_user(user.id, limit=2) == rooms[:2]
        assert await list_for_user(user.id, limit=2, before=rooms[1].id) == rooms[2:4]
        assert await list_for_user(user.id, limit=2, before=rooms[3].id) == rooms[4:]
        assert await list_for_user(user.id, limit=2, before=rooms[4].id) == []

    async def test_a_new_room_raises_its_owners_version(self, adapters: Adapters) -> None:
        ann, bob = await adapters.user(), await adapters.user()
        await adapters.room(ann)
        await adapters.room(ann)
        assert await adapters.users.find_by_mobile(ann.mobile) == replace(ann, chatrooms_version=2)
        assert await adapters.users.find_by_mobile(bob.mobile) == bob

    async def test_rooms_made_at_once_raise_the_version_by_their_number(self, adapters: Adapters) -> None:
        user = await adapters.user()
        await adapters.race(*(adapters.room(user) for _ in range(20)), rows_of="users")
        found = await adapters.users.find_by_mobile(user.mobile)
        assert found is not None
        assert found.chatrooms_version == 20
        assert len(await adapters.chatrooms.list_for_user(user.id, limit=50)) == 20

    async def test_a_rolled_back_room_leaves_neither_room_nor_version(self, adapters: Adapters) -> None:
        user = await adapters.user()
        async with adapters.rolled_back():
            await adapters.room(user)
        assert await adapters.users.find_by_mobile(user.mobile) == user
        assert await adapters.chatrooms.list_for_user(user.id, limit=10) == []

    async def test_a_room_made_again_is_the_room_that_is_there(self, adapters: Adapters) -> None:
        room = await adapters.room(name="first")
        again = replace(room, name="again", created_at=room.created_at + HOUR)
        assert await adapters.chatrooms.add(again) == room
        assert await adapters.chatrooms.list_for_user(room.user_id, limit=10) == [room]

    async def test_a_new_room_is_returned_as_it_is_stored(self, adapters: Adapters) -> None:
        owner = await adapters.user()
        room = Chatroom(
            id=ChatroomId(adapters.ids.new()),
            user_id=owner.id,
            name="Zoë's 🌻",
            instructions="Answer in Norwegian: ærlig talt.",
            auto_title=True,
            created_at=adapters.clock.now(),
        )
        assert await adapters.chatrooms.add(room) == room
        assert await adapters.chatrooms.list_for_user(owner.id, limit=10) == [room]
        assert await adapters.chatrooms.get_with_messages(room.id, owner.id, limit=10) == (room, [])

    async def test_one_room_made_many_times_at_once_is_one(self, adapters: Adapters) -> None:
        owner, room_id = await adapters.user(), ChatroomId(adapters.ids.new())
        rooms = [
            Chatroom(id=room_id, user_id=owner.id, name=str(n), created_at=adapters.clock.now()) for n in range(10)
        ]
        results = await adapters.race(*(adapters.chatrooms.add(room) for room in rooms), rows_of="users")
        assert await adapters.chatrooms.list_for_user(owner.id, limit=10) == results[:1]
        assert results == results[:1] * 10

    async def test_no_user_has_more_rooms_than_the_limit(self, adapters: Adapters) -> None:
        user, other = await adapters.user(), await adapters.user()
        first, *_ = [await adapters.room(user) for _ in range(3)]
        rooms = [new_room(adapters, user) for _ in range(10)]
        results = await adapters.race(*(adapters.chatrooms.add(room, limit=5) for room in rooms), rows_of="users")
        assert sorted(type(result).__name__ for result in results) == ["Chatroom"] * 2 + ["TooManyChatrooms"] * 8
        assert len(await adapters.chatrooms.list_for_user(user.id, limit=50)) == 5
        assert await adapters.chatrooms.add(first, limit=5) == first, "it is there already"
        await adapters.chatrooms.add(new_room(adapters, other), limit=5)
        await adapters.chatrooms.delete(first.id, user.id)
        added = new_room(adapters, user)
        assert await adapters.chatrooms.add(added, limit=5) == added
        with pytest.raises(UserNotFound):
            await adapters.chatrooms.add(new_room(adapters, adapters.new_user()), limit=5)

    async def test_far_below_the_limit_rooms_are_added_as_without_one(self, adapters: Adapters) -> None:
        user = await adapters.user()
        rooms = [new_room(adapters, user) for _ in range(5)]
        adding = (adapters.chatrooms.add(room, limit=1000) for room in rooms)
        assert await adapters.race(*adding, rows_of="users") == rooms

    async def test_opens_with_the_newest_messages_in_pages(self, adapters: Adapters) -> None:
        user = await adapters.user()
        room, other = await adapters.room(user), await adapters.room(user)
        messages = [(await adapters.queued(room, input=f"message {n}")).view for n in range(5)][::-1]
        await adapters.queued(other)
        get_with_messages = adapters.chatrooms.get_with_messages
        assert await get_with_messages(room.id, user.id, limit=10) == (room, messages)
        assert await get_with_messages(room.id, user.id, limit=2) == (room, messages[:2])
        assert await get_with_messages(room.id, user.id, limit=2, before=messages[1].id) == (room, messages[2:4])
        assert await get_with_messages(room.id, user.id, limit=2, before=messages[4].id) == (room, [])

    async def test_opens_an_empty_room(self, adapters: Adapters) -> None:
        room = await adapters.room(name="Ünï 🌻")
        assert await adapters.chatrooms.get_with_messages(room.id, room.user_id, limit=10) == (room, [])

    async def test_a_room_of_another_is_as_absent_as_none(self, adapters: Adapters) -> None:
        room, stranger = await adapters.room(), await adapters.user()
        for chatroom_id, user_id in [(room.id, stranger.id), (ChatroomId(adapters.ids.new()), stranger.id)]:
            with pytest.raises(ChatroomNotFound):
                await adapters.chatrooms.get_with_messages(chatroom_id, user_id, limit=10)


async def version(adapters: Adapters, room: Chatroom, owner: User) -> int:
    assert room.user_id == owner.id
    found = await adapters.users.find_by_mobile(owner.mobile)
    assert found is not None
    return found.chatrooms_version


class TestChange:
    @pytest.mark.parametrize(
        ("change", "changed"),
        [
            ({"name": "Optics"}, {"name": "Optics", "auto_title": False}),
            ({"instructions": "Be brief 🌻."}, {"instructions": "Be brief 🌻."}),
            ({"instructions": ""}, {"instructions": None}),
            (
                {"name": "Optics", "instructions": ""},
                {"name": "Optics", "auto_title": False, "instructions": None},
            ),
            ({}, {}),
        ],
    )
    async def test_keeps_what_is_not_named(
        self, adapters: Adapters, change: dict[str, str], changed: dict[str, Any]
    ) -> None:
        owner = await adapters.user()
        room, other = [await adapters.room(owner, instructions="Rhyme.", auto_title=True) for _ in range(2)]
        expected = replace(room, **changed)
        assert await adapters.chatrooms.change(room.id, owner.id, **change) == expected
        assert await adapters.chatrooms.list_for_user(owner.id, limit=10) == [other, expected]
        assert await version(adapters, room, owner) == 3

    async def test_a_room_of_another_is_as_absent_as_none(self, adapters: Adapters) -> None:
        owner, stranger = await adapters.user(), await adapters.user()
        room = await adapters.room(owner)
        for chatroom_id in (room.id, ChatroomId(adapters.ids.new())):
            with pytest.raises(ChatroomNotFound):
                await adapters.chatrooms.change(chatroom_id, stranger.id, name="mine")
        assert await adapters.chatrooms.list_for_user(owner.id, limit=10) == [room]
        assert await adapters.users.find_by_mobile(stranger.mobile) == stranger
        assert await version(adapters, room, owner) == 1

    async def test_of_many_at_once_each_counts(self, adapters: Adapters) -> None:
        owner = await adapters.user()
        room = await adapters.room(owner)
        calls = [adapters.chatrooms.change(room.id, owner.id, name=f"room {n}") for n in range(10)]
        calls += [adapters.chatrooms.change(room.id, owner.id, instructions=f"rule {n}") for n in range(10)]
        assert names(await adapters.race(*calls, rows_of="chatrooms")) == {"Chatroom": 20}
        [stored] = await adapters.chatrooms.list_for_user(owner.id, limit=10)
        assert stored.name.startswith("room ")
        assert str(stored.instructions).startswith("rule ")
        assert await version(adapters, room, owner) == 21

    async def test_rolled_back_is_none(self, adapters: Adapters) -> None:
        owner = await adapters.user()
        room = await adapters.room(owner)
        async with adapters.rolled_back():
            await adapters.chatrooms.change(room.id, owner.id, name="other", instructions="Rhyme.")
        assert await adapters.chatrooms.list_for_user(owner.id, limit=10) == [room]
        assert await version(adapters, room, owner) == 1


class TestEntitle:
    async def test_names_a_room_that_waits_for_it_once(self, adapters: Adapters) -> None:
        owner = await adapters.user()
        room = await adapters.room(owner, auto_title=True)
        assert await adapters.chatrooms.set_title(room.id, "The blue sky")
        assert not await adapters.chatrooms.set_title(room.id, "The red sky")
        titled = replace(room, name="The blue sky", auto_title=False)
        assert await adapters.chatrooms.list_for_user(owner.id, limit=10) == [titled]
        assert await version(adapters, room, owner) == 2

    async def test_leaves_a_room_that_does_not_wait(self, adapters: Adapters) -> None:
        owner = await adapters.user()
        room = await adapters.room(owner)
        for chatroom_id in (room.id, ChatroomId(adapters.ids.new())):
            assert not await adapters.chatrooms.set_title(chatroom_id, "The blue sky")
        assert await adapters.chatrooms.list_for_user(owner.id, limit=10) == [room]
        assert await version(adapters, room, owner) == 1

    async def test_and_a_name_given_at_once_the_given_one_stays(self, adapters: Adapters) -> None:
        owner = await adapters.user()
        room = await adapters.room(owner, auto_title=True)
        results = await adapters.race(
            *(adapters.chatrooms.set_title(room.id, f"title {n}") for n in range(10)),
            adapters.chatrooms.change(room.id, owner.id, name="given"),
            *(adapters.chatrooms.set_title(room.id, f"title {n}") for n in range(9)),
            rows_of="chatrooms",
        )
        assert sum(result is True for result in results) <= 1
        [stored] = await adapters.chatrooms.list_for_user(owner.id, limit=10)
        assert (stored.name, stored.auto_title) == ("given", False)

    async def test_rolled_back_it_waits_on(self, adapters: Adapters) -> None:
        owner = await adapters.user()
        room = await adapters.room(owner, auto_title=True)
        async with adapters.rolled_back():
            assert await adapters.chatrooms.set_title(room.id, "The blue sky")
        assert await adapters.chatrooms.list_for_user(owner.id, limit=10) == [room]
        assert await version(adapters, room, owner) == 1


class TestDelete:
    async def in_flight(self, adapters: Adapters, owner: User) -> int:
        _, _, in_flight = (await adapters.counters())[owner.id]
        return in_flight

    async def test_takes_its_messages_along_and_returns_the_unanswered(self, adapters: Adapters) -> None:
        owner = await adapters.user()
        room, other = await adapters.room(owner), await adapters.room(owner)
        queued, generating = await adapters.queued(room), await adapters.claimed(room)
        over = [await adapters.ended(room, outcome) for outcome in (COMPLETED, FAILED, BLOCKED, CANCELLED)]
        abandoned, kept = await adapters.claimed(room, lease=-HOUR), await adapters.queued(other)

        unanswered = await adapters.chatrooms.delete(room.id, owner.id)
        assert unanswered == [queued.id, generating.id, abandoned.id]
        adapters.unseen[owner.id] = 6  # of seven messages one had failed
        await adapters.check_counters()
        assert await self.in_flight(adapters, owner) == 1
        assert await adapters.chatrooms.list_for_user(owner.id, limit=10) == [other]
        assert await version(adapters, other, owner) == 3
        with pytest.raises(ChatroomNotFound):
            await adapters.chatrooms.get_with_messages(room.id, owner.id, limit=10)
        for message in (queued, generating, abandoned, *over):
            with pytest.raises(MessageNotFound):
                await adapters.stored(message)
        assert await adapters.stored(kept) == kept

    async def test_of_what_is_gone_nothing_can_be_done(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        await adapters.chatrooms.delete(message.chatroom_id, message.user_id)
        adapters.unseen[message.user_id] = 1
        verbs = adapters.messages
        assert not await verbs.finish(message.id, 1, FAILED)
        assert not await verbs.retry(message.id, 1, delay=HOUR)
        assert not await verbs.release(message.id, 1)
        assert not await verbs.requeue(message.id)
        assert await adapters.workers.claim(message.id, lease=HOUR) is None
        assert await adapters.workers.extend([(message.id, 1)], lease=HOUR) == set()
        assert await verbs.ended([message.id]) == {message.id}
        assert await verbs.context(message, limit=10) == Context()
        with pytest.raises(MessageNotFound):
            await verbs.cancel(message.id, message.chatroom_id, message.user_id)
        with pytest.raises(MessageNotFound):
            await verbs.regenerate(message, limits=SendingLimits())
        with pytest.raises(ChatroomNotFound):
            await verbs.accept(replace(message, id=MessageId(adapters.ids.new())), limits=SendingLimits())

    async def test_of_an_empty_room(self, adapters: Adapters) -> None:
        owner = await adapters.user()
        room = await adapters.room(owner)
        assert await adapters.chatrooms.delete(room.id, owner.id) == []
        assert await adapters.chatrooms.list_for_user(owner.id, limit=10) == []
        assert await adapters.counters() == {}

    async def test_a_room_of_another_is_as_absent_as_none(self, adapters: Adapters) -> None:
        message, stranger = await adapters.queued(), await adapters.user()
        for chatroom_id in (message.chatroom_id, ChatroomId(adapters.ids.new())):
            with pytest.raises(ChatroomNotFound):
                await adapters.chatrooms.delete(chatroom_id, stranger.id)
        assert await adapters.stored(message) == message
        assert await adapters.users.find_by_mobile(stranger.mobile) == stranger

    async def test_rolled_back_it_is_all_there(self, adapters: Adapters) -> None:
        owner = await adapters.user()
        room = await adapters.room(owner, instructions="Rhyme.")
        messages = [await adapters.queued(room), await adapters.claimed(room), await adapters.ended(room)]
        async with adapters.rolled_back():
            assert await adapters.chatrooms.delete(room.id, owner.id) == [m.id for m in messages[:2]]
        views = [message.view for message in messages[::-1]]
        assert await adapters.chatrooms.get_with_messages(room.id, owner.id, limit=10) == (room, views)
        assert await version(adapters, room, owner) == 1
        assert await self.in_flight(adapters, owner) == 2

    async def test_of_many_at_once_one_does_it(self, adapters: Adapters) -> None:
        owner = await adapters.user()
        room = await adapters.room(owner)
        message = await adapters.queued(room)
        calls = [adapters.chatrooms.delete(room.id, owner.id) for _ in range(20)]
        results = await adapters.race(*calls, rows_of="chatrooms")
        assert names(results) == {"list": 1, "ChatroomNotFound": 19}
        assert [message.id] in results
        adapters.unseen[owner.id] = 1
        assert await self.in_flight(adapters, owner) == 0
        assert (await adapters.users.find_by_mobile(owner.mobile)) == replace(owner, chatrooms_version=2)

    @pytest.mark.parametrize("turn", [0, 10, 19])
    async def test_and_messages_sent_at_once(self, adapters: Adapters, turn: int) -> None:
        """Each is either refused, or accepted and gone; none stays in flight forever."""
        owner = await adapters.user()
        room, other = await adapters.room(owner), await adapters.room(owner)
        await adapters.queued(room)
        new = [adapters.new_message(room if n % 4 else other) for n in range(19)]
        calls: list[Any] = [adapters.messages.accept(message, limits=SendingLimits()) for message in new]
        calls.insert(turn, adapters.chatrooms.delete(room.id, owner.id))
        results = await adapters.race(*calls, rows_of="chatrooms")
        unanswered = results[turn]
        assert isinstance(unanswered, list)
        accepted, refused = names(results)["Allowance"], names(results)["ChatroomNotFound"]
        assert accepted + refused == 19
        adapters.unseen[owner.id] = len(unanswered)
        _, used, in_flight = (await adapters.counters())[owner.id]
        assert (used, in_flight) == (1 + accepted, 1 + accepted - len(unanswered))
        assert in_flight == 5, "those of the other room"

    async def test_and_all_that_happens_to_messages_at_once(self, adapters: Adapters) -> None:
        owner = await adapters.user()
        room = await adapters.room(owner)
        held = [await adapters.claimed(room) for _ in range(10)]
        queued = [await adapters.queued(room) for _ in range(4)]
        over = [await adapters.ended(room, FAILED) for _ in range(4)]
        verbs = adapters.messages
        results = await adapters.race(
            *(verbs.finish(message.id, 1, FAILED) for message in held[:2]),
            *(adapters.workers.claim(message.id, lease=HOUR) for message in queued[:2]),
            *(verbs.cancel(m.id, m.chatroom_id, m.user_id) for m in (held[2], queued[2])),
            *(verbs.regenerate(adapters.anew(message), limits=SendingLimits()) for message in over[:2]),
            adapters.chatrooms.delete(room.id, owner.id),
            adapters.workers.extend([(message.id, 1) for message in held[::-1]], lease=HOUR),
            *(verbs.requeue(message.id) for message in over[2:]),
            *(verbs.cancel(m.id, m.chatroom_id, m.user_id) for m in (held[3], queued[3])),
            *(verbs.retry(message.id, 1, delay=HOUR) for message in held[4:6]),
            *(verbs.release(message.id, 1) for message in held[6:8]),
            *(verbs.finish(message.id, 1, COMPLETED) for message in held[8:]),
            rows_of="chatrooms, queue_entries, messages, workers",
        )
        assert names(results).keys() <= {"bool", "Message", "NoneType", "Allowance", "list", "set", "MessageNotFound"}
        assert await verbs.ended([m.id for m in held + queued + over]) == {m.id for m in held + queued + over}
        refunded = sum(result is True for result in results[:2])
        refunded += sum(isinstance(result, Message) and not result.charged for result in results)  # before any call
        adapters.unseen[owner.id] = 14 - refunded + names(results)["Allowance"]
        await adapters.check_counters()
        assert await self.in_flight(adapters, owner) == 0
