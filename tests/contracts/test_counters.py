"""What Messages promises of a user's counters: the limits of sending, refunds, and messages queued again."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from domain.billing import Allowance, SendingLimits
from domain.chat.chatrooms import Chatroom
from domain.chat.messages import Message, MessageStatus, Outcome
from domain.errors import QuotaExceeded, SendingTooFast, TooManyInFlight
from domain.ids import MessageId
from tests.contracts.conftest import BLOCKED, CANCELLED, COMPLETED, FAILED, HOUR, Adapters, InPostgresAndRedis, names
from tests.support.patience import HANG

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


async def accept(adapters: Adapters, room: Chatroom, after: timedelta = timedelta(), **limits: int) -> Allowance:
    """A new message, stamped so much later than now."""
    at = adapters.clock.now() + after
    message = adapters.new_message(room, created_at=at, queued_at=at, allowance_day=at.date())
    return await adapters.messages.accept(message, limits=SendingLimits(**limits))


async def counters(adapters: Adapters, room: Chatroom) -> tuple[int, int]:
    """Used of the latest day, and in flight, by the counters; they must be what the messages say."""
    await adapters.check_counters()
    _, used, in_flight = (await adapters.counters())[room.user_id]
    return used, in_flight


async def failed(adapters: Adapters, room: Chatroom | None = None) -> Message:
    message = await adapters.claimed(room)
    assert await adapters.finish(message, FAILED, attempt=message.attempt)
    return await adapters.stored(message)


class TestDay:
    async def test_never_goes_back(self, adapters: Adapters) -> None:
        """A message stamped just before midnight by one machine comes after one stamped just after it by another."""
        room, now = await adapters.room(), adapters.clock.now()
        await accept(adapters, room, daily=3)
        late = adapters.new_message(room, created_at=now - DAY, allowance_day=(now - DAY).date())
        assert await adapters.messages.accept(late, limits=SendingLimits(daily=3)) == Allowance(now.date(), 2, 3)
        assert (await adapters.stored(late)).allowance_day == now.date()
        await accept(adapters, room, daily=3)
        with pytest.raises(QuotaExceeded) as caught:
            await accept(adapters, room, -DAY, daily=3)
        assert caught.value.resets_at.date() == (now + DAY).date()
        assert await counters(adapters, room) == (3, 3)

    async def test_turns_only_what_is_counted_by_the_day(self, adapters: Adapters) -> None:
        room = await adapters.room()
        for _ in range(2):
            await accept(adapters, room, -DAY)
        assert await accept(adapters, room, daily=1) == Allowance(adapters.clock.now().date(), 1, 1)
        assert await counters(adapters, room) == (1, 3)

    async def test_turned_by_many_at_once_is_turned_once(self, adapters: Adapters) -> None:
        room = await adapters.room()
        for _ in range(3):
            await accept(adapters, room, -DAY)
        results = await adapters.race(*(accept(adapters, room, daily=5) for _ in range(20)), rows_of="allowances")
        assert names(results) == {"Allowance": 5, "QuotaExceeded": 15}
        assert await counters(adapters, room) == (5, 8)


class TestInFlight:
    async def test_so_many_and_no_more(self, adapters: Adapters) -> None:
        room, other = await adapters.room(), await adapters.room()
        for _ in range(3):
            await accept(adapters, room, in_flight=3)
        with pytest.raises(TooManyInFlight) as caught:
            await accept(adapters, room, in_flight=3)
        assert caught.value.retry_after > 0
        assert "3" in caught.value.detail
        assert await counters(adapters, room) == (3, 3)
        await accept(adapters, other, in_flight=3)

    @pytest.mark.parametrize("outcome", [COMPLETED, FAILED, BLOCKED, CANCELLED], ids=lambda o: str(o.status))
    async def test_every_ending_frees_one_place_once(self, adapters: Adapters, outcome: Outcome) -> None:
        room = await adapters.room()
        await adapters.queued(room)
        message = await adapters.claimed(room)
        for finished in (True, False):
            assert await adapters.finish(message, outcome) is finished
            assert (await counters(adapters, room))[1] == 1
        await accept(adapters, room, in_flight=2)
        with pytest.raises(TooManyInFlight):
            await accept(adapters, room, in_flight=2)

    async def test_what_goes_back_to_the_queue_stays_in_flight(self, adapters: Adapters) -> None:
        room = await adapters.room()
        message = await adapters.claimed(room)
        await adapters.messages.retry(message.id, 1, delay=timedelta())
        await adapters.workers.claim(message.id, lease=-SECOND)
        await adapters.workers.claim(message.id, lease=HOUR)
        await adapters.messages.release(message.id, 3)
        assert await counters(adapters, room) == (1, 1)

    @pytest.mark.parametrize("before", [0, 1])
    async def test_of_many_at_once_no_more_than_the_limit(self, adapters: Adapters, before: int) -> None:
        room = await adapters.room()
        for _ in range(before):
            await adapters.queued(room)
        calls = [accept(adapters, room, in_flight=3) for _ in range(20)]
        gate = {"rows_of": "allowances"} if before else {"table": "allowances"}
        results = await adapters.race(*calls, **gate)
        assert names(results) == {"Allowance": 3 - before, "TooManyInFlight": 17 + before}
        assert await counters(adapters, room) == (3, 3)

    async def test_endings_and_new_messages_at_once(self, adapters: Adapters) -> None:
        """Each ending frees a place for one new message at most, and each that is refused was refused rightly."""
        room = await adapters.room()
        held = [await adapters.claimed(room) for _ in range(6)]
        outcomes = [COMPLETED, FAILED, BLOCKED, CANCELLED, COMPLETED, FAILED]
        results = await adapters.race(
            *(adapters.finish(m, outcome) for m, outcome in zip(held, outcomes, strict=True)),
            *(accept(adapters, room, in_flight=6) for _ in range(14)),
            rows_of="allowances",
        )
        assert results[:6] == [True] * 6
        accepted = names(results[6:])["Allowance"]
        assert names(results[6:])["TooManyInFlight"] == 14 - accepted
        assert await counters(adapters, room) == (4 + accepted, accepted)
        assert accepted <= 6


class TestPerMinute:
    async def test_counts_from_the_first_message_of_a_minute(self, adapters: Adapters) -> None:
        room = await adapters.room()
        for seconds in (0, 1, 59):
            await accept(adapters, room, seconds * SECOND, per_minute=3)
        with pytest.raises(SendingTooFast) as caught:
            await accept(adapters, room, 50 * SECOND, per_minute=3)
        assert caught.value.retry_after == pytest.approx(10, abs=2)
        assert "3" in caught.value.detail
        await accept(adapters, room, 65 * SECOND, per_minute=3)
        await adapters.check_counters()

    async def test_the_named_wait_is_enough(self, adapters: Adapters) -> None:
        room = await adapters.room()
        await accept(adapters, room, per_minute=1)
        with pytest.raises(SendingTooFast) as caught:
            await accept(adapters, room, 20 * SECOND, per_minute=1)
        assert 0 < caught.value.retry_after <= 40
        # The real clock goes on meanwhile, so this is a little later than the named moment.
        await accept(adapters, room, (20 + caught.value.retry_after) * SECOND, per_minute=1)

    @pytest.mark.parametrize("before", [0, 1])
    async def test_of_many_at_once_no_more_than_the_limit(self, adapters: Adapters, before: int) -> None:
        room = await adapters.room()
        for _ in range(before):
            await adapters.queued(room)
        calls = [accept(adapters, room, per_minute=4) for _ in range(20)]
        gate = {"rows_of": "allowances"} if before else {"table": "allowances"}
        results = await adapters.race(*calls, **gate)
        assert names(results) == {"Allowance": 4 - before, "SendingTooFast": 16 + before}
        waits = [result.retry_after for result in results if isinstance(result, SendingTooFast)]
        assert all(55 < wait < 62 for wait in waits)
        assert await counters(adapters, room) == (4, 4)

    async def test_a_new_minute_begun_by_many_at_once(self, adapters: Adapters) -> None:
        room = await adapters.room()
        await accept(adapters, room, -DAY, per_minute=4)
        results = await adapters.race(*(accept(adapters, room, per_minute=4) for _ in range(20)), rows_of="allowances")
        assert names(results) == {"Allowance": 4, "SendingTooFast": 16}
        await adapters.check_counters()


class TestTokens:
    async def tokens(self, adapters: Adapters, room: Chatroom, after: timedelta = timedelta()) -> tuple[int, int]:
        day = (adapters.clock.now() + after).date()
        allowance = await adapters.messages.allowance(room.user_id, day=day, total=None)
        return allowance.input_tokens, allowance.output_tokens

    @pytest.mark.parametrize("status", [status for status in MessageStatus if status.is_final])
    async def test_of_every_ending_are_counted_once(self, adapters: Adapters, status: MessageStatus) -> None:
        room, other = await adapters.room(), await adapters.room()
        outcome = Outcome(status=status, response="Half a", input_tokens=7, output_tokens=11)
        for count in (1, 2, 3):
            message = await adapters.claimed(room)
            for finished in (True, False):
                assert await adapters.finish(message, outcome) is finished
                assert await self.tokens(adapters, room) == (7 * count, 11 * count)
        unknown = await adapters.claimed(room)
        await adapters.finish(unknown, replace(outcome, input_tokens=None, output_tokens=None))
        assert await self.tokens(adapters, room) == (21, 33)
        await adapters.queued(other)
        assert await self.tokens(adapters, other) == (0, 0)

    async def test_come_with_the_allowance(self, adapters: Adapters) -> None:
        room, day = await adapters.room(), adapters.clock.now().date()
        await adapters.ended(room, replace(COMPLETED, input_tokens=7, output_tokens=11))
        message = adapters.new_message(room)
        for _ in range(2):  # the second has no effect
            accepted = await adapters.messages.accept(message, limits=SendingLimits())
            assert accepted == Allowance(day, 2, None, 7, 11)

    async def test_begin_anew_with_the_day(self, adapters: Adapters) -> None:
        room, now = await adapters.room(), adapters.clock.now()
        yesterday = (now - DAY).date()
        old = [await adapters.queued(room, allowance_day=yesterday) for _ in range(2)]
        rich = replace(COMPLETED, input_tokens=7, output_tokens=11)
        await adapters.workers.claim(old[0].id, lease=HOUR)
        await adapters.finish(old[0], rich)
        assert await self.tokens(adapters, room, -DAY) == (7, 11)
        assert await self.tokens(adapters, room) == (0, 0), "of a day that nothing was sent on"
        assert await accept(adapters, room) == Allowance(now.date(), 1, None, 0, 0)
        await adapters.workers.claim(old[1].id, lease=HOUR)
        await adapters.finish(old[1], rich)
        assert await self.tokens(adapters, room) == (0, 0), "they are those of the day that paid"

    async def test_of_many_at_once_are_all_counted(self, adapters: Adapters) -> None:
        room = await adapters.room()
        held = [await adapters.claimed(room) for _ in range(20)]
        rich = replace(COMPLETED, input_tokens=2**20, output_tokens=2**30)
        results = await adapters.race(*(adapters.finish(message, rich) for message in held), rows_of="allowances")
        assert results == [True] * 20
        assert await self.tokens(adapters, room) == (20 * 2**20, 20 * 2**30), "more than an int4 holds"

    async def test_rolled_back_are_none(self, adapters: Adapters) -> None:
        room = await adapters.room()
        message = await adapters.claimed(room)
        async with adapters.rolled_back():
            await adapters.finish(message, replace(COMPLETED, input_tokens=7, output_tokens=11))
        assert await self.tokens(adapters, room) == (0, 0)


class TestRefusal:
    async def test_names_the_first_reason_that_applies(self, adapters: Adapters) -> None:
        room = await adapters.room()
        await accept(adapters, room)
        with pytest.raises(QuotaExceeded):
            await accept(adapters, room, daily=1, in_flight=1, per_minute=1)
        with pytest.raises(TooManyInFlight):
            await accept(adapters, room, daily=2, in_flight=1, per_minute=1)
        with pytest.raises(SendingTooFast):
            await accept(adapters, room, daily=2, in_flight=2, per_minute=1)
        assert await accept(adapters, room, daily=2, in_flight=2, per_minute=2)
        assert await counters(adapters, room) == (2, 2)

    @pytest.mark.parametrize(
        ("limits", "error"),
        [
            (SendingLimits(daily=0, in_flight=0, per_minute=0), QuotaExceeded),
            (SendingLimits(in_flight=0, per_minute=0), TooManyInFlight),
            (SendingLimits(per_minute=0), SendingTooFast),
        ],
    )
    async def test_of_one_who_has_sent_nothing_yet(
        self, adapters: Adapters, limits: SendingLimits, error: type[Exception]
    ) -> None:
        room = await adapters.room()
        with pytest.raises(error):
            await adapters.messages.accept(adapters.new_message(room), limits=limits)
        assert await adapters.counters() == {}


class TestSentTwice:
    LIMITS = SendingLimits(daily=2, in_flight=2, per_minute=2)

    async def test_has_one_effect(self, adapters: Adapters) -> None:
        room = await adapters.room()
        await adapters.queued(room)
        message = adapters.new_message(room)
        for _ in range(3):  # the second one, when all limits are reached by the first
            allowance = await adapters.messages.accept(message, limits=self.LIMITS)
            assert allowance == Allowance(message.allowance_day, 2, 2)
        assert await counters(adapters, room) == (2, 2)
        assert await adapters.stored(message) == message

    async def test_after_its_end_it_stays_as_it_ended(self, adapters: Adapters) -> None:
        room = await adapters.room()
        message = await adapters.claimed(room)
        await adapters.finish(message, COMPLETED)
        ended = await adapters.stored(message)
        assert await adapters.messages.accept(replace(message, input="other"), limits=self.LIMITS)
        assert await adapters.stored(message) == ended
        assert await counters(adapters, room) == (1, 0)

    @pytest.mark.parametrize("before", [0, 1])
    async def test_twenty_times_at_once_has_one_effect(self, adapters: Adapters, before: int) -> None:
        room = await adapters.room()
        for _ in range(before):
            await adapters.queued(room)
        message = adapters.new_message(room)
        calls = [adapters.messages.accept(message, limits=self.LIMITS) for _ in range(20)]
        gate = {"rows_of": "allowances"} if before else {"table": "allowances"}
        results = await adapters.race(*calls, **gate)
        assert set(results) == {Allowance(message.allowance_day, before + 1, 2)}
        assert await counters(adapters, room) == (before + 1, before + 1)

    async def test_while_it_ends_waits_for_nobody(self, real: InPostgresAndRedis) -> None:
        """Ending locks the message and then the counters, sending the other way round: no deadlock may come of it."""
        room = await real.room()
        message = await real.claimed(room)
        somebody = await asyncpg.connect(real.database_url)
        try:
            async with somebody.transaction():
                await somebody.execute("SELECT FROM allowances FOR UPDATE")
                ending = asyncio.create_task(real.finish(message, FAILED))
                async with asyncio.timeout(HANG):
                    while not await somebody.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110 - it tells nobody
                        await asyncio.sleep(0.005)
                    allowance = await real.messages.accept(message, limits=self.LIMITS)
                assert allowance == Allowance(message.allowance_day, 1, 2)
            assert await ending
        finally:
            await somebody.close()
        assert await counters(real, room) == (0, 0)


class TestRequeue:
    async def test_a_failed_one_is_queued_as_if_just_sent(self, adapters: Adapters) -> None:
        room = await adapters.room()
        message = await adapters.claimed(room, lease=-SECOND)
        for attempt in (2, 3):
            await adapters.workers.claim(message.id, lease=-SECOND, alone=True)
            assert (await adapters.stored(message)).attempt == attempt
        await adapters.messages.retry(message.id, 3, delay=timedelta())
        await adapters.workers.claim(message.id, lease=HOUR, alone=True)
        await adapters.finish(message, FAILED, attempt=4)
        await adapters.wait(HOUR.total_seconds())
        ended = await adapters.stored(message)
        assert (ended.failures, ended.deaths, ended.error_code, ended.charged) == (1, 2, "workers_died", False)

        assert await adapters.messages.requeue(message.id)
        queued = await adapters.stored(message)
        assert queued.queued_at >= ended.queued_at + HOUR - SECOND
        assert queued == replace(
            ended,
            status=MessageStatus.QUEUED,
            failures=0,
            deaths=0,
            error_code=None,
            error_detail=None,
            completed_at=None,
            queued_at=queued.queued_at,
        )
        assert await adapters.messages.take_unnotified(limit=5, notified_before=HOUR) == [message.id], (
            "and notified of at once"
        )
        again = await adapters.workers.claim(message.id, lease=HOUR)
        assert again is not None
        assert again.attempt == 5, "the fence of old attempts holds"
        assert not await adapters.finish(message, FAILED, attempt=4)

    async def test_is_uncharged_and_never_refunded_again(self, adapters: Adapters) -> None:
        room = await adapters.room()
        await adapters.queued(room)
        message = await failed(adapters, room)
        assert await counters(adapters, room) == (1, 1)
        for attempt in (2, 3):
            assert await adapters.messages.requeue(message.id)
            assert await counters(adapters, room) == (1, 2)
            assert not (await adapters.stored(message)).charged
            await adapters.workers.claim(message.id, lease=HOUR)
            assert await adapters.finish(message, FAILED, attempt=attempt)
            assert await counters(adapters, room) == (1, 1)
        assert await adapters.messages.requeue(message.id)
        await adapters.workers.claim(message.id, lease=HOUR)
        assert await adapters.finish(message, COMPLETED, attempt=4)
        assert await counters(adapters, room) == (1, 1)
        assert not await adapters.messages.requeue(message.id)

    async def test_of_none_but_failed_ones(self, adapters: Adapters) -> None:
        room = await adapters.room()
        messages = [await adapters.queued(room), await adapters.claimed(room)]
        for outcome in (COMPLETED, BLOCKED, CANCELLED):
            messages.append(await adapters.claimed(room))
            await adapters.finish(messages[-1], outcome)
        before = [await adapters.stored(message) for message in messages]
        assert [await adapters.messages.requeue(message.id) for message in messages] == [False] * 5
        assert not await adapters.messages.requeue(MessageId(adapters.ids.new()))
        assert [await adapters.stored(message) for message in messages] == before
        assert await counters(adapters, room) == (5, 2)

    async def test_of_many_at_once_one_does_it(self, adapters: Adapters) -> None:
        room = await adapters.room()
        message = await failed(adapters, room)
        calls = [adapters.messages.requeue(message.id) for _ in range(20)]
        assert Counter(await adapters.race(*calls, rows_of="messages")) == {True: 1, False: 19}
        assert await counters(adapters, room) == (0, 1)

    async def test_beside_sending_and_ending(self, adapters: Adapters) -> None:
        room = await adapters.room()
        over = [await failed(adapters, room) for _ in range(6)]
        held = [await adapters.claimed(room) for _ in range(6)]
        results = await adapters.race(
            *(adapters.messages.requeue(message.id) for message in over),
            *(adapters.finish(message, FAILED) for message in held),
            *(accept(adapters, room) for _ in range(8)),
            rows_of="allowances",
        )
        assert names(results) == {"bool": 12, "Allowance": 8}
        assert await counters(adapters, room) == (8, 14)

    async def test_rolled_back_is_none(self, adapters: Adapters) -> None:
        room = await adapters.room()
        message = await failed(adapters, room)
        async with adapters.rolled_back():
            assert await adapters.messages.requeue(message.id)
        assert await adapters.stored(message) == message
        assert await counters(adapters, room) == (0, 0)


async def test_with_status_are_the_newest_of_all_users(adapters: Adapters) -> None:
    over = [await failed(adapters, await adapters.room()) for _ in range(4)][::-1]
    queued, held = await adapters.queued(), await adapters.claimed()
    list_by_status = adapters.messages.list_by_status
    assert await list_by_status(MessageStatus.FAILED, limit=10) == over
    assert await list_by_status(MessageStatus.FAILED, limit=3) == over[:3]
    assert await list_by_status(MessageStatus.QUEUED, limit=10) == [queued]
    assert await list_by_status(MessageStatus.GENERATING, limit=10) == [held]
    assert await list_by_status(MessageStatus.BLOCKED, limit=10) == []
