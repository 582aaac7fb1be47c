"""What Chatrooms, Messages and ChatroomLists promise."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest

from adapters.redis.cache import RedisChatroomLists
from adapters.redis.connection import RedisConnection
from adapters.system import TimeOrderedIds
from domain.billing import Allowance, SendingLimits
from domain.chat import Chatroom, Message, MessageStatus, Outcome
from domain.errors import (
    ChatroomNotFound,
    MessageNotFound,
    QuotaExceeded,
    RedisUnavailable,
    ReplyBlocked,
    WorkersDied,
)
from domain.ids import ChatroomId, MessageId, UserId
from entrypoints.container import Container
from entrypoints.local.processes import free_port
from tests.contracts.conftest import COMPLETED, HOUR, Adapters, InPostgresAndRedis

FAILED = Outcome.of_error(WorkersDied())
BLOCKED = Outcome.of_error(ReplyBlocked("SAFETY"))
CANCELLED = Outcome(status=MessageStatus.CANCELLED, response="Half a")
LEASE = timedelta(seconds=10)
EXPIRED = timedelta(seconds=-1)
QUIET = timedelta(seconds=10)


def names(results: Sequence[object]) -> Counter[str]:
    return Counter(type(result).__name__ for result in results)


class TestChatrooms:
    async def test_lists_the_users_own_newest_first_in_pages(self, adapters: Adapters) -> None:
        user = await adapters.user()
        rooms = [await adapters.room(user, f"room {n}") for n in range(5)][::-1]
        await adapters.room()
        list_of = adapters.chatrooms.list_of
        assert await list_of(user.id, limit=10) == rooms
        assert await list_of(user.id, limit=2) == rooms[:2]
        assert await list_of(user.id, limit=2, before=rooms[1].id) == rooms[2:4]
        assert await list_of(user.id, limit=2, before=rooms[3].id) == rooms[4:]
        assert await list_of(user.id, limit=2, before=rooms[4].id) == []

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
        assert len(await adapters.chatrooms.list_of(user.id, limit=50)) == 20

    async def test_a_rolled_back_room_leaves_neither_room_nor_version(self, adapters: Adapters) -> None:
        user = await adapters.user()
        async with adapters.rolled_back():
            await adapters.room(user)
        assert await adapters.users.find_by_mobile(user.mobile) == user
        assert await adapters.chatrooms.list_of(user.id, limit=10) == []

    async def test_a_room_made_again_is_the_room_that_is_there(self, adapters: Adapters) -> None:
        room = await adapters.room(name="first")
        again = replace(room, name="again", created_at=room.created_at + HOUR)
        assert await adapters.chatrooms.add(again) == room
        assert await adapters.chatrooms.list_of(room.user_id, limit=10) == [room]

    async def test_a_new_room_is_returned_as_it_is_stored(self, adapters: Adapters) -> None:
        owner = await adapters.user()
        room = Chatroom(
            id=ChatroomId(adapters.ids.new()), user_id=owner.id, name="Zoë's 🌻", created_at=adapters.clock.now()
        )
        assert await adapters.chatrooms.add(room) == room

    async def test_one_room_made_many_times_at_once_is_one(self, adapters: Adapters) -> None:
        owner, room_id = await adapters.user(), ChatroomId(adapters.ids.new())
        rooms = [
            Chatroom(id=room_id, user_id=owner.id, name=str(n), created_at=adapters.clock.now()) for n in range(10)
        ]
        results = await adapters.race(*(adapters.chatrooms.add(room) for room in rooms), rows_of="users")
        assert await adapters.chatrooms.list_of(owner.id, limit=10) == results[:1]
        assert results == results[:1] * 10

    async def test_opens_with_the_newest_messages_in_pages(self, adapters: Adapters) -> None:
        user = await adapters.user()
        room, other = await adapters.room(user), await adapters.room(user)
        messages = [await adapters.queued(room, input=f"message {n}") for n in range(5)][::-1]
        await adapters.queued(other)
        open_room = adapters.chatrooms.open
        assert await open_room(room.id, user.id, limit=10) == (room, messages)
        assert await open_room(room.id, user.id, limit=2) == (room, messages[:2])
        assert await open_room(room.id, user.id, limit=2, before=messages[1].id) == (room, messages[2:4])
        assert await open_room(room.id, user.id, limit=2, before=messages[4].id) == (room, [])

    async def test_opens_an_empty_room(self, adapters: Adapters) -> None:
        room = await adapters.room(name="Ünï 🌻")
        assert await adapters.chatrooms.open(room.id, room.user_id, limit=10) == (room, [])

    async def test_a_room_of_another_is_as_absent_as_none(self, adapters: Adapters) -> None:
        room, stranger = await adapters.room(), await adapters.user()
        for chatroom_id, user_id in [(room.id, stranger.id), (ChatroomId(adapters.ids.new()), stranger.id)]:
            with pytest.raises(ChatroomNotFound):
                await adapters.chatrooms.open(chatroom_id, user_id, limit=10)


class TestAccept:
    async def test_stores_the_message_and_counts_it(self, adapters: Adapters) -> None:
        room = await adapters.room()
        message = adapters.new_message(room, input="Warum ist der Himmel blau? 🌻\n\t", max_output_tokens=77)
        assert await adapters.messages.accept(message, limits=SendingLimits(daily=5)) == Allowance(
            message.allowance_day, 1, 5
        )
        assert await adapters.stored(message) == message

    async def test_the_one_too_many_changes_nothing(self, adapters: Adapters) -> None:
        room = await adapters.room()
        messages = [adapters.new_message(room) for _ in range(3)]
        used = [
            (await adapters.messages.accept(message, limits=SendingLimits(daily=2))).used for message in messages[:2]
        ]
        with pytest.raises(QuotaExceeded) as caught:
            await adapters.messages.accept(messages[2], limits=SendingLimits(daily=2))
        assert caught.value.total == 2
        assert caught.value.resets_at.date() == messages[2].allowance_day + timedelta(days=1)
        assert used == [1, 2]
        assert await adapters.used(messages[0]) == 2
        with pytest.raises(MessageNotFound):
            await adapters.stored(messages[2])

    async def test_an_allowance_of_none_accepts_nothing(self, adapters: Adapters) -> None:
        message = adapters.new_message(await adapters.room())
        with pytest.raises(QuotaExceeded):
            await adapters.messages.accept(message, limits=SendingLimits(daily=0))
        assert await adapters.used(message) == 0

    async def test_the_unlimited_are_counted_all_the_same(self, adapters: Adapters) -> None:
        room = await adapters.room()
        for used in (1, 2, 3):
            message = adapters.new_message(room)
            allowance = await adapters.messages.accept(message, limits=SendingLimits())
            assert allowance == Allowance(message.allowance_day, used, None)
        with pytest.raises(QuotaExceeded):
            await adapters.messages.accept(adapters.new_message(room), limits=SendingLimits(daily=3))

    async def test_each_day_and_each_user_has_its_own(self, adapters: Adapters) -> None:
        ann, bob = await adapters.room(), await adapters.room()
        today, tomorrow = date(2026, 2, 28), date(2026, 3, 1)
        for room, day in [(ann, today), (ann, tomorrow), (bob, today)]:
            allowance = await adapters.messages.accept(
                adapters.new_message(room, allowance_day=day), limits=SendingLimits(daily=1)
            )
            assert allowance == Allowance(day, 1, 1)
        assert await adapters.messages.allowance(ann.user_id, day=tomorrow, total=1) == Allowance(tomorrow, 1, 1)
        assert await adapters.messages.allowance(bob.user_id, day=tomorrow, total=9) == Allowance(tomorrow, 0, 9)

    async def test_a_day_that_has_been_begun_is_the_one_that_counts(self, adapters: Adapters) -> None:
        """A clock that is a little behind: a message has been counted for tomorrow, and counts today too."""
        room, today, tomorrow = await adapters.room(), date(2026, 2, 28), date(2026, 3, 1)
        allowance = adapters.messages.allowance
        assert await allowance(room.user_id, day=today, total=5) == Allowance(today, 0, 5)
        await adapters.queued(room, allowance_day=tomorrow)
        assert await allowance(room.user_id, day=today, total=5) == Allowance(tomorrow, 1, 5)
        assert await allowance(room.user_id, day=tomorrow, total=5) == Allowance(tomorrow, 1, 5)
        later = date(2026, 3, 2)
        assert await allowance(room.user_id, day=later, total=None) == Allowance(later, 0, None)

    async def test_a_room_of_another_is_as_absent_as_none(self, adapters: Adapters) -> None:
        room, own = await adapters.room(), await adapters.room()
        for chatroom_id in (room.id, ChatroomId(adapters.ids.new())):
            message = adapters.new_message(own, chatroom_id=chatroom_id)
            for total in (0, 5, None):
                with pytest.raises(ChatroomNotFound):
                    await adapters.messages.accept(message, limits=SendingLimits(daily=total))
            assert await adapters.used(message) == 0

    @pytest.mark.parametrize("used_before", [0, 2])
    async def test_of_many_at_once_no_more_than_the_total(self, adapters: Adapters, used_before: int) -> None:
        room = await adapters.room()
        for _ in range(used_before):
            await adapters.queued(room)
        messages = [adapters.new_message(room) for _ in range(20)]
        calls = [adapters.messages.accept(message, limits=SendingLimits(daily=5)) for message in messages]
        gate = {"rows_of": "allowances"} if used_before else {"table": "allowances"}
        results = await adapters.race(*calls, **gate)
        accepted = [result for result in results if isinstance(result, Allowance)]
        assert sorted(allowance.used for allowance in accepted) == list(range(used_before + 1, 6))
        assert names(results)["QuotaExceeded"] == 15 + used_before
        assert await adapters.used(messages[0]) == 5
        _, stored = await adapters.chatrooms.open(room.id, room.user_id, limit=50)
        assert len(stored) == 5

    async def test_rolled_back_is_never_sent_and_never_counted(self, adapters: Adapters) -> None:
        room = await adapters.room()
        async with adapters.rolled_back():
            message = await adapters.queued(room)
        assert await adapters.used(message) == 0
        with pytest.raises(MessageNotFound):
            await adapters.stored(message)
        assert await adapters.messages.claim(message.id, lease=HOUR) is None

    async def test_is_got_only_in_its_room_and_by_its_owner(self, adapters: Adapters) -> None:
        message = await adapters.queued()
        own = await adapters.room()
        get, absent = adapters.messages.get, MessageId(adapters.ids.new())
        for asked in [
            (absent, message.chatroom_id, message.user_id),
            (message.id, own.id, message.user_id),
            (message.id, message.chatroom_id, own.user_id),
            (message.id, own.id, own.user_id),
        ]:
            with pytest.raises(MessageNotFound):
                await get(*asked)


class TestBefore:
    async def test_the_rooms_earlier_completed_ones_newest_first(self, adapters: Adapters) -> None:
        user = await adapters.user()
        room, other = await adapters.room(user), await adapters.room(user)
        completed: list[Message] = []
        for ending in (COMPLETED, FAILED, COMPLETED, BLOCKED, None, CANCELLED, COMPLETED):
            message = await adapters.claimed(room)
            if ending:
                assert await adapters.messages.finish(message.id, message.attempt, ending)
            if ending is COMPLETED:
                completed.insert(0, await adapters.stored(message))
        elsewhere = await adapters.claimed(other)
        await adapters.messages.finish(elsewhere.id, elsewhere.attempt, COMPLETED)
        message = await adapters.queued(room)
        later = await adapters.claimed(room)
        await adapters.messages.finish(later.id, later.attempt, COMPLETED)

        assert await adapters.messages.before(message, limit=10) == completed
        assert await adapters.messages.before(message, limit=2) == completed[:2]
        assert await adapters.messages.before(completed[0], limit=10) == completed[1:]
        assert await adapters.messages.before(completed[-1], limit=10) == []


class TestClaim:
    async def test_takes_it_for_one_attempt(self, adapters: Adapters) -> None:
        message = await adapters.queued()
        claimed = await adapters.messages.claim(message.id, lease=LEASE)
        assert claimed == replace(message, status=MessageStatus.GENERATING, attempt=1)
        assert await adapters.stored(message) == claimed
        assert await adapters.messages.claim(message.id, lease=LEASE) is None

    async def test_nothing_and_what_has_ended_cannot_be_claimed(self, adapters: Adapters) -> None:
        assert await adapters.messages.claim(MessageId(adapters.ids.new()), lease=LEASE) is None
        for outcome in (COMPLETED, FAILED, BLOCKED, CANCELLED):
            message = await adapters.claimed(lease=EXPIRED)
            await adapters.messages.finish(message.id, message.attempt, outcome)
            assert await adapters.messages.claim(message.id, lease=LEASE) is None

    async def test_an_expired_lease_counts_a_death(self, adapters: Adapters) -> None:
        message = await adapters.claimed(lease=LEASE)
        await adapters.wait(9)
        assert await adapters.messages.claim(message.id, lease=LEASE) is None
        await adapters.wait(2)
        again = await adapters.messages.claim(message.id, lease=EXPIRED)
        once_more = await adapters.messages.claim(message.id, lease=LEASE, alone=True)
        assert again is not None
        assert once_more is not None
        assert (again.attempt, again.deaths, again.failures) == (2, 1, 0)
        assert (once_more.attempt, once_more.deaths, once_more.failures) == (3, 2, 0)

    @pytest.mark.parametrize("lease", [None, EXPIRED])
    async def test_of_many_at_once_one_gets_it(self, adapters: Adapters, lease: timedelta | None) -> None:
        message = await adapters.claimed(lease=lease) if lease else await adapters.queued()
        calls = [adapters.messages.claim(message.id, lease=HOUR) for _ in range(20)]
        results = await adapters.race(*calls, rows_of="messages")
        assert names(results) == {"Message": 1, "NoneType": 19}
        stored = await adapters.stored(message)
        assert stored in results
        assert (stored.attempt, stored.deaths) == (message.attempt + 1, 1 if lease else 0)

    async def test_what_the_next_death_would_end_is_claimed_alone(self, adapters: Adapters) -> None:
        message = await adapters.claimed(lease=EXPIRED)
        assert await adapters.messages.claim(message.id, lease=EXPIRED), "one death is nothing yet"
        assert await adapters.messages.claim(message.id, lease=HOUR) is None
        suspect = await adapters.messages.claim(message.id, lease=HOUR, alone=True)
        assert suspect == replace(message, attempt=3, deaths=2)
        assert await adapters.messages.claim(message.id, lease=HOUR, alone=True) is None, "it is held"
        # Handed back, it is as suspect as before, and still rung for.
        await adapters.wait(1)
        await adapters.messages.release(message.id, 3)
        assert await adapters.messages.take_unrung(limit=5, quiet=HOUR) == [message.id]
        assert await adapters.messages.claim(message.id, lease=HOUR) is None
        again = await adapters.messages.claim(message.id, lease=HOUR, alone=True)
        assert again is not None
        assert (again.attempt, again.deaths) == (4, 2)

    async def test_a_suspect_is_what_can_be_claimed_but_only_alone(self, adapters: Adapters) -> None:
        is_suspect, claim = adapters.messages.is_suspect, adapters.messages.claim
        assert not await is_suspect(MessageId(adapters.ids.new()))
        message = await adapters.queued()
        assert not await is_suspect(message.id), "queued and sound"
        await claim(message.id, lease=LEASE)
        await adapters.wait(11)
        assert not await is_suspect(message.id), "one death is nothing yet"
        await claim(message.id, lease=LEASE)
        assert not await is_suspect(message.id), "held"
        await adapters.wait(11)
        assert await is_suspect(message.id), "left by a second worker"
        assert await claim(message.id, lease=LEASE) is None
        assert await claim(message.id, lease=LEASE, alone=True)
        assert not await is_suspect(message.id), "held"
        await adapters.messages.release(message.id, 3, delay=LEASE)
        assert not await is_suspect(message.id), "not due"
        await adapters.wait(11)
        assert await is_suspect(message.id), "queued"
        await claim(message.id, lease=EXPIRED, alone=True)
        assert await is_suspect(message.id), "left by a third"
        await claim(message.id, lease=LEASE, alone=True)
        await adapters.messages.finish(message.id, 5, FAILED)
        assert not await is_suspect(message.id), "ended"

    async def test_alone_takes_what_is_not_suspect_too(self, adapters: Adapters) -> None:
        message = await adapters.queued()
        claimed = await adapters.messages.claim(message.id, lease=HOUR, alone=True)
        assert claimed == replace(message, status=MessageStatus.GENERATING, attempt=1)

    async def test_of_many_at_once_one_gets_the_suspect(self, adapters: Adapters) -> None:
        message = await adapters.claimed(lease=EXPIRED)
        await adapters.messages.claim(message.id, lease=EXPIRED)
        calls = [adapters.messages.claim(message.id, lease=HOUR, alone=True) for _ in range(20)]
        results = await adapters.race(*calls, rows_of="messages")
        assert names(results) == {"Message": 1, "NoneType": 19}

    async def test_a_rolled_back_claim_is_none(self, adapters: Adapters) -> None:
        message = await adapters.queued()
        async with adapters.rolled_back():
            assert await adapters.messages.claim(message.id, lease=HOUR)
        assert await adapters.stored(message) == message
        assert await adapters.messages.claim(message.id, lease=HOUR)


class TestExtend:
    async def test_keeps_what_is_held(self, adapters: Adapters) -> None:
        room = await adapters.room()
        held = [await adapters.claimed(room, LEASE) for _ in range(3)]
        for _ in range(3):
            await adapters.wait(9)
            kept = await adapters.messages.extend([(message.id, 1) for message in held], lease=LEASE)
            assert kept == {message.id for message in held}
        assert [await adapters.messages.claim(message.id, lease=LEASE) for message in held] == [None] * 3

    async def test_tells_what_is_not_held_any_more(self, adapters: Adapters) -> None:
        room = await adapters.room()
        held, finished, requeued, taken_over = [await adapters.claimed(room, EXPIRED) for _ in range(4)]
        queued = await adapters.queued(room)
        await adapters.messages.finish(finished.id, 1, COMPLETED)
        await adapters.messages.release(requeued.id, 1)
        await adapters.messages.claim(taken_over.id, lease=EXPIRED)
        asked = [(message.id, 1) for message in (held, finished, requeued, taken_over, queued)]
        asked += [(MessageId(adapters.ids.new()), 1), (queued.id, 0)]
        # One that has expired is still ours as long as nobody has taken it.
        assert await adapters.messages.extend(asked, lease=HOUR) == {held.id}
        again = await adapters.messages.claim(taken_over.id, lease=HOUR, alone=True)
        assert again, "an old attempt has extended the new one's"

    async def test_of_nothing_is_nothing(self, adapters: Adapters) -> None:
        assert await adapters.messages.extend([], lease=HOUR) == set()

    async def test_and_claims_at_once_never_both(self, adapters: Adapters) -> None:
        """Either the lease was extended in time, or one of the others has the message."""
        message = await adapters.claimed(lease=EXPIRED)
        extended, *claims = await adapters.race(
            adapters.messages.extend([(message.id, 1)], lease=HOUR),
            *(adapters.messages.claim(message.id, lease=HOUR) for _ in range(19)),
            rows_of="messages",
        )
        claimed = [claim for claim in claims if isinstance(claim, Message)]
        assert len(claimed) == (0 if extended else 1)

    async def test_a_rolled_back_extension_is_none(self, adapters: Adapters) -> None:
        message = await adapters.claimed(lease=EXPIRED)
        async with adapters.rolled_back():
            await adapters.messages.extend([(message.id, 1)], lease=HOUR)
        assert await adapters.messages.claim(message.id, lease=HOUR)


class TestFinish:
    @pytest.mark.parametrize(
        "outcome",
        [
            Outcome(
                status=MessageStatus.COMPLETED,
                response="Rayleigh 🌻",
                finish_reason="STOP",
                input_tokens=7,
                output_tokens=9,
            ),
            FAILED,
            BLOCKED,
            CANCELLED,
        ],
        ids=lambda outcome: str(outcome.status),
    )
    async def test_stores_how_it_ended(self, adapters: Adapters, outcome: Outcome) -> None:
        message = await adapters.claimed()
        assert await adapters.messages.finish(message.id, 1, outcome)
        stored = await adapters.stored(message)
        assert stored.completed_at is not None
        assert stored.completed_at.tzinfo is not None
        assert stored.completed_at.microsecond % 1000 == 0
        assert stored == replace(
            message,
            status=outcome.status,
            response=outcome.response,
            finish_reason=outcome.finish_reason,
            input_tokens=outcome.input_tokens,
            output_tokens=outcome.output_tokens,
            error_code=outcome.error_code,
            error_detail=outcome.error_detail,
            completed_at=stored.completed_at,
            charged=outcome is not FAILED,
        )

    @pytest.mark.parametrize(("outcome", "used"), [(COMPLETED, 2), (FAILED, 1), (BLOCKED, 2), (CANCELLED, 2)], ids=str)
    async def test_only_a_failed_one_gives_its_allowance_back(
        self, adapters: Adapters, outcome: Outcome, used: int
    ) -> None:
        room = await adapters.room()
        await adapters.queued(room)
        message = await adapters.claimed(room)
        for finished in (True, False, False):
            assert await adapters.messages.finish(message.id, 1, outcome) is finished
            assert await adapters.used(message) == used

    async def test_the_refund_goes_to_the_day_that_paid(self, adapters: Adapters) -> None:
        room = await adapters.room()
        yesterday = (adapters.clock.now() - timedelta(days=1)).date()
        old = [await adapters.queued(room, allowance_day=yesterday) for _ in range(2)]
        await adapters.messages.claim(old[0].id, lease=HOUR)
        await adapters.messages.finish(old[0].id, 1, FAILED)
        assert await adapters.used(old[1]) == 1
        today = await adapters.queued(room)
        await adapters.messages.claim(old[1].id, lease=HOUR)
        await adapters.messages.finish(old[1].id, 1, FAILED)
        assert await adapters.used(today) == 1
        assert not (await adapters.stored(old[1])).charged

    async def test_of_many_at_once_one_ends_it_and_refunds_once(self, adapters: Adapters) -> None:
        room = await adapters.room()
        await adapters.queued(room)
        message = await adapters.claimed(room)
        calls = [adapters.messages.finish(message.id, 1, FAILED) for _ in range(20)]
        assert Counter(await adapters.race(*calls, rows_of="messages")) == {True: 1, False: 19}
        assert await adapters.used(message) == 1

    async def test_refunds_and_new_messages_at_once_are_all_counted(self, adapters: Adapters) -> None:
        room = await adapters.room()
        failing = [await adapters.claimed(room) for _ in range(10)]
        new = [adapters.new_message(room) for _ in range(10)]
        results = await adapters.race(
            *(adapters.messages.finish(message.id, 1, FAILED) for message in failing),
            *(adapters.messages.accept(message, limits=SendingLimits()) for message in new),
            rows_of="allowances",
        )
        assert names(results) == {"bool": 10, "Allowance": 10}
        assert await adapters.used(new[0]) == 10

    async def test_a_rolled_back_end_neither_ends_nor_refunds(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        async with adapters.rolled_back():
            assert await adapters.messages.finish(message.id, 1, FAILED)
        assert await adapters.stored(message) == message
        assert await adapters.used(message) == 1


class TestFencing:
    async def test_an_old_attempt_writes_nothing(self, adapters: Adapters) -> None:
        old = await adapters.claimed(lease=EXPIRED)
        new = await adapters.messages.claim(old.id, lease=HOUR)
        assert new is not None
        for attempt in (0, 1, 3, -1):
            assert not await adapters.messages.finish(old.id, attempt, FAILED)
            assert not await adapters.messages.retry(old.id, attempt, delay=timedelta())
            assert not await adapters.messages.release(old.id, attempt)
            assert await adapters.messages.extend([(old.id, attempt)], lease=EXPIRED) == set()
        assert await adapters.stored(old) == new
        assert await adapters.used(old) == 1
        assert await adapters.messages.claim(old.id, lease=HOUR) is None

    async def test_what_is_not_being_answered_cannot_be_ended(self, adapters: Adapters) -> None:
        room = await adapters.room()
        queued, finished = await adapters.queued(room), await adapters.claimed(room)
        await adapters.messages.finish(finished.id, 1, COMPLETED)
        ended = await adapters.stored(finished)
        for message, attempt in ((queued, 0), (finished, 1)):
            assert not await adapters.messages.finish(message.id, attempt, FAILED)
            assert not await adapters.messages.retry(message.id, attempt, delay=timedelta())
            assert not await adapters.messages.release(message.id, attempt)
        assert (await adapters.stored(queued), await adapters.stored(finished)) == (queued, ended)
        assert not await adapters.messages.finish(MessageId(adapters.ids.new()), 1, FAILED)

    async def test_of_many_different_ends_at_once_one_holds(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        verbs = adapters.messages
        calls = [verbs.finish(message.id, 1, FAILED) for _ in range(7)]
        calls += [verbs.finish(message.id, 1, COMPLETED) for _ in range(7)]
        calls += [verbs.retry(message.id, 1, delay=timedelta()) for _ in range(3)]
        calls += [verbs.release(message.id, 1) for _ in range(3)]
        results = await adapters.race(*calls, rows_of="messages")
        assert Counter(results) == {True: 1, False: 19}
        winner = results.index(True)
        stored = await adapters.stored(message)
        expected = (MessageStatus.FAILED, MessageStatus.COMPLETED, MessageStatus.QUEUED, MessageStatus.QUEUED)
        assert stored.status == expected[sum(winner >= start for start in (7, 14, 17))]
        assert stored.failures == (1 if 14 <= winner < 17 else 0)
        assert await adapters.used(message) == (0 if stored.status is MessageStatus.FAILED else 1)


class TestRetryAndRelease:
    async def test_a_retry_counts_a_failure_and_is_due_later(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        assert await adapters.messages.retry(message.id, 1, delay=timedelta(seconds=5))
        assert await adapters.stored(message) == replace(message, status=MessageStatus.QUEUED, failures=1)
        await adapters.wait(4)
        assert await adapters.messages.claim(message.id, lease=HOUR) is None
        await adapters.wait(2)
        again = await adapters.messages.claim(message.id, lease=HOUR)
        assert again is not None
        assert (again.attempt, again.failures, again.deaths) == (2, 1, 0)

    async def test_a_release_counts_nothing_and_is_due_at_once(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        assert await adapters.messages.release(message.id, 1)
        assert await adapters.stored(message) == replace(message, status=MessageStatus.QUEUED)
        assert await adapters.messages.claim(message.id, lease=HOUR) == replace(message, attempt=2)

    async def test_a_release_may_be_due_later(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        assert await adapters.messages.release(message.id, 1, delay=timedelta(seconds=5))
        assert await adapters.stored(message) == replace(message, status=MessageStatus.QUEUED)
        await adapters.wait(4)
        assert await adapters.messages.claim(message.id, lease=HOUR) is None
        assert await adapters.messages.take_unrung(limit=5, quiet=HOUR) == []
        await adapters.wait(2)
        assert await adapters.messages.take_unrung(limit=5, quiet=HOUR) == [message.id]
        assert await adapters.messages.claim(message.id, lease=HOUR)

    async def test_rolled_back_they_leave_it_held(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        for verb in ("retry", "release"):
            async with adapters.rolled_back():
                if verb == "retry":
                    assert await adapters.messages.retry(message.id, 1, delay=timedelta())
                else:
                    assert await adapters.messages.release(message.id, 1)
            assert await adapters.stored(message) == message
        assert await adapters.messages.claim(message.id, lease=HOUR) is None


class TestTakeUnrung:
    async def take(self, adapters: Adapters, limit: int = 100, quiet: timedelta = QUIET) -> list[MessageId]:
        return await adapters.messages.take_unrung(limit=limit, quiet=quiet)

    async def test_what_was_just_sent_is_not_rung_for_again(self, adapters: Adapters) -> None:
        await adapters.queued()
        assert await self.take(adapters) == []

    async def test_nobody_came(self, adapters: Adapters) -> None:
        message = await adapters.queued()
        await adapters.wait(9)
        assert await self.take(adapters) == []
        await adapters.wait(2)
        assert await self.take(adapters) == [message.id]
        assert await self.take(adapters) == []

    async def test_the_longer_the_wait_the_rarer_the_bell(self, adapters: Adapters) -> None:
        await adapters.queued()
        rung = []
        for second in range(200):
            if await self.take(adapters):
                rung.append(second)
            await adapters.wait(1)
        pauses = [later - earlier for earlier, later in zip([0, *rung], rung, strict=False)]
        assert pauses[:6] == pytest.approx([10, 10, 20, 30, 30, 30], abs=2)

    async def test_a_retry_is_rung_for_once_it_is_due(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        await adapters.messages.retry(message.id, 1, delay=timedelta(seconds=5))
        await adapters.wait(4)
        assert await self.take(adapters) == []
        await adapters.wait(2)
        assert await self.take(adapters, quiet=HOUR) == [message.id]
        assert await self.take(adapters, quiet=HOUR) == []

    async def test_what_has_ended_is_left_alone(self, adapters: Adapters) -> None:
        room = await adapters.room()
        for outcome in (COMPLETED, FAILED, BLOCKED, CANCELLED):
            message = await adapters.claimed(room)
            await adapters.messages.finish(message.id, 1, outcome)
        await adapters.claimed(room)
        await adapters.wait(60)
        assert await self.take(adapters, quiet=EXPIRED) == []

    async def test_oldest_first_and_no_more_than_asked_for(self, adapters: Adapters) -> None:
        room = await adapters.room()
        ids = []
        for _ in range(7):
            ids.append((await adapters.queued(room)).id)
            await adapters.wait(1)
        await adapters.wait(60)
        taken = [await self.take(adapters, limit=3) for _ in range(4)]
        assert taken == [ids[:3], ids[3:6], ids[6:], []]

    async def test_many_at_once_get_different_ones(self, adapters: Adapters) -> None:
        room = await adapters.room()
        ids = {(await adapters.queued(room)).id for _ in range(50)}
        await adapters.wait(60)
        results = await adapters.race(*(self.take(adapters, limit=3) for _ in range(20)), table="messages")
        taken = [message_id for result in results if isinstance(result, list) for message_id in result]
        assert len(taken) == len(set(taken))
        assert all(isinstance(result, list) and len(result) <= 3 for result in results)
        taken += await self.take(adapters)
        assert len(taken) == 50
        assert set(taken) == ids

    async def test_waits_for_nobody(self, real: InPostgresAndRedis) -> None:
        room = await real.room()
        locked, free = await real.queued(room), await real.queued(room)
        await real.wait(60)
        somebody = await asyncpg.connect(real.database_url)
        try:
            async with somebody.transaction():
                await somebody.execute("SELECT FROM messages WHERE id = $1 FOR UPDATE", locked.id)
                assert await self.take(real) == [free.id]
        finally:
            await somebody.close()
        assert await self.take(real) == [locked.id]

    async def test_a_rolled_back_take_leaves_them_unrung(self, adapters: Adapters) -> None:
        message = await adapters.queued()
        await adapters.wait(60)
        async with adapters.rolled_back():
            assert await self.take(adapters) == [message.id]
        assert await self.take(adapters) == [message.id]


class TestTakeAbandoned:
    async def take(self, adapters: Adapters, limit: int = 100, quiet: timedelta = QUIET) -> list[MessageId]:
        return await adapters.messages.take_abandoned(limit=limit, quiet=quiet)

    async def test_an_expired_lease_is_found_again_and_again(self, adapters: Adapters) -> None:
        message = await adapters.claimed(lease=LEASE)
        await adapters.wait(9)
        assert await self.take(adapters) == []
        await adapters.wait(2)
        assert await self.take(adapters, quiet=HOUR) == [message.id]
        assert await self.take(adapters) == []
        await adapters.wait(11)
        assert await self.take(adapters) == [message.id]
        assert await adapters.messages.take_unrung(limit=9, quiet=QUIET) == []

    async def test_what_is_queued_or_has_ended_is_left_alone(self, adapters: Adapters) -> None:
        room = await adapters.room()
        await adapters.queued(room)
        ended = await adapters.claimed(room, lease=EXPIRED)
        await adapters.messages.finish(ended.id, 1, COMPLETED)
        await adapters.wait(60)
        assert await self.take(adapters, quiet=EXPIRED) == []

    async def test_many_at_once_get_different_ones(self, adapters: Adapters) -> None:
        room = await adapters.room()
        ids = {(await adapters.claimed(room, lease=LEASE)).id for _ in range(30)}
        await adapters.wait(60)
        results = await adapters.race(*(self.take(adapters, limit=2) for _ in range(20)), table="messages")
        taken = [message_id for result in results if isinstance(result, list) for message_id in result]
        assert len(taken) == len(set(taken))
        taken += await self.take(adapters)
        assert len(taken) == 30
        assert set(taken) == ids

    async def test_a_rolled_back_take_leaves_it_abandoned(self, adapters: Adapters) -> None:
        message = await adapters.claimed(lease=LEASE)
        await adapters.wait(11)
        async with adapters.rolled_back():
            assert await self.take(adapters) == [message.id]
        assert await self.take(adapters) == [message.id]


class TestChatroomLists:
    def rooms(self, adapters: Adapters, count: int) -> list[Chatroom]:
        user = adapters.new_user()
        return [
            Chatroom(
                id=ChatroomId(adapters.ids.new()),
                user_id=user.id,
                name=f'"ünï" 🌻 {n}',
                created_at=datetime(2026, 1, 1, 23, 59, 59, 999_000, tzinfo=UTC),
            )
            for n in range(count)
        ]

    @pytest.mark.parametrize("count", [0, 1, 51])
    async def test_gives_back_what_was_put(self, adapters: Adapters, count: int) -> None:
        user, rooms = adapters.new_user(), self.rooms(adapters, count)
        assert await adapters.lists.get(user.id, 3) is None
        await adapters.lists.put(user.id, 3, rooms)
        assert await adapters.lists.get(user.id, 3) == rooms

    async def test_every_part_of_the_key_counts(self, adapters: Adapters) -> None:
        [room], user = self.rooms(adapters, 1), adapters.new_user()
        await adapters.lists.put(user.id, 3, [room])
        assert await adapters.lists.get(user.id, 4) is None
        assert await adapters.lists.get(user.id, 2) is None
        assert await adapters.lists.get(adapters.new_user().id, 3) is None
        assert await adapters.lists.get(user.id, 3) == [room]

    async def test_the_last_put_counts(self, adapters: Adapters) -> None:
        user, rooms = adapters.new_user(), self.rooms(adapters, 2)
        for put in (rooms[:1], rooms, []):
            await adapters.lists.put(user.id, 0, put)
            assert await adapters.lists.get(user.id, 0) == put

    @pytest.mark.parametrize("value", [b"", b"garbage", b"{}", b'[{"id": 1}]', b"\xff"])
    async def test_what_has_another_shape_is_absent(
        self, real: InPostgresAndRedis, container: Container, value: bytes
    ) -> None:
        """As another version of the service may have left it."""
        user, rooms = real.new_user(), self.rooms(real, 2)
        await real.lists.put(user.id, 3, rooms)
        redis = container.redis().client
        [key] = [key async for key in redis.scan_iter(f"*{user.id}*")]
        await redis.set(key, value)
        assert await real.lists.get(user.id, 3) is None
        await real.lists.put(user.id, 3, rooms)
        assert await real.lists.get(user.id, 3) == rooms

    async def test_expires_by_itself(self, real: InPostgresAndRedis, container: Container) -> None:
        user = real.new_user()
        await real.lists.put(user.id, 3, [])
        [key] = [key async for key in container.redis().client.scan_iter(f"*{user.id}*")]
        assert 0 < await container.redis().client.ttl(key) <= 600

    async def test_away_it_says_so_soon(self) -> None:
        redis = RedisConnection(f"redis://127.0.0.1:{free_port()}", command_seconds=0.5)
        lists, ids = RedisChatroomLists(redis, namespace="test"), TimeOrderedIds()
        async with asyncio.timeout(5):
            with pytest.raises(RedisUnavailable):
                await lists.get(UserId(ids.new()), 0)
            with pytest.raises(RedisUnavailable):
                await lists.put(UserId(ids.new()), 0, [])
        await redis.close()
