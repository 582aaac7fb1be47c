"""The contracts of GuessLimits and OtpSendLimits."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from domain.accounts import (
    FIRST_GUESS,
    GUESSES_A_DAY,
    GUESSES_AN_HOUR,
    LOCKOUT,
    LOCKOUT_STREAK,
    MAX_GUESS_BACKOFF,
    SENDING_RULES,
    SENDINGS_RESERVED,
    STRANGE_GUESS,
    STREAK_RETENTION,
    USUAL_GUESS,
    GuessKind,
    MobileNumber,
    Standing,
)
from domain.errors import CodesExhausted, CodesSentTooOften, OtpLocked, TooManyGuesses
from tests.contracts.conftest import Adapters, names

ANN, BOB = MobileNumber("+919876543210"), MobileNumber("+919876543211")
CODE, PASSWORD = GuessKind.CODE, GuessKind.PASSWORD
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
MOMENT = timedelta(milliseconds=1)


class Guesser:
    """Somebody who guesses, with their own clock."""

    def __init__(self, adapters: Adapters, kind: GuessKind = CODE, mobile: MobileNumber = ANN) -> None:
        self.guess_limits = adapters.guess_limits
        self.kind = kind
        self.mobile = mobile
        self.now = adapters.clock.now()
        self.rule = USUAL_GUESS

    async def wait_after(self) -> float | None:
        """Guess; None if it was let through, else the seconds to wait."""
        try:
            await self.guess_limits.record_wrong(self.mobile, self.kind, now=self.now, rule=self.rule)
        except TooManyGuesses as error:
            return error.retry_after
        return None

    async def guess(self, times: int = 1) -> None:
        """Each as soon as it is let through."""
        for _ in range(times):
            if wait := await self.wait_after():
                self.now += timedelta(seconds=wait)
                assert await self.wait_after() is None

    async def let_through(self, until: datetime) -> int:
        """How many of those who never rest get through until then."""
        count = 0
        while self.now < until:
            wait = await self.wait_after()
            count += wait is None
            self.now += timedelta(seconds=wait or 0)
        return count


@pytest.fixture(params=GuessKind)
def kind(request: pytest.FixtureRequest) -> GuessKind:
    return GuessKind(request.param)


class TestGuessing:
    async def test_after_the_fifth_wrong_one_the_wait_doubles(self, adapters: Adapters, kind: GuessKind) -> None:
        ann = Guesser(adapters, kind)
        assert [await ann.wait_after() for _ in range(7)] == [None] * 5 + [1, 1]
        for wait in (1, 2, 4, 8, 16):
            ann.now += timedelta(seconds=wait) - MOMENT
            assert await ann.wait_after() == pytest.approx(0.001)
            ann.now += MOMENT
            assert await ann.wait_after() is None
            if wait < 16:
                assert await ann.wait_after() == wait * 2

    async def test_the_wait_ends_at_a_quarter_of_an_hour(self, adapters: Adapters, kind: GuessKind) -> None:
        ann = Guesser(adapters, kind)
        waits = []
        for _ in range(40):
            await ann.guess()
            ann.now += DAY  # no other budget is in the way
            await ann.guess()
            ann.now -= MOMENT
            waits.append(await ann.wait_after() or 0)
            ann.now += MOMENT
        assert max(waits) == MAX_GUESS_BACKOFF.total_seconds() + 0.001
        assert waits[-20:] == [max(waits)] * 20

    async def test_ten_an_hour_sliding(self, adapters: Adapters, kind: GuessKind) -> None:
        ann = Guesser(adapters, kind)
        begun = ann.now
        await ann.guess(GUESSES_AN_HOUR)
        assert ann.now - begun == timedelta(seconds=31)
        assert await ann.wait_after() == (begun + HOUR - ann.now).total_seconds()
        ann.now = begun + HOUR
        assert await ann.wait_after() is None, "the first is an hour ago"

    async def test_twenty_a_day_sliding(self, adapters: Adapters, kind: GuessKind) -> None:
        ann = Guesser(adapters, kind)
        begun = ann.now
        await ann.guess(GUESSES_A_DAY)
        assert await ann.wait_after() == (begun + DAY - ann.now).total_seconds()
        ann.now = begun + DAY - MOMENT
        assert await ann.wait_after() == pytest.approx(0.001)
        ann.now += MOMENT
        assert await ann.wait_after() is None

    async def test_who_never_rests_has_twenty_in_each_day(self, adapters: Adapters, kind: GuessKind) -> None:
        ann = Guesser(adapters, kind)
        assert await ann.let_through(ann.now + DAY) == GUESSES_A_DAY
        assert await ann.let_through(ann.now + DAY - HOUR) <= GUESSES_A_DAY

    async def test_a_streak_of_a_hundred_wrong_codes_locks_the_number_for_a_day(self, adapters: Adapters) -> None:
        ann = Guesser(adapters)
        begun = ann.now
        await ann.guess(LOCKOUT_STREAK)
        assert ann.now - begun >= 4 * DAY
        for later in (timedelta(), LOCKOUT - MOMENT):
            with pytest.raises(OtpLocked) as locked:
                await adapters.guess_limits.record_wrong(ANN, CODE, now=ann.now + later)
            assert locked.value.retry_after == pytest.approx((LOCKOUT - later).total_seconds())
        await Guesser(adapters, PASSWORD).guess()
        await Guesser(adapters, CODE, BOB).guess()
        await adapters.guess_limits.record_wrong(ANN, CODE, now=ann.now, device=b"known")
        ann.now += LOCKOUT
        await ann.guess(LOCKOUT_STREAK)
        with pytest.raises(OtpLocked):
            await adapters.guess_limits.record_wrong(ANN, CODE, now=ann.now)

    async def test_a_known_device_has_a_budget_of_its_own(self, adapters: Adapters, kind: GuessKind) -> None:
        ann = Guesser(adapters, kind)
        await ann.guess(GUESSES_AN_HOUR)
        for device in (b"phone", b"laptop"):
            for _ in range(5):
                await adapters.guess_limits.record_wrong(ANN, kind, now=ann.now, device=device)
            with pytest.raises(TooManyGuesses):
                await adapters.guess_limits.record_wrong(ANN, kind, now=ann.now, device=device)
        for _ in range(2):
            await adapters.guess_limits.clear(ANN, kind, device=b"phone")
            await adapters.guess_limits.record_wrong(ANN, kind, now=ann.now, device=b"phone")
        with pytest.raises(TooManyGuesses):
            await adapters.guess_limits.record_wrong(ANN, kind, now=ann.now, device=b"laptop")

    async def test_strange_guesses_leave_half_of_the_day_for_first_ones(self, adapters: Adapters) -> None:
        ann = Guesser(adapters)
        ann.rule = STRANGE_GUESS
        await ann.guess(10)
        assert await ann.wait_after() is not None
        ann.rule = FIRST_GUESS
        assert [await ann.wait_after() for _ in range(11)] == [None] * 10 + [
            pytest.approx((DAY - 31 * SECOND).total_seconds())
        ]

    async def test_a_first_guess_waits_for_no_backoff(self, adapters: Adapters) -> None:
        ann = Guesser(adapters)
        await ann.guess(9)
        assert await ann.wait_after() == 16
        ann.rule = FIRST_GUESS
        assert await ann.wait_after() is None

    async def test_passwords_are_never_off(self, adapters: Adapters) -> None:
        ann = Guesser(adapters, PASSWORD)
        await ann.guess(LOCKOUT_STREAK + 10)
        assert await ann.wait_after() is not None

    async def test_one_that_comes_late_with_an_earlier_time_is_not_refused(
        self, adapters: Adapters, kind: GuessKind
    ) -> None:
        ann = Guesser(adapters, kind)
        for _ in range(5):
            assert await ann.wait_after() is None
            ann.now -= MOMENT
        assert await ann.wait_after() == pytest.approx(1.001)

    async def test_numbers_and_kinds_are_counted_apart(self, adapters: Adapters) -> None:
        ann = Guesser(adapters)
        await ann.guess(5)
        assert await ann.wait_after() == 1
        assert await Guesser(adapters, PASSWORD).wait_after() is None
        assert await Guesser(adapters, CODE, BOB).wait_after() is None

    async def test_of_many_at_once_five_are_let_through(self, adapters: Adapters, kind: GuessKind) -> None:
        ann = Guesser(adapters, kind)
        for table in ({"table": "wrong_guesses"}, {"rows_of": "wrong_guesses"}):
            results = await adapters.race(*(ann.wait_after() for _ in range(20)), **table)
            assert sorted(map(str, results)) == ["1.0"] * 15 + ["None"] * 5
            ann.now += 2 * DAY
            await adapters.guess_limits.record_wrong(ANN, kind, now=ann.now)
            await adapters.guess_limits.clear(ANN, kind)

    async def test_of_two_hundred_at_once_five_are_let_through(self, adapters: Adapters, kind: GuessKind) -> None:
        ann = Guesser(adapters, kind)
        results = await asyncio.gather(*(ann.wait_after() for _ in range(200)))
        assert (results.count(None), results.count(1)) == (5, 195)

    async def test_a_right_guess_ends_the_streak_but_not_the_hour(self, adapters: Adapters, kind: GuessKind) -> None:
        ann = Guesser(adapters, kind)
        begun = ann.now
        await ann.guess(5)
        await ann.guess()
        await adapters.guess_limits.clear(ANN, kind)
        assert [await ann.wait_after() for _ in range(6)] == [None] * 5 + [(begun + HOUR - ann.now).total_seconds()]

    async def test_right_guesses_cost_nothing(self, adapters: Adapters, kind: GuessKind) -> None:
        ann = Guesser(adapters, kind)
        for _ in range(50):
            assert await ann.wait_after() is None
            await adapters.guess_limits.clear(ANN, kind)

    async def test_nothing_to_forgive_is_no_error(self, adapters: Adapters, kind: GuessKind) -> None:
        await adapters.guess_limits.clear(ANN, kind)
        ann = Guesser(adapters, kind)
        assert [await ann.wait_after() for _ in range(6)] == [None] * 5 + [1]

    async def test_many_guessers_and_many_forgiven_at_once(self, adapters: Adapters, kind: GuessKind) -> None:
        ann = Guesser(adapters, kind)

        async def right() -> None:
            if await ann.wait_after() is None:
                await adapters.guess_limits.clear(ANN, kind)

        assert names(await asyncio.gather(*(right() for _ in range(60)), return_exceptions=True)) == {"NoneType": 60}

    async def test_an_operator_resets_both_kinds_of_one_number(self, adapters: Adapters) -> None:
        for kind in GuessKind:
            await Guesser(adapters, kind).guess(5)
        await Guesser(adapters, CODE, BOB).guess(5)
        assert await adapters.guess_limits.reset(ANN)
        assert not await adapters.guess_limits.reset(ANN)
        for kind in GuessKind:
            assert await Guesser(adapters, kind).wait_after() is None
        assert await Guesser(adapters, CODE, BOB).wait_after() is not None

    async def test_after_a_reset_codes_are_on_again(self, adapters: Adapters) -> None:
        ann = Guesser(adapters)
        await ann.guess(LOCKOUT_STREAK)
        await adapters.guess_limits.reset(ANN)
        await ann.guess(LOCKOUT_STREAK)
        with pytest.raises(OtpLocked):
            await adapters.guess_limits.record_wrong(ANN, CODE, now=ann.now)

    async def test_a_rolled_back_guess_is_none(self, adapters: Adapters, kind: GuessKind) -> None:
        ann = Guesser(adapters, kind)
        for _ in range(10):
            async with adapters.rolled_back():
                assert await ann.wait_after() is None
        await ann.guess(4)
        async with adapters.rolled_back():
            await adapters.guess_limits.clear(ANN, kind)
            await adapters.guess_limits.reset(ANN)
        assert [await ann.wait_after() for _ in range(2)] == [None, 1]

    async def test_purge_gives_nothing_back(self, adapters: Adapters, kind: GuessKind) -> None:
        ann = Guesser(adapters, kind)
        begun = ann.now
        await ann.guess(GUESSES_A_DAY)
        ann.now = begun + DAY - MOMENT
        await adapters.guess_limits.purge(now=ann.now)
        assert await ann.wait_after() == pytest.approx(0.001)

    async def test_a_streak_of_wrong_codes_is_kept_though_they_are_rare(self, adapters: Adapters) -> None:
        ann = Guesser(adapters)
        for _ in range(5):
            ann.now += 2 * DAY
            await adapters.guess_limits.purge(now=ann.now)
            await ann.guess(GUESSES_A_DAY)
        with pytest.raises(OtpLocked):
            await adapters.guess_limits.record_wrong(ANN, CODE, now=ann.now)
        await adapters.guess_limits.purge(now=ann.now + STREAK_RETENTION + MOMENT)
        assert not await adapters.guess_limits.reset(ANN)

    async def test_purge_removes_what_has_no_effect_any_more(self, adapters: Adapters) -> None:
        await Guesser(adapters, PASSWORD).guess()
        await Guesser(adapters, CODE, BOB).guess()
        await adapters.guess_limits.clear(BOB, CODE)
        await adapters.guess_limits.purge(now=adapters.clock.now() + DAY + MOMENT)
        assert not await adapters.guess_limits.reset(ANN)
        assert not await adapters.guess_limits.reset(BOB)

        for later, remembered in [(timedelta(), True), (MOMENT, False)]:
            ann = Guesser(adapters)
            await ann.guess()
            await adapters.guess_limits.purge(now=ann.now + STREAK_RETENTION + later)
            assert await adapters.guess_limits.reset(ANN) is remembered


async def send(
    adapters: Adapters, now: datetime, mobile: MobileNumber = ANN, standing: Standing = Standing.FIRST
) -> float | None:
    """None if it was sent, else the seconds to wait."""
    try:
        await adapters.send_limits.record(mobile, now=now, standing=standing)
    except CodesSentTooOften as error:
        return error.retry_after
    return None


class TestSending:
    async def test_sixty_seconds_apart(self, adapters: Adapters) -> None:
        now = adapters.clock.now()
        assert [await send(adapters, now) for _ in range(3)] == [None, 60, 60]
        assert await send(adapters, now + timedelta(seconds=59.999)) == pytest.approx(0.001)
        assert await send(adapters, now + timedelta(seconds=60)) is None

    @pytest.mark.parametrize("rule", SENDING_RULES, ids=str)
    async def test_of_who_never_rests_no_rule_is_broken(self, adapters: Adapters, rule: object) -> None:
        begun = now = adapters.clock.now()
        sent: list[datetime] = []
        while now < begun + 2 * DAY:
            wait = await send(adapters, now)
            if wait is None:
                sent.append(now)
            now += timedelta(seconds=wait or 0)
        for one in SENDING_RULES:
            busiest = max(sum(start <= time < start + one.within for time in sent) for start in sent)
            assert busiest == one.most, one
        assert len(sent) == 20

    async def test_three_in_ten_minutes_five_an_hour_ten_a_day(self, adapters: Adapters) -> None:
        begun = adapters.clock.now()
        expected = [0, 60, 120, 600, 660, 3_600, 3_660, 3_720, 4_200, 4_260, 86_400, 86_460]
        now, sent = begun, list[float]()
        while len(sent) < len(expected):
            wait = await send(adapters, now)
            if wait is None:
                sent.append((now - begun).total_seconds())
            now += timedelta(seconds=wait or 0)
        assert sent == expected

    async def test_numbers_are_counted_each_by_itself(self, adapters: Adapters) -> None:
        now = adapters.clock.now()
        assert [await send(adapters, now, mobile) for mobile in (ANN, BOB, ANN, BOB)] == [None, None, 60, 60]

    async def test_of_many_at_once_one_is_sent(self, adapters: Adapters) -> None:
        now = adapters.clock.now()
        for table in ({"table": "codes_sent"}, {"rows_of": "codes_sent"}):
            results = await adapters.race(*(send(adapters, now) for _ in range(20)), **table)
            assert sorted(map(str, results)) == ["60.0"] * 19 + ["None"]
            now += timedelta(minutes=1)
        results = await asyncio.gather(*(send(adapters, now + DAY) for _ in range(200)))
        assert sorted(map(str, results)) == ["60.0"] * 199 + ["None"]

    async def test_a_rolled_back_sending_was_none(self, adapters: Adapters) -> None:
        now = adapters.clock.now()
        async with adapters.rolled_back():
            assert await send(adapters, now) is None
        assert await send(adapters, now) is None

    async def test_purge_gives_nothing_back(self, adapters: Adapters) -> None:
        begun = now = adapters.clock.now()
        while (wait := await send(adapters, now)) is None or wait < 20_000:
            now += timedelta(seconds=wait or 0)
        await adapters.send_limits.purge(now=begun + DAY - MOMENT)
        assert await send(adapters, begun + DAY - MOMENT) == pytest.approx(0.001)
        await adapters.send_limits.purge(now=now + DAY + MOMENT)
        for later in range(3):
            assert await send(adapters, begun + timedelta(minutes=later)) is None, "nothing is left of it"

    async def sent_in_a_day(self, adapters: Adapters, now: datetime, standing: Standing) -> int:
        """By somebody who never rests."""
        end, count = now + DAY, 0
        while now < end:
            wait = await send(adapters, now, standing=standing)
            count += wait is None
            now += timedelta(seconds=wait or 0)
        return count

    async def test_strangers_leave_some_of_the_day_for_known_devices(self, adapters: Adapters) -> None:
        now = adapters.clock.now()
        assert await self.sent_in_a_day(adapters, now, Standing.STRANGE) == 10 - SENDINGS_RESERVED
        assert await self.sent_in_a_day(adapters, now, Standing.KNOWN) == SENDINGS_RESERVED, "ten in all"
        assert await send(adapters, now + HOUR, standing=Standing.FIRST) is not None

    async def test_a_known_device_does_not_wait_for_the_codes_of_strangers(self, adapters: Adapters) -> None:
        now = adapters.clock.now()
        for minute in range(3):
            assert await send(adapters, now + timedelta(minutes=minute), standing=Standing.STRANGE) is None
        now += timedelta(minutes=2)
        assert [await send(adapters, now, standing=Standing.KNOWN) for _ in range(2)] == [None, 60]
        assert await send(adapters, now + timedelta(seconds=60), standing=Standing.KNOWN) is None

    async def test_without_known_devices_there_are_ten(self, adapters: Adapters) -> None:
        assert await self.sent_in_a_day(adapters, adapters.clock.now(), Standing.FIRST) == 10

    async def test_in_all_so_many_are_sent_in_a_day(self, adapters: Adapters) -> None:
        day, record = adapters.clock.now().date(), adapters.send_limits.record_in_total
        assert await record(day=day, most=3, is_sent=False) == 0
        assert [await record(day=day, most=3, is_sent=True) for _ in range(3)] == [1, 2, 3]
        for is_sent in (True, False):
            with pytest.raises(CodesExhausted):
                await record(day=day, most=3, is_sent=is_sent)
        assert await record(day=day, most=4, is_sent=True) == 4, "what is kept for known devices"
        assert await record(day=day + DAY, most=3, is_sent=True) == 1

    async def test_of_many_at_once_in_all_so_many_are_sent(self, adapters: Adapters) -> None:
        day, record = adapters.clock.now().date(), adapters.send_limits.record_in_total
        calls = [record(day=day, most=7, is_sent=True) for _ in range(20)]
        results = await adapters.race(*calls, table="codes_total")
        assert sorted(map(str, (one for one in results if isinstance(one, int)))) == [str(n) for n in range(1, 8)]
        assert sum(isinstance(one, CodesExhausted) for one in results) == 13

    async def test_a_rolled_back_one_is_not_in_the_total(self, adapters: Adapters) -> None:
        day, record = adapters.clock.now().date(), adapters.send_limits.record_in_total
        async with adapters.rolled_back():
            await record(day=day, most=3, is_sent=True)
        assert await record(day=day, most=3, is_sent=True) == 1
        await adapters.send_limits.purge(now=adapters.clock.now())
        assert await record(day=day, most=3, is_sent=True) == 2
        await adapters.send_limits.purge(now=adapters.clock.now() + DAY)
        assert await record(day=day, most=3, is_sent=True) == 1
