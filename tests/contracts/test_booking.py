"""What Messages promises of the model's calls: each is booked, once, and what was never asked costs nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from domain.billing import SendingLimits
from domain.chat.calls import LOST, CallPurpose, ModelCall, TokenUsage
from domain.chat.messages import Message, MessageStatus, Outcome
from domain.errors import ReplyEmpty
from domain.ids import MessageId
from tests.contracts.conftest import BLOCKED, CANCELLED, COMPLETED, FAILED, HOUR, Adapters, call_of, names

EXPIRED = timedelta(seconds=-1)
USAGE = TokenUsage(input=7, cached=3, output=11, thoughts=2)
EMPTY_CUT = Outcome.of_error(ReplyEmpty("MAX_TOKENS"))


def call(message: Message, **changes: Any) -> ModelCall:
    return call_of(message, COMPLETED, **{"usage": USAGE, **changes})


async def tokens(adapters: Adapters, message: Message) -> tuple[int, int]:
    allowance = await adapters.messages.allowance(message.user_id, day=message.allowance_day, total=None)
    return allowance.input_tokens, allowance.output_tokens


async def cancel(adapters: Adapters, message: Message) -> Message:
    return await adapters.messages.cancel(message.id, message.chatroom_id, message.user_id)


async def over(adapters: Adapters, message: Message) -> tuple[bool, int]:
    """Whether it is charged, and how much of the day is used."""
    await adapters.check_counters()
    return (await adapters.stored(message)).charged, await adapters.used(message)


class TestBook:
    @pytest.mark.parametrize("verb", ["finish", "retry", "release", "book", "too late"])
    async def test_every_way_books_the_call_and_counts_its_tokens(self, adapters: Adapters, verb: str) -> None:
        message, verbs = await adapters.claimed(), adapters.messages
        made = call(message, outcome="model_timed_out")
        match verb:
            case "finish":
                assert await verbs.finish(message.id, 1, FAILED, call=made)
            case "retry":
                assert await verbs.retry(message.id, 1, delay=HOUR, call=made)
            case "release":
                assert await verbs.release(message.id, 1, call=made)
            case "book":
                await verbs.book(made)
            case _:
                await verbs.release(message.id, 1)
                assert not await verbs.finish(message.id, 1, COMPLETED, call=made)
                assert (await adapters.stored(message)).status is MessageStatus.QUEUED
        assert await adapters.calls() == [made]
        assert await tokens(adapters, message) == (7, 11)

    async def test_what_was_not_reported_is_not_known(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        await adapters.messages.retry(message.id, 1, delay=HOUR, call=call(message, usage=None))
        [booked] = await adapters.calls()
        assert booked.usage is None
        assert await tokens(adapters, message) == (0, 0)

    async def test_without_a_call_nothing_is_booked(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        await adapters.messages.release(message.id, 1)
        await adapters.workers.claim(message.id, lease=HOUR)
        await adapters.messages.retry(message.id, 2, delay=timedelta())
        await adapters.workers.claim(message.id, lease=HOUR)
        await adapters.messages.finish(message.id, 3, FAILED)
        assert await adapters.calls() == []

    async def test_each_attempt_and_purpose_has_its_own(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        await adapters.messages.retry(message.id, 1, delay=timedelta(), call=call(message, outcome="empty"))
        await adapters.workers.claim(message.id, lease=HOUR)
        await adapters.messages.finish(message.id, 2, COMPLETED, call=call(message, attempt=2))
        await adapters.messages.book(call(message, attempt=2, purpose=CallPurpose.TITLE))
        booked = [(one.attempt, one.purpose, one.outcome) for one in await adapters.calls()]
        assert booked == [(1, "reply", "empty"), (2, "reply", "completed"), (2, "title", "completed")]
        assert await tokens(adapters, message) == (14, 22), "a title does not count as the user's reply"

    async def test_twice_is_once(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        await adapters.messages.finish(message.id, 1, COMPLETED, call=call(message))
        await adapters.messages.finish(message.id, 1, FAILED, call=call(message, outcome="model_refused"))
        await adapters.messages.release(message.id, 1, call=call(message, outcome="interrupted"))
        await adapters.messages.book(call(message, outcome="interrupted"))
        assert await adapters.calls() == [call(message)]
        assert await tokens(adapters, message) == (7, 11)

    async def test_of_many_at_once_one_is_booked(self, adapters: Adapters) -> None:
        message, verbs = await adapters.claimed(), adapters.messages
        calls: list[Any] = [verbs.finish(message.id, 1, COMPLETED, call=call(message)) for _ in range(8)]
        calls += [verbs.retry(message.id, 1, delay=HOUR, call=call(message)) for _ in range(6)]
        calls += [verbs.book(call(message)) for _ in range(6)]
        results = await adapters.race(*calls, rows_of="allowances")
        assert names(results) == {"bool": 14, "NoneType": 6}
        assert results.count(True) == 1
        assert len(await adapters.calls()) == 1
        assert await tokens(adapters, message) == (7, 11)

    async def test_tokens_are_those_of_their_day(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        await adapters.messages.retry(
            message.id, 1, delay=HOUR, call=call(message, day=message.allowance_day - timedelta(days=1))
        )
        assert len(await adapters.calls()) == 1
        assert await tokens(adapters, message) == (0, 0)

    async def test_it_outlives_the_message_and_the_user(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        await adapters.chatrooms.delete(message.chatroom_id, message.user_id)
        adapters.unseen[message.user_id] = 1
        assert not await adapters.messages.finish(message.id, 1, COMPLETED, call=call(message))
        await adapters.users.delete(message.user_id)
        late = call(message, message_id=MessageId(adapters.ids.new()))
        await adapters.messages.book(late)
        assert await adapters.calls() == [call(message), late]

    async def test_rolled_back_it_is_not_booked(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        async with adapters.rolled_back():
            await adapters.messages.finish(message.id, 1, COMPLETED, call=call(message))
        async with adapters.rolled_back():
            await adapters.messages.book(call(message))
        assert await adapters.calls() == []
        assert await tokens(adapters, message) == (0, 0)


class TestLost:
    """A dead worker's usage is unknown; one that only seemed dead books it later."""

    async def test_a_claim_after_it_books_what_is_not_known(self, adapters: Adapters) -> None:
        message = await adapters.claimed(lease=EXPIRED)
        assert await adapters.calls() == []
        await adapters.workers.claim(message.id, lease=HOUR)
        assert await adapters.calls() == [call(message, model="", outcome=LOST, usage=None)]

    async def test_a_cancel_after_it_does_so_too(self, adapters: Adapters) -> None:
        message = await adapters.claimed(lease=EXPIRED)
        await cancel(adapters, message)
        assert await adapters.calls() == [call(message, model="", outcome=LOST, usage=None)]

    async def test_no_other_claim_or_cancel_does(self, adapters: Adapters) -> None:
        queued, held = await adapters.queued(), await adapters.claimed()
        await adapters.workers.claim(queued.id, lease=HOUR)
        await adapters.workers.claim(held.id, lease=HOUR)
        await cancel(adapters, held)
        await cancel(adapters, await adapters.queued())
        assert await adapters.calls() == []

    @pytest.mark.parametrize("verb", ["finish", "retry", "release", "book"])
    async def test_who_was_not_dead_books_it_after_all(self, adapters: Adapters, verb: str) -> None:
        message, verbs = await adapters.claimed(lease=EXPIRED), adapters.messages
        heir = await adapters.workers.claim(message.id, lease=HOUR)
        for _ in range(2):
            match verb:
                case "finish":
                    assert not await verbs.finish(message.id, 1, COMPLETED, call=call(message))
                case "retry":
                    assert not await verbs.retry(message.id, 1, delay=HOUR, call=call(message))
                case "release":
                    assert not await verbs.release(message.id, 1, call=call(message))
                case _:
                    await verbs.book(call(message))
            assert await adapters.calls() == [call(message)]
            assert await tokens(adapters, message) == (7, 11)
        assert await adapters.stored(message) == heir

    async def test_a_call_booked_before_is_not_lost(self, adapters: Adapters) -> None:
        message = await adapters.claimed(lease=EXPIRED)
        await adapters.messages.book(call(message))
        await adapters.workers.claim(message.id, lease=HOUR)
        assert await adapters.calls() == [call(message)]

    async def test_the_claim_and_who_was_not_dead_at_once(self, adapters: Adapters) -> None:
        message, verbs = await adapters.claimed(lease=EXPIRED), adapters.messages
        calls: list[Any] = [adapters.workers.claim(message.id, lease=HOUR) for _ in range(6)]
        calls += [verbs.finish(message.id, 1, COMPLETED, call=call(message)) for _ in range(6)]
        results = await adapters.race(*calls, rows_of="queue_entries")
        claimed = [result for result in results if isinstance(result, Message)]
        assert len(claimed) + results.count(True) == 1, "one of them has it"
        assert await adapters.calls() == [call(message)]
        assert await tokens(adapters, message) == (7, 11)

    async def test_rolled_back_it_is_not_lost(self, adapters: Adapters) -> None:
        message = await adapters.claimed(lease=EXPIRED)
        async with adapters.rolled_back():
            await adapters.workers.claim(message.id, lease=HOUR)
        assert await adapters.calls() == []


class TestCounted:
    """A message whose model was never asked gives its allowance back when it is cancelled, once."""

    async def test_while_it_is_queued(self, adapters: Adapters) -> None:
        message = await adapters.queued()
        assert not (await cancel(adapters, message)).charged
        assert await over(adapters, message) == (False, 0)

    @pytest.mark.parametrize("verb", ["retry", "release"])
    @pytest.mark.parametrize("asked", [False, True])
    async def test_between_two_attempts(self, adapters: Adapters, verb: str, asked: bool) -> None:
        message = await adapters.claimed()
        made = call(message) if asked else None
        await getattr(adapters.messages, verb)(message.id, 1, delay=HOUR, call=made)
        assert (await cancel(adapters, message)).charged is asked
        assert await over(adapters, message) == (asked, int(asked))

    @pytest.mark.parametrize("asked", [False, True])
    async def test_while_a_worker_has_it(self, adapters: Adapters, asked: bool) -> None:
        message = await adapters.claimed()
        await cancel(adapters, message)
        assert await over(adapters, message) == (True, 1)
        made = call(message) if asked else None
        for _ in range(2):
            await adapters.messages.finish(message.id, 1, CANCELLED, call=made)
        assert await over(adapters, message) == (asked, int(asked))

    async def test_an_earlier_call_counts(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        await adapters.messages.release(message.id, 1, call=call(message))
        await adapters.workers.claim(message.id, lease=HOUR)
        await cancel(adapters, message)
        await adapters.messages.finish(message.id, 2, CANCELLED)
        assert await over(adapters, message) == (True, 1)

    @pytest.mark.parametrize("claimed_again", [False, True])
    async def test_who_died_may_have_asked(self, adapters: Adapters, claimed_again: bool) -> None:
        message = await adapters.claimed(lease=EXPIRED)
        if claimed_again:
            await adapters.workers.claim(message.id, lease=HOUR)
            await adapters.messages.release(message.id, 2)
        assert (await cancel(adapters, message)).charged
        assert await over(adapters, message) == (True, 1)

    async def test_asked_anew_it_begins_anew(self, adapters: Adapters) -> None:
        message = await adapters.ended()
        anew = adapters.anew(message)
        await adapters.messages.regenerate(anew, limits=SendingLimits())
        adapters.unseen[message.user_id] += 1
        assert not (await cancel(adapters, anew)).charged
        assert await over(adapters, message) == (False, 1)

    async def test_of_another_day_that_is_over(self, adapters: Adapters) -> None:
        room = await adapters.room()
        message = await adapters.queued(room, allowance_day=adapters.clock.now().date() - timedelta(days=1))
        today = await adapters.queued(room)
        assert not (await cancel(adapters, message)).charged
        assert await over(adapters, today) == (True, 1)

    async def test_twenty_times_at_once(self, adapters: Adapters) -> None:
        room = await adapters.room()
        other, message = await adapters.queued(room), await adapters.queued(room)
        results = await adapters.race(*(cancel(adapters, message) for _ in range(20)), rows_of="queue_entries")
        assert names(results) == {"Message": 1, "MessageEnded": 19}
        assert await over(adapters, message) == (False, 1)
        assert await over(adapters, other) == (True, 1)

    async def test_and_claims_at_once(self, adapters: Adapters) -> None:
        """The next claim ends it without calling the model: refunded once, either way."""
        for turn in (0, 9, 18):
            message = await adapters.queued()
            calls: list[Any] = [adapters.workers.claim(message.id, lease=HOUR) for _ in range(18)]
            calls.insert(turn, cancel(adapters, message))
            results = await adapters.race(*calls, rows_of="queue_entries")
            if any(isinstance(result, Message) and result.attempt for result in results):
                assert await over(adapters, message) == (True, 1)
                await adapters.messages.finish(message.id, 1, CANCELLED)
            assert await over(adapters, message) == (False, 0)

    async def test_rolled_back_it_is_counted(self, adapters: Adapters) -> None:
        message = await adapters.queued()
        async with adapters.rolled_back():
            await cancel(adapters, message)
        assert await over(adapters, message) == (True, 1)


class TestEmptyCuts:
    """A prompt that uses its length up before the first word costs what a reply costs."""

    async def cut(self, adapters: Adapters, message: Message, attempt: int = 1) -> bool:
        assert await adapters.finish(message, EMPTY_CUT, attempt=attempt)
        return (await adapters.stored(message)).charged

    async def test_the_first_of_a_day_is_given_back_and_no_other(self, adapters: Adapters) -> None:
        room = await adapters.room()
        charged = [await self.cut(adapters, await adapters.claimed(room)) for _ in range(4)]
        assert charged == [False, True, True, True]
        assert await over(adapters, await adapters.queued(room)) == (True, 4)

    async def test_each_day_and_each_user_has_its_own(self, adapters: Adapters) -> None:
        room, other = await adapters.room(), await adapters.room()
        yesterday = adapters.clock.now().date() - timedelta(days=1)
        for _ in range(2):
            message = await adapters.queued(room, allowance_day=yesterday)
            await adapters.workers.claim(message.id, lease=HOUR)
            await self.cut(adapters, message)
        assert not await self.cut(adapters, await adapters.claimed(room))
        assert await self.cut(adapters, await adapters.claimed(room))
        assert not await self.cut(adapters, await adapters.claimed(other))

    async def test_of_a_day_that_is_over_they_count_for_none(self, adapters: Adapters) -> None:
        room = await adapters.room()
        yesterday = adapters.clock.now().date() - timedelta(days=1)
        old = [await adapters.queued(room, allowance_day=yesterday) for _ in range(2)]
        today = await adapters.claimed(room)
        for message in old:
            await adapters.workers.claim(message.id, lease=HOUR)
            assert not await self.cut(adapters, message)
        assert not await self.cut(adapters, today)

    @pytest.mark.parametrize(
        "outcome", [FAILED, Outcome.of_error(ReplyEmpty("STOP")), BLOCKED, COMPLETED], ids=lambda o: str(o.error_code)
    )
    async def test_no_other_end_counts(self, adapters: Adapters, outcome: Outcome) -> None:
        room = await adapters.room()
        for _ in range(3):
            await adapters.finish(await adapters.claimed(room), outcome)
        assert not await self.cut(adapters, await adapters.claimed(room))

    async def test_what_is_not_charged_counts_for_none(self, adapters: Adapters) -> None:
        room = await adapters.room()
        message = await adapters.claimed(room)
        await adapters.finish(message, FAILED)
        await adapters.messages.requeue(message.id)
        await adapters.workers.claim(message.id, lease=HOUR)
        assert not await self.cut(adapters, message, attempt=2)
        assert not await self.cut(adapters, await adapters.claimed(room))

    async def test_of_many_at_once_one_is_given_back(self, adapters: Adapters) -> None:
        room = await adapters.room()
        held = [await adapters.claimed(room) for _ in range(20)]
        results = await adapters.race(*(adapters.finish(message, EMPTY_CUT) for message in held), rows_of="allowances")
        assert results == [True] * 20
        charged = Counter([(await adapters.stored(message)).charged for message in held])
        assert charged == {True: 19, False: 1}
        assert (await over(adapters, held[0]))[1] == 19

    async def test_rolled_back_it_counts_for_none(self, adapters: Adapters) -> None:
        room = await adapters.room()
        message = await adapters.claimed(room)
        async with adapters.rolled_back():
            await adapters.finish(message, EMPTY_CUT)
        assert await adapters.stored(message) == replace(message)
        assert not await self.cut(adapters, message)
