"""Chatrooms, and sending a message."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from adapters.memory.chat import MemoryMessages
from adapters.memory.chatrooms import MemoryChatroomLists
from application.chat.chatrooms import PAGE
from application.ports.runtime import StoredReply
from domain.billing import FOREVER, Allowance, Tier
from domain.chat.calls import ThinkingLevel
from domain.chat.chatrooms import Chatroom
from domain.chat.messages import Message, MessageStatus
from domain.errors import (
    ChatroomNotFound,
    DatabaseUnavailable,
    MessageNotFound,
    QuotaExceeded,
    RedisUnavailable,
    SendingTooFast,
    TooManyInFlight,
)
from domain.ids import ChatroomId, MessageId, UserId
from tests.support.workers import claim
from tests.unit.conftest import World

OTHER = "+919876543211"


class TestChatrooms:
    async def test_lists_in_pages(self, world: World) -> None:
        user = await world.user()
        rooms = [await world.room(user) for _ in range(5)][::-1]
        list_chatrooms, user = world.container.list_chatrooms(), await world.now(user)
        first = await list_chatrooms(user=user, limit=2)
        second = await list_chatrooms(user=user, limit=2, cursor=first.next)  # type: ignore[arg-type]
        third = await list_chatrooms(user=user, limit=2, cursor=second.next)  # type: ignore[arg-type]
        assert [*first.items, *second.items, *third.items] == rooms
        assert (first.next, second.next, third.next) == (rooms[1].id, rooms[3].id, None)
        whole = await list_chatrooms(user=user, limit=5)
        assert (whole.items, whole.next) == (rooms, None), "a full page that is the last has no next"

    async def test_comes_from_the_cache_until_the_list_changes(self, world: World) -> None:
        user = await world.user()
        first = await world.room(user)
        user = await world.now(user)
        list_chatrooms = world.container.list_chatrooms()
        assert (await list_chatrooms(user=user, limit=PAGE)).items == [first]
        world.chatrooms.table.put(first.id, replace(first, name="changed behind the cache's back"))
        assert (await list_chatrooms(user=user, limit=PAGE)).items == [first]

        second = await world.room(user)
        found = await list_chatrooms(user=await world.now(user), limit=PAGE)
        assert [room.id for room in found.items] == [second.id, first.id]
        assert found.items[1].name == "changed behind the cache's back"

    async def test_a_cached_empty_list_is_a_list(self, world: World) -> None:
        user = await world.user()
        assert (await world.container.list_chatrooms()(user=user, limit=PAGE)).items == []
        assert [rooms for _, rooms in world.lists.pages.values()] == [[]]

    async def test_only_the_first_page_of_the_usual_size_is_cached(self, world: World) -> None:
        user = await world.user()
        rooms = [await world.room(user) for _ in range(3)][::-1]
        list_chatrooms, user = world.container.list_chatrooms(), await world.now(user)
        for limit, cursor in ((PAGE - 1, None), (PAGE + 1, None), (1, None), (PAGE, rooms[0].id)):
            await list_chatrooms(user=user, limit=limit, cursor=cursor)
        assert world.lists.pages == {}
        await list_chatrooms(user=user, limit=PAGE)
        assert world.lists.pages == {user.id: (3, rooms)}
        # And none of the others is answered from it.
        world.lists.pages[user.id] = (3, [])
        assert (await list_chatrooms(user=user, limit=2)).items == rooms[:2]
        assert (await list_chatrooms(user=user, limit=PAGE, cursor=rooms[0].id)).items == rooms[1:]

    async def test_a_cached_first_page_knows_that_there_is_more(self, world: World) -> None:
        user = await world.user()
        rooms = [await world.room(user) for _ in range(PAGE + 1)][::-1]
        list_chatrooms, user = world.container.list_chatrooms(), await world.now(user)
        for _ in range(2):
            page = await list_chatrooms(user=user, limit=PAGE)
            assert (page.items, page.next) == (rooms[:PAGE], rooms[PAGE - 1].id)

    @pytest.mark.parametrize("reads", [False, True], ids=["away", "away from the second command on"])
    async def test_a_cache_that_is_away_is_no_error(self, world: World, reads: bool) -> None:
        class Away(MemoryChatroomLists):
            puts = 0

            async def get(self, user_id: UserId, version: int) -> list[Chatroom] | None:
                if reads:
                    return None
                raise RedisUnavailable

            async def put(self, user_id: UserId, version: int, rooms: list[Chatroom]) -> None:
                self.puts += 1
                raise RedisUnavailable

        lists = Away()
        world.replace(chatroom_lists=lists)
        user = await world.user()
        room = await world.room(user)
        assert (await world.container.list_chatrooms()(user=await world.now(user), limit=PAGE)).items == [room]
        assert lists.puts == int(reads), "who could not read it need not wait for it once more"

    async def test_one_user_never_gets_the_others(self, world: World) -> None:
        ann, bob = await world.user(), await world.user(OTHER)
        await world.room(ann)
        list_chatrooms = world.container.list_chatrooms()
        await list_chatrooms(user=await world.now(ann), limit=PAGE)
        assert (await list_chatrooms(user=replace(bob, chatrooms_version=1), limit=PAGE)).items == []

    async def test_opens_in_pages(self, world: World) -> None:
        room = await world.room()
        user = world.users.table.all()[0]
        messages = [(await world.sent(str(number), room)).view for number in range(5)][::-1]
        open_chatroom = world.container.open_chatroom()
        found, first = await open_chatroom(user=user, chatroom_id=room.id, limit=3)
        assert found == room
        assert (first.items, first.next) == (messages[:3], messages[2].id)
        _, second = await open_chatroom(user=user, chatroom_id=room.id, limit=3, before=messages[2].id)
        assert (second.items, second.next) == (messages[3:], None)

    async def test_somebody_elses_room_is_not_there(self, world: World) -> None:
        room, bob = await world.room(), await world.user(OTHER)
        with pytest.raises(ChatroomNotFound):
            await world.container.open_chatroom()(user=bob, chatroom_id=room.id, limit=3)
        with pytest.raises(ChatroomNotFound):
            await world.container.send_message()(user=bob, chatroom_id=room.id, input="Hello?")
        message = await world.sent(room=room)
        with pytest.raises(MessageNotFound):
            await world.container.get_message()(user=bob, chatroom_id=room.id, message_id=message.id)


class TestSendMessage:
    async def test_is_accepted_counted_and_notified(self, world: World) -> None:
        room = await world.room()
        user = world.users.table.all()[0]
        message, allowance = await world.container.send_message()(user=user, chatroom_id=room.id, input="Why?")
        assert (message.input, message.status, message.attempt) == ("Why?", MessageStatus.QUEUED, 0)
        assert (message.max_output_tokens, message.thinking) == (4_096, ThinkingLevel.LOW)
        assert allowance == Allowance(world.clock.now().date(), 1, 5)
        assert world.queue.notified == [message.id]
        found = await world.container.get_message()(user=user, chatroom_id=room.id, message_id=message.id)
        assert found == message

    async def test_the_sixth_of_a_day_is_refused(self, world: World) -> None:
        room = await world.room()
        for _ in range(5):
            await world.sent(room=room)
        with pytest.raises(QuotaExceeded) as caught:
            await world.sent(room=room)
        assert caught.value.total == 5
        assert caught.value.resets_at == datetime(2026, 1, 2, tzinfo=UTC)
        assert len(world.queue.notified) == 5, "no notification of what was refused"
        allowance = await world.container.get_allowance()(user=world.users.table.all()[0])
        assert (allowance.used, allowance.remaining) == (5, 0)

    async def test_the_day_turns_at_midnight_utc(self, world: World) -> None:
        room = await world.room()
        for _ in range(5):
            await world.sent(room=room)
        world.clock.move(timedelta(hours=12) - timedelta(milliseconds=1))
        with pytest.raises(QuotaExceeded):
            await world.sent(room=room)
        world.clock.move(timedelta(milliseconds=1))
        await world.sent(room=room)
        allowance = await world.container.get_allowance()(user=world.users.table.all()[0])
        assert allowance == Allowance(datetime(2026, 1, 2, tzinfo=UTC).date(), 1, 5)

    async def test_another_number_of_messages_is_a_setting(self) -> None:
        world = World(FREE_DAILY_MESSAGES="0")
        room = await world.room()
        with pytest.raises(QuotaExceeded):
            await world.sent(room=room)

    async def test_pro_is_unlimited_and_may_write_more(self, world: World) -> None:
        room = await world.room()
        user = replace(world.users.table.all()[0], pro_until=FOREVER)
        for number in range(1, 21):
            message, allowance = await world.container.send_message()(user=user, chatroom_id=room.id, input="Why?")
            assert (allowance.used, allowance.total, allowance.remaining) == (number, None, None)
            assert (message.max_output_tokens, message.thinking) == (16_384, ThinkingLevel.MEDIUM)

    async def test_what_a_reply_may_take_is_a_setting(self) -> None:
        world = World(
            BASIC_REPLY_TOKENS="100",
            BASIC_THINKING="high",
            PRO_REPLY_TOKENS="200",
            PRO_THINKING="minimal",
            THOUGHT_TOKENS="high=300,minimal=0",
        )
        room = await world.room()
        for pro_until, asked in ((None, (100, ThinkingLevel.HIGH, 300)), (FOREVER, (200, ThinkingLevel.MINIMAL, 0))):
            user = replace(world.users.table.all()[0], pro_until=pro_until)
            message, _ = await world.container.send_message()(user=user, chatroom_id=room.id, input="Why?")
            await world.container.generate_reply()(message_id=message.id)
            conversation = world.model.asked[-1]
            assert (conversation.max_output_tokens, conversation.thinking, conversation.thought_tokens) == asked

    async def test_a_notification_that_fails_is_no_error(self, world: World) -> None:
        world.queue.broken = True
        message = await world.sent()
        assert (await world.stored(message)).status is MessageStatus.QUEUED
        assert await world.used(message) == 1
        world.queue.broken = False
        recover = world.container.recover_replies()
        assert await recover() == []
        assert world.queue.notified == []
        world.clock.move(timedelta(seconds=10))
        assert await recover() == []
        assert world.queue.notified == [message.id]


class TestLimits:
    """By tier. Basic has an allowance and a bound on what is unanswered; Pro has fair use instead of an allowance."""

    async def room(self, world: World, tier: Tier) -> Chatroom:
        user = await world.user()
        world.users.table.put(user.id, replace(user, pro_until=FOREVER if tier is Tier.PRO else None))
        return await world.room(user)

    async def answered(self, world: World, room: Chatroom) -> None:
        message = await world.sent(room=room)
        await world.container.generate_reply()(message_id=message.id)

    @pytest.mark.parametrize(
        ("tier", "limit", "settings"),
        [
            (Tier.BASIC, 3, {}),
            (Tier.PRO, 10, {}),
            (Tier.BASIC, 2, {"BASIC_IN_FLIGHT": "2"}),
            (Tier.PRO, 1, {"PRO_IN_FLIGHT": "1"}),
        ],
    )
    async def test_so_many_unanswered(self, tier: Tier, limit: int, settings: dict[str, str]) -> None:
        world = World(RATE_LIMITS="on", FREE_DAILY_MESSAGES="100", **settings)
        room = await self.room(world, tier)
        messages = [await world.sent(room=room) for _ in range(limit)]
        with pytest.raises(TooManyInFlight):
            await world.sent(room=room)
        assert len(world.queue.notified) == limit, "no notification of what was refused"
        await world.container.generate_reply()(message_id=messages[0].id)
        await world.sent(room=room)
        with pytest.raises(TooManyInFlight):
            await world.sent(room=room)

    @pytest.mark.parametrize(("limit", "settings"), [(40, {}), (2, {"PRO_MESSAGES_PER_MINUTE": "2"})])
    async def test_pro_so_many_a_minute(self, limit: int, settings: dict[str, str]) -> None:
        world = World(RATE_LIMITS="on", **settings)
        room = await self.room(world, Tier.PRO)
        for _ in range(limit):
            await self.answered(world, room)
        world.clock.move(timedelta(seconds=20))
        with pytest.raises(SendingTooFast) as caught:
            await world.sent(room=room)
        assert caught.value.retry_after == 40
        world.clock.move(timedelta(seconds=40))
        await self.answered(world, room)

    async def test_basic_has_no_pace(self) -> None:
        world = World(RATE_LIMITS="on", FREE_DAILY_MESSAGES="100")
        room = await self.room(world, Tier.BASIC)
        for _ in range(60):
            await self.answered(world, room)

    async def test_switched_off_the_allowance_holds(self) -> None:
        world = World(RATE_LIMITS="off")
        for tier, count in ((Tier.PRO, 60), (Tier.BASIC, 5)):
            user = await world.user("+91987654321" + str(int(tier is Tier.PRO)))
            world.users.table.put(user.id, replace(user, pro_until=FOREVER if tier is Tier.PRO else None))
            room = await world.room(user)
            for _ in range(count):
                await world.sent(room=room)
        with pytest.raises(QuotaExceeded):
            await world.sent(room=room)

    async def test_who_becomes_pro_goes_on_at_once(self) -> None:
        world = World(RATE_LIMITS="on")
        room = await self.room(world, Tier.BASIC)
        for _ in range(3):
            await world.sent(room=room)
        user = world.users.table.all()[0]
        world.users.table.put(user.id, replace(user, pro_until=FOREVER))
        assert (await world.sent(room=room)).max_output_tokens == 16_384

    async def test_a_message_sent_again_has_no_further_effect(self) -> None:
        world = World(RATE_LIMITS="on", BASIC_IN_FLIGHT="1", FREE_DAILY_MESSAGES="1")
        room = await world.room()
        user = world.users.table.all()[0]
        message_id = MessageId(world.container.ids().new())
        for _ in range(3):
            message, allowance = await world.container.send_message()(
                user=user, chatroom_id=room.id, input="Why?", message_id=message_id
            )
            assert (message.id, allowance.used) == (message_id, 1)
        assert [found.id for found in world.messages.newest(room.id, limit=9, before=None)] == [message_id]


class TestMadeAgain:
    """With the id that an Idempotency-Key is kept with."""

    async def test_a_chatroom(self, world: World) -> None:
        user, chatroom_id = await world.user(), ChatroomId(world.container.ids().new())
        create = world.container.create_chatroom()
        for _ in range(2):
            assert (await create(user=user, name="Physics", chatroom_id=chatroom_id)).id == chatroom_id
        assert [room.id for room in world.chatrooms.table.all()] == [chatroom_id]

    async def test_a_chatroom_is_the_first_one(self, world: World) -> None:
        user, chatroom_id = await world.user(), ChatroomId(world.container.ids().new())
        create = world.container.create_chatroom()
        first = await create(user=user, name="Physics", chatroom_id=chatroom_id)
        world.clock.move(timedelta(seconds=40))
        assert await create(user=user, name="Physics", chatroom_id=chatroom_id) == first

    async def test_a_message_is_of_the_first_time(self, world: World) -> None:
        room = await world.room()
        user, message_id = world.users.table.all()[0], MessageId(world.container.ids().new())
        send = world.container.send_message()
        first, _ = await send(user=user, chatroom_id=room.id, input="Why?", message_id=message_id)
        world.clock.move(timedelta(seconds=40))
        again, _ = await send(user=user, chatroom_id=room.id, input="Why?", message_id=message_id)
        assert (again.id, again.created_at) == (first.id, first.created_at)

    async def test_after_an_answer_of_503_there_is_no_second_effect(self) -> None:
        """The message is stored, then the database goes away: the request fails, and is repeated with its key."""

        class AwayOnce(MemoryMessages):
            away = True

            async def get(self, message_id: MessageId, chatroom_id: ChatroomId, user_id: UserId) -> Message:
                if self.away:
                    self.away = False
                    raise DatabaseUnavailable
                return await super().get(message_id, chatroom_id, user_id)

        world = World(AwayOnce)
        room, ids = await world.room(), world.container.ids()
        user, send = world.users.table.all()[0], world.container.send_message()

        async def ask() -> tuple[Message, Allowance]:
            begun = await world.keys.begin("send", "key", b"body", new_id=ids.new(), busy_for=timedelta(seconds=30))
            assert not isinstance(begun, StoredReply)
            return await send(user=user, chatroom_id=room.id, input="Why?", message_id=MessageId(begun.resource_id))

        with pytest.raises(DatabaseUnavailable):
            await ask()
        await world.keys.abandon("send", "key")
        message, allowance = await ask()
        assert allowance.used == 1
        assert world.messages.newest(room.id, limit=9, before=None) == [message]


class TestRecoverReplies:
    async def test_notifies_in_batches_until_nothing_is_left(self, world: World) -> None:
        world = World(FREE_DAILY_MESSAGES="1000")
        room = await world.room()
        messages = [await world.sent(room=room) for _ in range(25)]
        world.queue.notified.clear()
        world.clock.move(timedelta(minutes=1))
        recover = replace(world.container.recover_replies(), batch=10)
        assert await recover() == []
        assert world.queue.notified == [message.id for message in messages]
        assert await recover() == []
        assert len(world.queue.notified) == 25

    async def test_what_a_dead_worker_left_is_notified(self, world: World) -> None:
        room = await world.room()
        messages = [(await world.sent(room=room)).id for _ in range(4)]
        for message_id in messages:
            await claim(world.messages, message_id, lease=timedelta(seconds=10))
        world.queue.notified.clear()
        world.clock.move(timedelta(seconds=11))
        assert await world.container.recover_replies()() == []
        assert world.queue.notified == messages
        world.clock.move(timedelta(seconds=3))
        assert await world.container.recover_replies()() == []
        assert world.queue.notified == messages * 2, "nobody came: again, and soon"

    async def test_what_nobody_was_notified_of_is_the_callers_to_answer(self, world: World) -> None:
        room = await world.room()
        messages = [(await world.sent(room=room)).id for _ in range(4)]
        world.queue.notified.clear()
        world.queue.broken = True
        world.clock.move(timedelta(minutes=1))
        recover = replace(world.container.recover_replies(), batch=2)
        assert await recover() == messages[:2], "one batch a sweep: more could not be begun anyway"
        assert await recover() == messages[2:]
        assert await recover() == []
        assert world.queue.notified == []


class TestAllowance:
    @pytest.mark.parametrize(("used", "total", "remaining"), [(0, 5, 5), (5, 5, 0), (9, 5, 0), (9, None, None)])
    def test_remaining_is_never_negative(self, used: int, total: int | None, remaining: int | None) -> None:
        assert Allowance(datetime(2026, 1, 1, tzinfo=UTC).date(), used, total).remaining == remaining

    @pytest.mark.parametrize(("day", "resets"), [((2026, 12, 31), (2027, 1, 1)), ((2028, 2, 28), (2028, 2, 29))])
    def test_resets_at_the_next_midnight_utc(self, day: tuple[int, int, int], resets: tuple[int, int, int]) -> None:
        assert Allowance(datetime(*day, tzinfo=UTC).date(), 1, 5).resets_at == datetime(*resets, tzinfo=UTC)

    def test_tiers(self) -> None:
        assert (str(Tier.BASIC), str(Tier.PRO)) == ("Basic", "Pro")
