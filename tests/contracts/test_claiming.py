"""What Messages promises of who answers: claims, leases, and what was forgotten."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from domain.chat.messages import Message, MessageStatus
from domain.ids import MessageId
from tests.contracts.conftest import BLOCKED, CANCELLED, COMPLETED, FAILED, HOUR, Adapters, InPostgresAndRedis, names

LEASE = timedelta(seconds=10)
EXPIRED = timedelta(seconds=-1)
QUIET = timedelta(seconds=10)


class TestClaim:
    async def test_takes_it_for_one_attempt(self, adapters: Adapters) -> None:
        message = await adapters.queued()
        claimed = await adapters.workers.claim(message.id, lease=LEASE)
        assert claimed == replace(message, status=MessageStatus.GENERATING, attempt=1)
        assert await adapters.stored(message) == claimed
        assert await adapters.workers.claim(message.id, lease=LEASE) is None

    async def test_nothing_and_what_has_ended_cannot_be_claimed(self, adapters: Adapters) -> None:
        assert await adapters.workers.claim(MessageId(adapters.ids.new()), lease=LEASE) is None
        for outcome in (COMPLETED, FAILED, BLOCKED, CANCELLED):
            message = await adapters.claimed(lease=EXPIRED)
            await adapters.messages.finish(message.id, message.attempt, outcome)
            assert await adapters.workers.claim(message.id, lease=LEASE) is None

    async def test_an_expired_lease_counts_a_death(self, adapters: Adapters) -> None:
        message = await adapters.claimed(lease=LEASE)
        await adapters.wait(9)
        assert await adapters.workers.claim(message.id, lease=LEASE) is None
        await adapters.wait(2)
        again = await adapters.workers.claim(message.id, lease=EXPIRED)
        once_more = await adapters.workers.claim(message.id, lease=LEASE, alone=True)
        assert again is not None
        assert once_more is not None
        assert (again.attempt, again.deaths, again.failures) == (2, 1, 0)
        assert (once_more.attempt, once_more.deaths, once_more.failures) == (3, 2, 0)

    @pytest.mark.parametrize("lease", [None, EXPIRED])
    async def test_of_many_at_once_one_gets_it(self, adapters: Adapters, lease: timedelta | None) -> None:
        message = await adapters.claimed(lease=lease) if lease else await adapters.queued()
        calls = [adapters.workers.claim(message.id, lease=HOUR) for _ in range(20)]
        results = await adapters.race(*calls, rows_of="queue_entries")
        assert names(results) == {"Message": 1, "NoneType": 19}
        stored = await adapters.stored(message)
        assert stored in results
        assert (stored.attempt, stored.deaths) == (message.attempt + 1, 1 if lease else 0)

    async def test_what_the_next_death_would_end_is_claimed_alone(self, adapters: Adapters) -> None:
        message = await adapters.claimed(lease=EXPIRED)
        assert await adapters.workers.claim(message.id, lease=EXPIRED), "one death is nothing yet"
        assert await adapters.workers.claim(message.id, lease=HOUR) is None
        suspect = await adapters.workers.claim(message.id, lease=HOUR, alone=True)
        assert suspect == replace(message, attempt=3, deaths=2)
        assert await adapters.workers.claim(message.id, lease=HOUR, alone=True) is None, "it is held"
        # Handed back, it is as suspect as before, and workers are still notified of it.
        await adapters.wait(1)
        await adapters.messages.release(message.id, 3)
        assert await adapters.messages.take_unnotified(limit=5, notified_before=HOUR) == [message.id]
        assert await adapters.workers.claim(message.id, lease=HOUR) is None
        again = await adapters.workers.claim(message.id, lease=HOUR, alone=True)
        assert again is not None
        assert (again.attempt, again.deaths) == (4, 2)

    async def test_a_suspect_is_what_can_be_claimed_but_only_alone(self, adapters: Adapters) -> None:
        is_suspect, claim = adapters.messages.is_suspect, adapters.workers.claim
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
        claimed = await adapters.workers.claim(message.id, lease=HOUR, alone=True)
        assert claimed == replace(message, status=MessageStatus.GENERATING, attempt=1)

    async def test_of_many_at_once_one_gets_the_suspect(self, adapters: Adapters) -> None:
        message = await adapters.claimed(lease=EXPIRED)
        await adapters.workers.claim(message.id, lease=EXPIRED)
        calls = [adapters.workers.claim(message.id, lease=HOUR, alone=True) for _ in range(20)]
        results = await adapters.race(*calls, rows_of="queue_entries")
        assert names(results) == {"Message": 1, "NoneType": 19}

    async def test_a_rolled_back_claim_is_none(self, adapters: Adapters) -> None:
        message = await adapters.queued()
        async with adapters.rolled_back():
            assert await adapters.workers.claim(message.id, lease=HOUR)
        assert await adapters.stored(message) == message
        assert await adapters.workers.claim(message.id, lease=HOUR)


class TestExtend:
    async def test_keeps_what_is_held(self, adapters: Adapters) -> None:
        room = await adapters.room()
        held = [await adapters.claimed(room, LEASE) for _ in range(3)]
        for _ in range(3):
            await adapters.wait(9)
            kept = await adapters.workers.extend([(message.id, 1) for message in held], lease=LEASE)
            assert kept == {message.id for message in held}
        assert [await adapters.workers.claim(message.id, lease=LEASE) for message in held] == [None] * 3

    async def test_tells_what_is_not_held_any_more(self, adapters: Adapters) -> None:
        room = await adapters.room()
        held, finished, requeued, taken_over = [await adapters.claimed(room, EXPIRED) for _ in range(4)]
        queued = await adapters.queued(room)
        await adapters.messages.finish(finished.id, 1, COMPLETED)
        await adapters.messages.release(requeued.id, 1)
        await adapters.workers.claim(taken_over.id, lease=EXPIRED)
        asked = [(message.id, 1) for message in (held, finished, requeued, taken_over, queued)]
        asked += [(MessageId(adapters.ids.new()), 1), (queued.id, 0)]
        # One that has expired is still ours as long as nobody has taken it.
        assert await adapters.workers.extend(asked, lease=HOUR) == {held.id}
        again = await adapters.workers.claim(taken_over.id, lease=HOUR, alone=True)
        assert again, "an old attempt has extended the new one's"

    async def test_of_nothing_is_nothing(self, adapters: Adapters) -> None:
        assert await adapters.workers.extend([], lease=HOUR) == set()

    async def test_and_claims_at_once_never_both(self, adapters: Adapters) -> None:
        """Either the lease was extended in time, or one of the others has the message."""
        message = await adapters.claimed(lease=EXPIRED)
        extended, *claims = await adapters.race(
            adapters.workers.extend([(message.id, 1)], lease=HOUR),
            *(adapters.workers.claim(message.id, lease=HOUR) for _ in range(19)),
            rows_of="workers",
        )
        claimed = [claim for claim in claims if isinstance(claim, Message)]
        assert len(claimed) == (0 if extended else 1)

    async def test_a_rolled_back_extension_is_none(self, adapters: Adapters) -> None:
        message = await adapters.claimed(lease=EXPIRED)
        async with adapters.rolled_back():
            await adapters.workers.extend([(message.id, 1)], lease=HOUR)
        assert await adapters.workers.claim(message.id, lease=HOUR)


class TestForgetWorkers:
    async def test_what_they_had_is_claimed_as_before(self, adapters: Adapters) -> None:
        dead, alive = await adapters.claimed(lease=LEASE), await adapters.claimed(lease=4 * HOUR)
        await adapters.wait(7_000)
        await adapters.messages.forget_workers(expired_for=2 * HOUR)
        assert await adapters.messages.take_expired(limit=9, notified_before=QUIET) == [dead.id]
        await adapters.wait(1_000)
        await adapters.messages.forget_workers(expired_for=2 * HOUR)
        assert await adapters.messages.take_expired(limit=9, notified_before=QUIET) == [dead.id]
        again = await adapters.workers.claim(dead.id, lease=HOUR)
        assert again is not None
        assert (again.attempt, again.deaths) == (2, 1)
        assert await adapters.workers.claim(alive.id, lease=HOUR) is None

    async def test_one_that_was_only_frozen_begins_again(self, adapters: Adapters) -> None:
        message = await adapters.claimed(lease=LEASE)
        await adapters.wait(7_000)
        await adapters.messages.forget_workers(expired_for=HOUR)
        assert await adapters.workers.extend([(message.id, 1)], lease=HOUR) == {message.id}
        assert await adapters.workers.claim(message.id, lease=HOUR) is None


class TestTakeUnnotified:
    async def take(self, adapters: Adapters, limit: int = 100, quiet: timedelta = QUIET) -> list[MessageId]:
        return await adapters.messages.take_unnotified(limit=limit, notified_before=quiet)

    async def test_what_was_just_sent_is_not_taken_again(self, adapters: Adapters) -> None:
        await adapters.queued()
        assert await self.take(adapters) == []

    async def test_nobody_came(self, adapters: Adapters) -> None:
        message = await adapters.queued()
        await adapters.wait(9)
        assert await self.take(adapters) == []
        await adapters.wait(2)
        assert await self.take(adapters) == [message.id]
        assert await self.take(adapters) == []

    async def test_the_longer_the_wait_the_rarer_the_notification(self, adapters: Adapters) -> None:
        await adapters.queued()
        times = []
        for second in range(200):
            if await self.take(adapters):
                times.append(second)
            await adapters.wait(1)
        pauses = [later - earlier for earlier, later in zip([0, *times], times, strict=False)]
        assert pauses[:6] == pytest.approx([10, 10, 20, 30, 30, 30], abs=2)

    async def test_a_retry_is_taken_once_it_is_due(self, adapters: Adapters) -> None:
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
        results = await adapters.race(*(self.take(adapters, limit=3) for _ in range(20)), table="queue_entries")
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
                await somebody.execute("SELECT FROM queue_entries WHERE message_id = $1 FOR UPDATE", locked.id)
                assert await self.take(real) == [free.id]
        finally:
            await somebody.close()
        assert await self.take(real) == [locked.id]

    async def test_a_rolled_back_take_leaves_them_unnotified(self, adapters: Adapters) -> None:
        message = await adapters.queued()
        await adapters.wait(60)
        async with adapters.rolled_back():
            assert await self.take(adapters) == [message.id]
        assert await self.take(adapters) == [message.id]


class TestTakeExpired:
    async def take(self, adapters: Adapters, limit: int = 100, quiet: timedelta = QUIET) -> list[MessageId]:
        return await adapters.messages.take_expired(limit=limit, notified_before=quiet)

    async def test_an_expired_lease_is_found_again_and_again(self, adapters: Adapters) -> None:
        message = await adapters.claimed(lease=LEASE)
        await adapters.wait(9)
        assert await self.take(adapters) == []
        await adapters.wait(2)
        assert await self.take(adapters, quiet=HOUR) == [message.id]
        assert await self.take(adapters) == []
        await adapters.wait(11)
        assert await self.take(adapters) == [message.id]
        assert await adapters.messages.take_unnotified(limit=9, notified_before=QUIET) == []

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
        results = await adapters.race(*(self.take(adapters, limit=2) for _ in range(20)), table="queue_entries")
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
