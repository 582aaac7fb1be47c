"""What Messages promises of a message on its way: accepted, ended, put back."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta

import pytest

from domain.billing import Allowance, SendingLimits
from domain.chat.conversation import Context
from domain.chat.messages import Message, MessageStatus, Outcome
from domain.errors import (
    ChatroomNotFound,
    MessageNotFound,
    QuotaExceeded,
)
from domain.ids import ChatroomId, MessageId
from tests.contracts.conftest import BLOCKED, CANCELLED, COMPLETED, FAILED, HOUR, Adapters, exchanges, names

LEASE = timedelta(seconds=10)
EXPIRED = timedelta(seconds=-1)
QUIET = timedelta(seconds=10)


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
        _, stored = await adapters.chatrooms.get_with_messages(room.id, room.user_id, limit=50)
        assert len(stored) == 5

    async def test_rolled_back_is_never_sent_and_never_counted(self, adapters: Adapters) -> None:
        room = await adapters.room()
        async with adapters.rolled_back():
            message = await adapters.queued(room)
        assert await adapters.used(message) == 0
        with pytest.raises(MessageNotFound):
            await adapters.stored(message)
        assert await adapters.workers.claim(message.id, lease=HOUR) is None

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


class TestContext:
    async def test_is_the_rooms_earlier_completed_ones_newest_first(self, adapters: Adapters) -> None:
        user = await adapters.user()
        room, other = await adapters.room(user), await adapters.room(user)
        completed: list[Message] = []
        for ending in (COMPLETED, FAILED, COMPLETED, BLOCKED, None, CANCELLED, COMPLETED):
            message = await adapters.claimed(room)
            if ending:
                assert await adapters.finish(message, ending, attempt=message.attempt)
            if ending is COMPLETED:
                completed.insert(0, await adapters.stored(message))
        elsewhere = await adapters.claimed(other)
        await adapters.finish(elsewhere, COMPLETED, attempt=elsewhere.attempt)
        message = await adapters.queued(room)
        later = await adapters.claimed(room)
        await adapters.finish(later, COMPLETED, attempt=later.attempt)

        assert (await adapters.messages.context(message, limit=10)).earlier == exchanges(*completed)
        assert (await adapters.messages.context(message, limit=2)).earlier == exchanges(*completed[:2])
        assert (await adapters.messages.context(completed[0], limit=10)).earlier == exchanges(*completed[1:])
        assert (await adapters.messages.context(completed[-1], limit=10)).earlier == []

    @pytest.mark.parametrize("earlier", [0, 2])
    async def test_has_what_the_room_is_set_to(self, adapters: Adapters, earlier: int) -> None:
        room = await adapters.room(instructions="Rhyme 🌻.", auto_title=True)
        completed = [await adapters.ended(room) for _ in range(earlier)][::-1]
        message = await adapters.queued(room)
        assert await adapters.messages.context(message, limit=10) == Context(exchanges(*completed), "Rhyme 🌻.", True)
        await adapters.chatrooms.change(room.id, room.user_id, name="Poems", instructions="")
        assert await adapters.messages.context(message, limit=10) == Context(exchanges(*completed))

    async def test_of_one_asked_again_is_what_came_before_it(self, adapters: Adapters) -> None:
        room = await adapters.room()
        first, second, third = [await adapters.ended(room) for _ in range(3)]
        assert (await adapters.messages.context(second, limit=10)).earlier == exchanges(first)
        assert (await adapters.messages.context(third, limit=10)).earlier == exchanges(second, first)

    async def test_says_where_each_ones_window_began(self, adapters: Adapters) -> None:
        room = await adapters.room()
        first = await adapters.ended(room)
        second = await adapters.ended(room, replace(COMPLETED, window_from=first.id))
        message = await adapters.queued(room)
        assert [past.window_from for past in (await adapters.messages.context(message, limit=10)).earlier] == [
            first.id,
            None,
        ]
        anew = adapters.anew(second)
        await adapters.messages.regenerate(anew, limits=SendingLimits())
        adapters.unseen[room.user_id] += 1
        await adapters.workers.claim(anew.id, lease=HOUR)
        await adapters.finish(anew, replace(COMPLETED, window_from=second.id), attempt=2)
        assert (await adapters.messages.context(message, limit=1)).earlier[0].window_from == second.id


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
        assert await adapters.finish(message, outcome)
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
            assert await adapters.finish(message, outcome) is finished
            assert await adapters.used(message) == used

    async def test_the_refund_goes_to_the_day_that_paid(self, adapters: Adapters) -> None:
        room = await adapters.room()
        yesterday = (adapters.clock.now() - timedelta(days=1)).date()
        old = [await adapters.queued(room, allowance_day=yesterday) for _ in range(2)]
        await adapters.workers.claim(old[0].id, lease=HOUR)
        await adapters.finish(old[0], FAILED)
        assert await adapters.used(old[1]) == 1
        today = await adapters.queued(room)
        await adapters.workers.claim(old[1].id, lease=HOUR)
        await adapters.finish(old[1], FAILED)
        assert await adapters.used(today) == 1
        assert not (await adapters.stored(old[1])).charged

    async def test_of_many_at_once_one_ends_it_and_refunds_once(self, adapters: Adapters) -> None:
        room = await adapters.room()
        await adapters.queued(room)
        message = await adapters.claimed(room)
        calls = [adapters.finish(message, FAILED) for _ in range(20)]
        assert Counter(await adapters.race(*calls, rows_of="queue_entries")) == {True: 1, False: 19}
        assert await adapters.used(message) == 1

    async def test_refunds_and_new_messages_at_once_are_all_counted(self, adapters: Adapters) -> None:
        room = await adapters.room()
        failing = [await adapters.claimed(room) for _ in range(10)]
        new = [adapters.new_message(room) for _ in range(10)]
        results = await adapters.race(
            *(adapters.finish(message, FAILED) for message in failing),
            *(adapters.messages.accept(message, limits=SendingLimits()) for message in new),
            rows_of="allowances",
        )
        assert names(results) == {"bool": 10, "Allowance": 10}
        assert await adapters.used(new[0]) == 10

    async def test_a_rolled_back_end_neither_ends_nor_refunds(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        async with adapters.rolled_back():
            assert await adapters.finish(message, FAILED)
        assert await adapters.stored(message) == message
        assert await adapters.used(message) == 1


class TestFencing:
    async def test_an_old_attempt_writes_nothing(self, adapters: Adapters) -> None:
        old = await adapters.claimed(lease=EXPIRED)
        new = await adapters.workers.claim(old.id, lease=HOUR)
        assert new is not None
        for attempt in (0, 1, 3, -1):
            assert not await adapters.finish(old, FAILED, attempt=attempt)
            assert not await adapters.messages.retry(old.id, attempt, delay=timedelta())
            assert not await adapters.messages.release(old.id, attempt)
            assert await adapters.workers.extend([(old.id, attempt)], lease=EXPIRED) == set()
        assert await adapters.stored(old) == new
        assert await adapters.used(old) == 1
        assert await adapters.workers.claim(old.id, lease=HOUR) is None

    async def test_what_is_not_being_answered_cannot_be_ended(self, adapters: Adapters) -> None:
        room = await adapters.room()
        queued, finished = await adapters.queued(room), await adapters.claimed(room)
        await adapters.finish(finished, COMPLETED)
        ended = await adapters.stored(finished)
        for message, attempt in ((queued, 0), (finished, 1)):
            assert not await adapters.finish(message, FAILED, attempt=attempt)
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
        results = await adapters.race(*calls, rows_of="queue_entries")
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
        assert await adapters.workers.claim(message.id, lease=HOUR) is None
        await adapters.wait(2)
        again = await adapters.workers.claim(message.id, lease=HOUR)
        assert again is not None
        assert (again.attempt, again.failures, again.deaths) == (2, 1, 0)

    async def test_a_release_counts_nothing_and_is_due_at_once(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        assert await adapters.messages.release(message.id, 1)
        assert await adapters.stored(message) == replace(message, status=MessageStatus.QUEUED)
        assert await adapters.workers.claim(message.id, lease=HOUR) == replace(message, attempt=2)

    async def test_a_release_may_be_due_later(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        assert await adapters.messages.release(message.id, 1, delay=timedelta(seconds=5))
        assert await adapters.stored(message) == replace(message, status=MessageStatus.QUEUED)
        await adapters.wait(4)
        assert await adapters.workers.claim(message.id, lease=HOUR) is None
        assert await adapters.messages.take_unnotified(limit=5, notified_before=HOUR) == []
        await adapters.wait(2)
        assert await adapters.messages.take_unnotified(limit=5, notified_before=HOUR) == [message.id]
        assert await adapters.workers.claim(message.id, lease=HOUR)

    async def test_rolled_back_they_leave_it_held(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        for verb in ("retry", "release"):
            async with adapters.rolled_back():
                if verb == "retry":
                    assert await adapters.messages.retry(message.id, 1, delay=timedelta())
                else:
                    assert await adapters.messages.release(message.id, 1)
            assert await adapters.stored(message) == message
        assert await adapters.workers.claim(message.id, lease=HOUR) is None
