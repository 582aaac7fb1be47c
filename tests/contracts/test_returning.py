"""What outlives an account until it expires: deleting it and signing up again renews nothing of the number's."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from adapters.postgres.connection import rows
from domain.accounts import GUESSES_AN_HOUR, GuessKind, MobileNumber, User
from domain.billing import Allowance, SendingLimits
from domain.errors import (
    ChatroomNotFound,
    CodesSentTooOften,
    DatabaseUnavailable,
    MobileTaken,
    QuotaExceeded,
    TooManyGuesses,
    UserNotFound,
)
from tests.contracts.conftest import COMPLETED, FAILED, Adapters, InPostgresAndRedis, names
from tests.support.patience import PROCESS_HANG

FIVE = SendingLimits(daily=5)


async def use(adapters: Adapters, user: User) -> Allowance:
    today = adapters.clock.now().date()
    return await adapters.messages.allowance(user.id, day=today, total=5)


async def came_back(adapters: Adapters, user: User) -> User:
    """Deleted, and signed up again with the same number."""
    await adapters.users.delete(user.id)
    again = await adapters.user(mobile=user.mobile)
    adapters.unseen[again.id] = (await use(adapters, again)).used
    return again


class TestTheDaysUse:
    async def test_is_found_as_it_was(self, adapters: Adapters) -> None:
        ann = await adapters.user()
        room = await adapters.room(ann)
        await adapters.ended(room)
        await adapters.ended(room, FAILED)  # which is given back
        claimed = await adapters.claimed(room)
        outcome = replace(COMPLETED, input_tokens=30, output_tokens=70)
        await adapters.finish(claimed, outcome, attempt=claimed.attempt)
        before = await use(adapters, ann)
        assert (before.used, before.input_tokens, before.output_tokens) == (2, 30, 70)
        again = await came_back(adapters, ann)
        assert await use(adapters, again) == before

    async def test_however_often_there_are_five_messages_in_a_day(self, adapters: Adapters) -> None:
        user, sent = await adapters.user(), 0
        for _ in range(20):
            room = await adapters.room(user)
            try:
                await adapters.messages.accept(adapters.new_message(room), limits=FIVE)
                sent += 1
            except QuotaExceeded:
                assert sent == 5
            user = await came_back(adapters, user)
        assert sent == 5

    async def test_what_was_unanswered_is_in_flight_no_more(self, adapters: Adapters) -> None:
        ann = await adapters.user()
        room = await adapters.room(ann)
        queued, claimed = await adapters.queued(room), await adapters.claimed(room)
        again = await came_back(adapters, ann)
        assert (await use(adapters, again)).used == 2
        assert (await adapters.counters())[again.id][2] == 0
        assert not await adapters.finish(claimed, FAILED, attempt=claimed.attempt), "nor is it given back"
        assert await adapters.workers.claim(queued.id, lease=timedelta(hours=1)) is None
        assert (await use(adapters, again)).used == 2
        one_at_a_time = SendingLimits(daily=5, in_flight=1)
        await adapters.messages.accept(adapters.new_message(await adapters.room(again)), limits=one_at_a_time)
        assert (await adapters.counters())[again.id][1:] == (3, 1)

    async def test_is_nobody_elses(self, adapters: Adapters) -> None:
        ann, bob = await adapters.user(), await adapters.user()
        await adapters.queued(await adapters.room(ann))
        await adapters.users.delete(ann.id)
        assert (await use(adapters, await adapters.user())).used == (await use(adapters, bob)).used == 0
        assert (await use(adapters, await came_back(adapters, bob))).used == 0

    async def test_of_a_day_that_is_over_nothing_is_kept(self, adapters: Adapters) -> None:
        ann, yesterday = await adapters.user(), adapters.clock.now().date() - timedelta(days=1)
        await adapters.queued(await adapters.room(ann), allowance_day=yesterday)
        await adapters.users.delete(ann.id)
        again = await adapters.user(mobile=ann.mobile)
        assert again.id not in await adapters.counters()

    async def test_is_purged_when_the_day_is_over(self, adapters: Adapters) -> None:
        today = adapters.clock.now().date()
        ann, bob = await adapters.user(), await adapters.user()
        for user in (ann, bob):
            await adapters.queued(await adapters.room(user))
        await adapters.users.delete(ann.id)
        await adapters.users.purge(today=today)
        ann = await came_back(adapters, await adapters.user(mobile=ann.mobile))
        assert (await use(adapters, ann)).used == 1, "it is not over yet"
        await adapters.users.delete(ann.id)
        await adapters.users.purge(today=today + timedelta(days=1))
        assert (await use(adapters, await adapters.user(mobile=ann.mobile))).used == 0
        assert (await use(adapters, bob)).used == 1, "who is still there keeps it"

    async def test_a_deletion_that_is_rolled_back_leaves_it_where_it_was(self, adapters: Adapters) -> None:
        ann = await adapters.user()
        await adapters.queued(await adapters.room(ann))
        async with adapters.rolled_back():
            await adapters.users.delete(ann.id)
        assert (await use(adapters, ann)).used == 1
        with pytest.raises(MobileTaken):
            await adapters.user(mobile=ann.mobile)

    async def test_a_return_that_is_rolled_back_leaves_it_for_the_next(self, adapters: Adapters) -> None:
        ann = await adapters.user()
        await adapters.queued(await adapters.room(ann))
        await adapters.users.delete(ann.id)
        async with adapters.rolled_back():
            await adapters.user(mobile=ann.mobile)
        again = await adapters.user(mobile=ann.mobile)
        adapters.unseen[again.id] = 1
        assert (await use(adapters, again)).used == 1


class TestAtOnce:
    async def test_of_many_who_return_one_does_with_the_use(self, adapters: Adapters) -> None:
        ann = await adapters.user()
        await adapters.queued(await adapters.room(ann))
        await adapters.users.delete(ann.id)
        users = [adapters.new_user(mobile=ann.mobile) for _ in range(10)]
        results = await adapters.race(*(adapters.users.add(user) for user in users), table="users")
        assert names(results) == {"NoneType": 1, "MobileTaken": 9}
        [again] = [user for user, result in zip(users, results, strict=True) if result is None]
        adapters.unseen[again.id] = 1
        assert (await use(adapters, again)).used == 1

    async def test_leaving_and_returning_at_once(self, adapters: Adapters) -> None:
        """A new account finds the use; one that comes too early is refused."""
        for round_ in range(10):
            ann = await adapters.user()
            for _ in range(3):
                await adapters.queued(await adapters.room(ann))
            users = [adapters.new_user(mobile=ann.mobile) for _ in range(6)]
            calls: list[Coroutine[Any, Any, None]] = [adapters.users.add(user) for user in users]
            calls.insert(round_ % 6, adapters.users.delete(ann.id))
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(result) for result in results} <= {type(None), MobileTaken}
            again = await adapters.users.find_by_mobile(ann.mobile)
            if again is None:
                again = await adapters.user(mobile=ann.mobile)
            adapters.unseen[again.id] = 3
            assert (await use(adapters, again)).used == 3

    async def test_leaving_returning_and_sending_at_once_is_five_messages(self, adapters: Adapters) -> None:
        mobile = (await adapters.user()).mobile
        accepted = 0

        async def live() -> None:
            nonlocal accepted
            for _ in range(4):
                user = await adapters.users.find_by_mobile(mobile)
                try:
                    if user is None:
                        await adapters.user(mobile=mobile)
                        continue
                    room = await adapters.room(user)
                    await adapters.messages.accept(adapters.new_message(room), limits=FIVE)
                    accepted += 1
                    await adapters.users.delete(user.id)
                except (ChatroomNotFound, MobileTaken, QuotaExceeded, UserNotFound):
                    continue
                except DatabaseUnavailable:  # deadlocks in a row, each of which takes Postgres a second to see
                    continue

        async with asyncio.timeout(PROCESS_HANG):
            await asyncio.gather(*(live() for _ in range(5)))
        user = await adapters.users.find_by_mobile(mobile) or await adapters.user(mobile=mobile)
        adapters.unseen[user.id] = (await use(adapters, user)).used - len(await self.seen(adapters, user))
        assert 1 <= accepted <= (await use(adapters, user)).used <= 5, "what was given up may have been accepted"

    async def seen(self, adapters: Adapters, user: User) -> list[object]:
        return [
            message
            for room in await adapters.chatrooms.list_for_user(user.id, limit=100)
            for message in (await adapters.chatrooms.get_with_messages(room.id, user.id, limit=100))[1]
        ]


class TestBudgets:
    async def test_no_code_is_sent_sooner(self, adapters: Adapters) -> None:
        now, sent = adapters.clock.now(), 0
        user = await adapters.user()
        for minute in range(0, 24 * 60, 20):
            try:
                await adapters.send_limits.record(user.mobile, now=now + timedelta(minutes=minute))
                sent += 1
            except CodesSentTooOften:
                pass
            user = await came_back(adapters, user)
        assert sent == 10

    @pytest.mark.parametrize("kind", list(GuessKind))
    async def test_no_guess_is_given_back(self, adapters: Adapters, kind: GuessKind) -> None:
        now, wrong = adapters.clock.now(), 0
        user = await adapters.user()
        for second in range(0, 3600, 30):
            try:
                await adapters.guess_limits.record_wrong(user.mobile, kind, now=now + timedelta(seconds=second))
                wrong += 1
            except TooManyGuesses:
                pass
            user = await came_back(adapters, user)
        assert wrong <= GUESSES_AN_HOUR


async def test_no_number_stands_beside_its_counts(real: InPostgresAndRedis) -> None:
    """Also of numbers that nobody signs up with."""
    ann, nobody, now = await real.user(), MobileNumber("+919876500000"), real.clock.now()
    await real.queued(await real.room(ann))
    for mobile in (ann.mobile, nobody):
        await real.send_limits.record(mobile, now=now)
        await real.guess_limits.record_wrong(mobile, GuessKind.CODE, now=now)
    await real.users.delete(ann.id)
    for table in ("codes_sent", "wrong_guesses", "kept_allowances"):
        kept = [str(dict(row)) for row in await rows(f"TABLE {table}")]
        assert kept
        assert not [row for row in kept if ann.mobile[3:] in row or nobody[3:] in row]
    [days_use] = await rows("SELECT day FROM kept_allowances")
    assert isinstance(days_use["day"], date)
