"""What Messages promises of cancelling."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from domain.chat.messages import Message, MessageStatus
from domain.errors import MessageEnded, MessageNotFound
from domain.ids import MessageId
from tests.contracts.conftest import (
    BLOCKED,
    CANCELLED,
    COMPLETED,
    FAILED,
    HOUR,
    Adapters,
    names,
)

LEASE = timedelta(seconds=10)
EXPIRED = timedelta(seconds=-1)


async def cancel(adapters: Adapters, message: Message) -> Message:
    return await adapters.messages.cancel(message.id, message.chatroom_id, message.user_id)


async def in_flight(adapters: Adapters, message: Message) -> int:
    await adapters.check_counters()
    _, _, in_flight = (await adapters.counters())[message.user_id]
    return in_flight


class TestCancel:
    async def test_what_nobody_has_begun_ends_at_once(self, adapters: Adapters) -> None:
        message = await adapters.queued()
        cancelled = await cancel(adapters, message)
        assert cancelled.completed_at is not None
        assert cancelled.completed_at.microsecond % 1000 == 0
        assert cancelled == replace(
            message,
            status=MessageStatus.CANCELLED,
            cancel_requested=True,
            charged=False,
            completed_at=cancelled.completed_at,
        )
        assert await adapters.stored(message) == cancelled
        assert await in_flight(adapters, message) == 0
        assert await adapters.used(message) == 0
        assert await adapters.workers.claim(message.id, lease=HOUR) is None
        assert await adapters.messages.cancel_requested() == set(), "of nobody"

    async def test_what_waits_for_another_try_ends_at_once(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        await adapters.messages.retry(message.id, 1, delay=HOUR)
        cancelled = await cancel(adapters, message)
        assert (cancelled.status, cancelled.attempt, cancelled.failures) == (MessageStatus.CANCELLED, 1, 1)
        assert await in_flight(adapters, message) == 0

    async def test_what_is_being_answered_is_requested(self, adapters: Adapters) -> None:
        message, other = await adapters.claimed(), await adapters.claimed()
        requested = await cancel(adapters, message)
        assert requested == replace(message, cancel_requested=True)
        assert await adapters.stored(message) == requested
        assert await adapters.messages.cancel_requested() == {message.id}
        assert await in_flight(adapters, message) == 1
        assert await cancel(adapters, message) == requested, "and again has no further effect"
        assert await adapters.workers.extend([(message.id, 1)], lease=HOUR) == {message.id}, "it is still held"
        assert await adapters.finish(message, CANCELLED)
        assert await adapters.messages.cancel_requested() == set()
        assert (await adapters.stored(message)).response == CANCELLED.response
        assert await in_flight(adapters, message) == 0
        assert await adapters.stored(other) == other

    async def test_what_a_dead_worker_left_ends_at_once(self, adapters: Adapters) -> None:
        message = await adapters.claimed(lease=LEASE)
        await adapters.wait(9)
        assert (await cancel(adapters, message)).status is MessageStatus.GENERATING
        await adapters.wait(2)
        cancelled = await cancel(adapters, message)
        assert (cancelled.status, cancelled.attempt, cancelled.deaths) == (MessageStatus.CANCELLED, 1, 0)
        assert await in_flight(adapters, message) == 0
        assert not await adapters.finish(message, COMPLETED), "and if it was not dead it is too late"
        assert await adapters.workers.extend([(message.id, 1)], lease=HOUR) == set()
        assert await adapters.messages.take_expired(limit=9, notified_before=EXPIRED) == []

    @pytest.mark.parametrize("outcome", [COMPLETED, FAILED, BLOCKED, CANCELLED], ids=lambda o: str(o.status))
    async def test_what_has_ended_stays_as_it_ended(self, adapters: Adapters, outcome: Any) -> None:
        message = await adapters.ended(outcome=outcome)
        with pytest.raises(MessageEnded):
            await cancel(adapters, message)
        assert await adapters.stored(message) == message

    async def test_a_message_of_another_is_as_absent_as_none(self, adapters: Adapters) -> None:
        message, own = await adapters.queued(), await adapters.room()
        for changes in (
            {"id": MessageId(adapters.ids.new())},
            {"chatroom_id": own.id},
            {"user_id": own.user_id},
            {"user_id": own.user_id, "chatroom_id": own.id},
        ):
            with pytest.raises(MessageNotFound):
                await cancel(adapters, replace(message, **changes))
        assert await adapters.stored(message) == message

    @pytest.mark.parametrize("lease", [None, EXPIRED, HOUR])
    async def test_twenty_times_at_once(self, adapters: Adapters, lease: timedelta | None) -> None:
        message = await adapters.claimed(lease=lease) if lease else await adapters.queued()
        results = await adapters.race(*(cancel(adapters, message) for _ in range(20)), rows_of="queue_entries")
        stored = await adapters.stored(message)
        assert stored.cancel_requested
        if lease == HOUR:
            assert results == [stored] * 20
            assert await in_flight(adapters, message) == 1
        else:
            assert names(results) == {"Message": 1, "MessageEnded": 19}
            assert stored in results
            assert await in_flight(adapters, message) == 0

    async def test_and_the_end_at_once(self, adapters: Adapters) -> None:
        """Either it is requested in time, which changes nothing of the end, or it is too late."""
        message = await adapters.claimed()
        for turn in (0, 3, 7):
            message = await adapters.claimed()
            calls: list[Any] = [cancel(adapters, message) for _ in range(7)]
            calls.insert(turn, adapters.finish(message, COMPLETED))
            results = await adapters.race(*calls, rows_of="queue_entries")
            assert results[turn] is True
            stored = await adapters.stored(message)
            assert stored.status is MessageStatus.COMPLETED
            assert stored.cancel_requested == ("Message" in names(results))
            assert names(results).keys() <= {"bool", "Message", "MessageEnded"}
            assert await in_flight(adapters, message) == 0

    @pytest.mark.parametrize("lease", [None, EXPIRED])
    async def test_and_claims_at_once_never_both(self, adapters: Adapters, lease: timedelta | None) -> None:
        """Either it has ended and nobody claims it, or one has it and is requested to end it."""
        message = await adapters.claimed(lease=lease) if lease else await adapters.queued()
        calls: list[Any] = [adapters.workers.claim(message.id, lease=HOUR) for _ in range(18)]
        calls.insert(9, cancel(adapters, message))
        results = await adapters.race(*calls, rows_of="queue_entries")
        claimed = [result for result in (*results[:9], *results[10:]) if result is not None]
        cancelled, stored = results[9], await adapters.stored(message)
        assert isinstance(cancelled, Message)
        assert len(claimed) == (cancelled.status is MessageStatus.GENERATING)
        assert stored == cancelled if not claimed else stored.cancel_requested
        assert await in_flight(adapters, message) == len(claimed)

    async def test_rolled_back_is_none(self, adapters: Adapters) -> None:
        for message in (await adapters.queued(), await adapters.claimed(), await adapters.claimed(lease=EXPIRED)):
            async with adapters.rolled_back():
                await cancel(adapters, message)
            assert await adapters.stored(message) == message
            assert await in_flight(adapters, message) == 1
        assert await adapters.messages.cancel_requested() == set()


class TestGivenBack:
    @pytest.mark.parametrize("verb", ["retry", "release"])
    async def test_one_that_is_to_be_cancelled_is_due_at_once(self, adapters: Adapters, verb: str) -> None:
        message = await adapters.claimed()
        await cancel(adapters, message)
        await adapters.wait(1)
        assert await getattr(adapters.messages, verb)(message.id, 1, delay=HOUR)
        assert await adapters.messages.cancel_requested() == set()
        assert await adapters.messages.take_unnotified(limit=9, notified_before=HOUR) == [message.id]
        claimed = await adapters.workers.claim(message.id, lease=HOUR)
        assert claimed is not None
        assert (claimed.attempt, claimed.cancel_requested) == (2, True)
        assert await adapters.messages.cancel_requested() == {message.id}

    async def test_abandoned_it_is_claimed_as_usual(self, adapters: Adapters) -> None:
        message = await adapters.claimed(lease=LEASE)
        await cancel(adapters, message)
        await adapters.wait(11)
        claimed = await adapters.workers.claim(message.id, lease=HOUR)
        assert claimed is not None
        assert (claimed.attempt, claimed.deaths, claimed.cancel_requested) == (2, 1, True)


class TestEnded:
    async def test_are_those_that_have_ended_or_are_gone(self, adapters: Adapters) -> None:
        room = await adapters.room()
        unanswered = [await adapters.queued(room), await adapters.claimed(room), await adapters.claimed(room, EXPIRED)]
        over = [await adapters.ended(room, outcome) for outcome in (COMPLETED, FAILED, BLOCKED, CANCELLED)]
        unasked = await adapters.ended(room)
        absent = MessageId(adapters.ids.new())
        asked = [message.id for message in (*unanswered, *over)] + [absent]
        ended = await adapters.messages.ended(asked)
        assert ended == {message.id for message in over} | {absent}
        assert unasked.id not in ended
        assert await adapters.messages.ended([]) == set()

    async def test_while_they_end(self, adapters: Adapters) -> None:
        message = await adapters.claimed()
        assert await adapters.messages.ended([message.id]) == set()
        await asyncio.gather(adapters.finish(message, COMPLETED), cancel(adapters, await adapters.queued()))
        assert await adapters.messages.ended([message.id]) == {message.id}
