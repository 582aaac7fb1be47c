"""What Messages promises of asking again: the limits of sending, what is kept, and what is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from domain.billing import Allowance, SendingLimits
from domain.chat.messages import Message, MessageStatus, Outcome
from domain.errors import (
    DomainError,
    MessageNotEnded,
    MessageNotFound,
    QuotaExceeded,
    SendingTooFast,
    TooManyInFlight,
)
from domain.ids import MessageId
from tests.contracts.conftest import BLOCKED, CANCELLED, COMPLETED, FAILED, HOUR, Adapters, names

DAY = timedelta(days=1)
EXPIRED = timedelta(seconds=-1)
RICH = Outcome(
    status=MessageStatus.COMPLETED, response="Rayleigh 🌻", finish_reason="STOP", input_tokens=7, output_tokens=9
)


async def regenerate(adapters: Adapters, message: Message, **limits: int) -> Allowance:
    """And book that the first asking is counted, but seen no more."""
    allowance = await adapters.messages.regenerate(adapters.anew(message), limits=SendingLimits(**limits))
    adapters.unseen[message.user_id] += message.charged
    return allowance


async def counters(adapters: Adapters, message: Message) -> tuple[int, int]:
    await adapters.check_counters()
    _, used, in_flight = (await adapters.counters())[message.user_id]
    return used, in_flight


class TestRegenerate:
    @pytest.mark.parametrize("outcome", [RICH, FAILED, BLOCKED, CANCELLED], ids=lambda o: str(o.status))
    async def test_of_the_last_reply_nothing_stays(self, adapters: Adapters, outcome: Outcome) -> None:
        message = await adapters.claimed(lease=EXPIRED)
        await adapters.workers.claim(message.id, lease=HOUR)
        await adapters.messages.retry(message.id, 2, delay=timedelta())
        await adapters.workers.claim(message.id, lease=HOUR)
        await adapters.messages.cancel(message.id, message.chatroom_id, message.user_id)
        assert await adapters.finish(message, outcome, attempt=3)
        over = await adapters.stored(message)
        assert (over.attempt, over.failures, over.deaths, over.cancel_requested) == (3, 1, 1, True)

        anew = adapters.anew(over, attempt=0, max_output_tokens=99)
        allowance = await adapters.messages.regenerate(anew, limits=SendingLimits(daily=5))
        used = 1 + over.charged
        adapters.unseen[message.user_id] = used - 1
        assert (allowance.day, allowance.used, allowance.total) == (anew.allowance_day, used, 5)
        assert await adapters.stored(message) == replace(anew, attempt=3)
        assert await counters(adapters, message) == (used, 1)

        claimed = await adapters.workers.claim(message.id, lease=HOUR)
        assert claimed == replace(anew, attempt=4, status=MessageStatus.GENERATING), (
            "due at once; old attempts stay out"
        )
        assert not await adapters.finish(message, COMPLETED, attempt=3)
        assert await adapters.finish(message, COMPLETED, attempt=4)
        assert await counters(adapters, message) == (used, 0)

    async def test_it_fails_and_gives_back_once_more(self, adapters: Adapters) -> None:
        message = await adapters.ended(outcome=FAILED)
        for attempt in (2, 3):
            assert (await regenerate(adapters, message)).used == 1
            assert (await adapters.stored(message)).charged
            await adapters.workers.claim(message.id, lease=HOUR)
            await adapters.finish(message, FAILED, attempt=attempt)
            assert await counters(adapters, message) == (0, 0)
            message = await adapters.stored(message)

    async def test_is_notified_like_one_just_sent(self, adapters: Adapters) -> None:
        message = await adapters.ended()
        await adapters.wait(3_600)
        await regenerate(adapters, message)
        quiet = timedelta(seconds=10)
        assert await adapters.messages.take_unnotified(limit=9, notified_before=quiet) == []
        await adapters.wait(11)
        assert await adapters.messages.take_unnotified(limit=9, notified_before=quiet) == [message.id]

    async def test_is_paid_for_on_the_day_of_asking_again(self, adapters: Adapters) -> None:
        yesterday = (adapters.clock.now() - DAY).date()
        message = await adapters.queued(allowance_day=yesterday)
        await adapters.workers.claim(message.id, lease=HOUR)
        await adapters.finish(message, RICH)
        allowance = await adapters.messages.regenerate(adapters.anew(message), limits=SendingLimits())
        assert allowance == Allowance(yesterday + DAY, 1, None), "a new day, and no tokens of it"
        assert (await adapters.stored(message)).allowance_day == yesterday + DAY
        late = adapters.anew(message, allowance_day=yesterday)
        await adapters.workers.claim(message.id, lease=HOUR)
        await adapters.finish(message, COMPLETED, attempt=2)
        assert (await adapters.messages.regenerate(late, limits=SendingLimits())).day == yesterday + DAY
        assert (await adapters.stored(message)).allowance_day == yesterday + DAY, "a day never goes back"
        adapters.unseen[message.user_id] = 1

    async def test_what_is_being_answered_goes_on(self, adapters: Adapters) -> None:
        for message in (await adapters.queued(), await adapters.claimed(), await adapters.claimed(lease=EXPIRED)):
            with pytest.raises(MessageNotEnded):
                await adapters.messages.regenerate(adapters.anew(message), limits=SendingLimits(daily=0))
            assert await adapters.stored(message) == message

    async def test_a_message_of_another_is_as_absent_as_none(self, adapters: Adapters) -> None:
        message, own = await adapters.ended(), await adapters.room()
        for changes in (
            {"id": MessageId(adapters.ids.new())},
            {"chatroom_id": own.id},
            {"user_id": own.user_id},
            {"user_id": own.user_id, "chatroom_id": own.id},
        ):
            with pytest.raises(MessageNotFound):
                await adapters.messages.regenerate(adapters.anew(message, **changes), limits=SendingLimits(daily=0))
        assert await adapters.stored(message) == message
        assert await counters(adapters, message) == (1, 0)

    @pytest.mark.parametrize(
        ("limits", "error"),
        [
            ({"daily": 2, "in_flight": 1, "per_minute": 2}, QuotaExceeded),
            ({"daily": 3, "in_flight": 1, "per_minute": 2}, TooManyInFlight),
            ({"daily": 3, "in_flight": 2, "per_minute": 2}, SendingTooFast),
            ({"daily": 0}, QuotaExceeded),
            ({"in_flight": 0}, TooManyInFlight),
            ({"per_minute": 0}, SendingTooFast),
        ],
    )
    async def test_refused_it_changes_nothing(
        self, adapters: Adapters, limits: dict[str, int], error: type[DomainError]
    ) -> None:
        room = await adapters.room()
        message = await adapters.ended(room, RICH)
        await adapters.queued(room)
        with pytest.raises(error):
            await adapters.messages.regenerate(adapters.anew(message), limits=SendingLimits(**limits))
        assert await adapters.stored(message) == message
        assert await counters(adapters, message) == (2, 1)

    async def test_twenty_times_at_once_is_once(self, adapters: Adapters) -> None:
        message = await adapters.ended()
        calls = [adapters.messages.regenerate(adapters.anew(message), limits=SendingLimits(daily=9)) for _ in range(20)]
        results = await adapters.race(*calls, rows_of="messages")
        assert names(results) == {"Allowance": 1, "MessageNotEnded": 19}
        adapters.unseen[message.user_id] = 1
        assert await counters(adapters, message) == (2, 1)

    async def test_of_many_at_once_no_more_than_the_total(self, adapters: Adapters) -> None:
        room = await adapters.room()
        over = [await adapters.ended(room) for _ in range(10)]
        calls: list[Any] = [
            adapters.messages.regenerate(adapters.anew(message), limits=SendingLimits(daily=14)) for message in over
        ]
        calls += [adapters.messages.accept(adapters.new_message(room), limits=SendingLimits(daily=14)) for _ in over]
        results = await adapters.race(*calls, rows_of="allowances")
        assert names(results) == {"Allowance": 4, "QuotaExceeded": 16}
        adapters.unseen[room.user_id] = names(results[:10])["Allowance"]
        assert await counters(adapters, over[0]) == (14, 4)

    async def test_rolled_back_is_none(self, adapters: Adapters) -> None:
        message = await adapters.ended(outcome=RICH)
        async with adapters.rolled_back():
            await adapters.messages.regenerate(adapters.anew(message), limits=SendingLimits())
        assert await adapters.stored(message) == message
        assert await counters(adapters, message) == (1, 0)


class TestOneRequest:
    """A repeated request takes effect once, unless another request came between."""

    async def test_has_no_further_effect(self, adapters: Adapters) -> None:
        over = await adapters.ended()
        anew = adapters.anew(over, request_id=adapters.ids.new())
        first = await adapters.messages.regenerate(anew, limits=SendingLimits(daily=2))
        adapters.unseen[over.user_id] += 1
        assert await adapters.messages.regenerate(anew, limits=SendingLimits(daily=2)) == first, "while it is queued"
        claimed = await adapters.workers.claim(over.id, lease=HOUR)
        assert claimed
        assert claimed.request_id == anew.request_id
        await adapters.finish(claimed, COMPLETED, attempt=claimed.attempt)
        again = await adapters.messages.regenerate(anew, limits=SendingLimits(daily=2))
        assert again.used == 2, "and when it has ended, though the allowance is used up"
        assert (await adapters.stored(over)).status is MessageStatus.COMPLETED
        assert await counters(adapters, over) == (2, 0)

    async def test_another_one_does(self, adapters: Adapters) -> None:
        over = await adapters.ended()
        for request_id in (adapters.ids.new(), None, adapters.ids.new()):
            await adapters.messages.regenerate(adapters.anew(over, request_id=request_id), limits=SendingLimits())
            adapters.unseen[over.user_id] += 1
            claimed = await adapters.workers.claim(over.id, lease=HOUR)
            assert claimed
            assert claimed.request_id == request_id
            await adapters.finish(claimed, COMPLETED, attempt=claimed.attempt)
        assert await counters(adapters, over) == (4, 0)

    async def test_at_once_is_counted_once(self, adapters: Adapters) -> None:
        over = await adapters.ended()
        anew = adapters.anew(over, request_id=adapters.ids.new())
        results = await adapters.race(
            *(adapters.messages.regenerate(anew, limits=SendingLimits(daily=5)) for _ in range(20)), rows_of="messages"
        )
        adapters.unseen[over.user_id] += 1
        assert names(results) == {"Allowance": 20}
        assert {result.used for result in results if isinstance(result, Allowance)} == {2}
        assert await counters(adapters, over) == (2, 1)

    async def test_refused_it_may_come_again(self, adapters: Adapters) -> None:
        over = await adapters.ended()
        anew = adapters.anew(over, request_id=adapters.ids.new())
        with pytest.raises(QuotaExceeded):
            await adapters.messages.regenerate(anew, limits=SendingLimits(daily=1))
        await adapters.messages.regenerate(anew, limits=SendingLimits(daily=2))
        adapters.unseen[over.user_id] += 1
        assert await counters(adapters, over) == (2, 1)

    async def test_rolled_back_it_had_no_effect(self, adapters: Adapters) -> None:
        over = await adapters.ended()
        anew = adapters.anew(over, request_id=adapters.ids.new())
        async with adapters.rolled_back():
            await adapters.messages.regenerate(anew, limits=SendingLimits())
        await adapters.messages.regenerate(anew, limits=SendingLimits())
        adapters.unseen[over.user_id] += 1
        assert await counters(adapters, over) == (2, 1)
