"""Guessing at codes and passwords: what a number's owner may do, and what nobody can."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from adapters.memory.accounts import PlainHasher
from application.ports.accounts import SecretHasher
from domain.accounts import GUESSES_A_DAY, GUESSES_AN_HOUR, LOCKOUT_STREAK, MobileNumber, OtpPurpose
from domain.errors import (
    CodesSentTooOften,
    CredentialsInvalid,
    DomainError,
    InvalidInput,
    OtpInvalid,
    PasswordWrong,
    TooManyGuesses,
    UserNotFound,
)
from tests.unit.conftest import ANN, World
from tests.unit.signing_in import (
    LOGIN,
    PHONE,
    RESET,
    UNKNOWN,
    caller_of,
    code_for,
    is_alive,
    log_in_by_code,
    wrong,
)

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
COMMON = ["password", "PASSWORD", "Password1", "12345678", "qwertyuiop", "iloveyou", "football", "1q2w3e4r"]


class CountingHasher(PlainHasher):
    """Counts what was compared with a code or a password, and takes its time over it."""

    def __init__(self) -> None:
        self.evaluated = 0
        self.compared = 0

    async def matches(self, secret: str, hashed: str | None, *, caller: str = "") -> bool:
        self.compared += 1
        self.evaluated += hashed is not None
        await asyncio.sleep(0)
        return await super().matches(secret, hashed)


class Guessers:
    """A World in which every comparison is counted."""

    def __init__(self, **settings: str) -> None:
        self.world = World(**settings)
        self.hasher = CountingHasher()
        self.world.replace(code_hasher=self.hasher, password_hasher=self.hasher)
        self.outcomes: Counter[str] = Counter()

    async def guess(self, code: str, *, mobile: str = ANN, purpose: OtpPurpose = LOGIN) -> None:
        await asyncio.sleep(0)
        try:
            if purpose is LOGIN:
                await self.world.container.verify_otp()(mobile=mobile, code=code, device=PHONE)
            else:
                await self.world.container.reset_password()(mobile=mobile, code=code, new_password="new horse")
            self.outcomes["right"] += 1
        except DomainError as error:
            self.outcomes[error.code] += 1

    async def unknown_code(self, purpose: OtpPurpose = LOGIN) -> str:
        """Send one, and return another."""
        return wrong(await code_for(self.world, purpose))


@pytest.fixture
async def guessers() -> Guessers:
    guessers = Guessers()
    await guessers.world.user()
    return guessers


@pytest.mark.parametrize("purpose", OtpPurpose)
class TestCodes:
    async def test_of_two_hundred_at_once_five_are_evaluated_whatever_is_sent_meanwhile(
        self, guessers: Guessers, purpose: OtpPurpose
    ) -> None:
        code = await guessers.unknown_code(purpose)

        async def resend() -> None:
            await asyncio.sleep(0)
            await guessers.unknown_code(purpose)

        guesses = [guessers.guess(code, purpose=purpose) for _ in range(200)]
        await asyncio.gather(*guesses[:100], resend(), *guesses[100:])
        assert guessers.hasher.evaluated == 5
        assert guessers.outcomes.keys() == {"otp_invalid", "too_many_guesses"}
        assert guessers.outcomes.total() == 200

    async def test_a_resend_gives_no_guess_back(self, guessers: Guessers, purpose: OtpPurpose) -> None:
        for _ in range(20):
            code = await guessers.unknown_code(purpose)
            for _ in range(10):
                await guessers.guess(code, purpose=purpose)
        assert guessers.hasher.evaluated == 5

    async def test_of_two_hundred_right_ones_at_once_one_gets_through(
        self, guessers: Guessers, purpose: OtpPurpose
    ) -> None:
        code = await code_for(guessers.world, purpose)
        await asyncio.gather(*(guessers.guess(code, purpose=purpose) for _ in range(200)))
        assert guessers.outcomes["right"] == 1
        assert len(guessers.world.sessions.table.all()) == (1 if purpose is LOGIN else 0)
        assert guessers.hasher.evaluated <= 5

    async def test_a_day_of_guessing_is_ten_guesses(self, guessers: Guessers, purpose: OtpPurpose) -> None:
        for minute in range(24 * 60):
            if minute % 4 == 0:
                code = await guessers.unknown_code(purpose)
            for _ in range(3):
                await guessers.guess(code, purpose=purpose)
            guessers.world.clock.move(timedelta(minutes=1))
        assert guessers.hasher.evaluated == GUESSES_A_DAY // 2
        assert "right" not in guessers.outcomes

    async def test_after_a_hundred_in_a_row_codes_are_off_for_a_day(
        self, guessers: Guessers, purpose: OtpPurpose
    ) -> None:
        while guessers.hasher.evaluated < LOCKOUT_STREAK:
            await guessers.guess(await guessers.unknown_code(purpose), purpose=purpose)
            guessers.world.clock.move(timedelta(hours=1))
            await guessers.world.container.purge_expired()()
        for _ in range(23):
            await guessers.guess(await code_for(guessers.world, purpose), purpose=purpose)
            guessers.world.clock.move(timedelta(hours=1))
        assert guessers.outcomes["codes_off"] == 23
        assert guessers.hasher.evaluated == LOCKOUT_STREAK
        await guessers.guess(await code_for(guessers.world, purpose), purpose=purpose)
        assert guessers.outcomes["right"] == 1

    async def test_an_operator_lets_codes_be_used_at_once(self, guessers: Guessers, purpose: OtpPurpose) -> None:
        while guessers.hasher.evaluated < LOCKOUT_STREAK:
            await guessers.guess(await guessers.unknown_code(purpose), purpose=purpose)
            guessers.world.clock.move(timedelta(hours=1))
        assert await guessers.world.guess_limits.reset(MobileNumber(ANN))
        await guessers.guess(await code_for(guessers.world, purpose), purpose=purpose)
        assert guessers.outcomes["right"] == 1

    async def test_the_owner_gets_in_after_the_wait(self, guessers: Guessers, purpose: OtpPurpose) -> None:
        for _ in range(5):
            await guessers.guess(await guessers.unknown_code(purpose), purpose=purpose)
        code = await code_for(guessers.world, purpose)
        await guessers.guess(code, purpose=purpose)
        assert guessers.outcomes == {"otp_invalid": 5, "too_many_guesses": 1}
        guessers.world.clock.move(SECOND)
        await guessers.guess(code, purpose=purpose)
        assert guessers.outcomes["right"] == 1, "the refused one was none of the code's guesses"
        for _ in range(4):
            await guessers.guess(await guessers.unknown_code(purpose), purpose=purpose)
        assert guessers.outcomes["too_many_guesses"] == 1, "and the row has ended"

    async def test_without_a_code_nothing_is_counted(self, guessers: Guessers, purpose: OtpPurpose) -> None:
        for _ in range(50):
            await guessers.guess("123456", purpose=purpose)
        assert guessers.outcomes == {"otp_invalid": 50}
        assert (guessers.hasher.evaluated, guessers.hasher.compared) == (0, 50)
        await guessers.guess(await code_for(guessers.world, purpose), purpose=purpose)
        assert guessers.outcomes["right"] == 1


async def test_both_purposes_are_guessed_at_on_one_budget(guessers: Guessers) -> None:
    for purpose in [LOGIN, RESET] * 10:
        await guessers.guess(await guessers.unknown_code(purpose), purpose=purpose)
    assert guessers.hasher.evaluated == 5


class TestDecoys:
    """Where codes are delivered, a number that nobody has looks like one that somebody has."""

    @pytest.fixture
    async def guessers(self) -> Guessers:
        guessers = Guessers(RATE_LIMITS="on")
        guessers.world.deliver_codes()
        await guessers.world.user()
        return guessers

    async def answers(self, guessers: Guessers, mobile: str) -> list[str]:
        """To everything that can be done with a number and without a token."""
        world = guessers.world
        said = []
        for purpose in OtpPurpose:
            for _ in range(2):
                try:
                    said.append(str((await world.container.send_otp()(mobile=mobile, purpose=purpose)).code))
                except CodesSentTooOften as error:
                    said.append(f"{error.code} {error.retry_after}")
            for _ in range(7):
                guessers.outcomes.clear()
                await guessers.guess("not it", mobile=mobile, purpose=purpose)
                said += guessers.outcomes
            world.clock.move(timedelta(seconds=60))
        for _ in range(7):
            try:
                await world.container.log_in()(mobile=mobile, password="not it", device=PHONE)
            except (CredentialsInvalid, TooManyGuesses) as error:
                said.append(error.code)
        world.clock.move(-timedelta(seconds=120))
        return said

    async def test_cannot_be_recognised_by_answers_or_work(self, guessers: Guessers) -> None:
        seen = []
        for mobile in (ANN, UNKNOWN):
            before = (guessers.hasher.compared, guessers.hasher.evaluated)
            answers = await self.answers(guessers, mobile)
            done = (guessers.hasher.compared - before[0], guessers.hasher.evaluated - before[1])
            seen.append((answers, done))
        (known, compared), (unknown, compared_too) = seen
        assert known == unknown
        # Only a password that was never set, and a decoy's, are not hashed; both take the same time.
        assert compared == compared_too
        assert "None" in known
        assert "too_many_guesses" in known
        kept = [
            (one.purpose, one.expires_at, one.guesses_left, one.unbound_left)
            for _, one in guessers.world.challenges.table.all()
        ]
        assert kept[:2] == kept[2:]

    async def test_a_decoys_code_lets_nobody_in(self, guessers: Guessers) -> None:
        await guessers.world.container.send_otp()(mobile=UNKNOWN, purpose=LOGIN)
        [(_, challenge)] = guessers.world.challenges.table.all()
        code = challenge.code_hash.removeprefix("plain:")
        await guessers.guess(code, mobile=UNKNOWN)
        await guessers.guess(code, mobile=UNKNOWN, purpose=RESET)
        assert guessers.outcomes == {"otp_invalid": 2}
        assert guessers.world.sessions.table.all() == []

    async def test_there_are_none_where_codes_are_in_replies(self) -> None:
        world = World(RATE_LIMITS="on")
        for _ in range(2):
            with pytest.raises(UserNotFound):
                await world.container.send_otp()(mobile=UNKNOWN, purpose=LOGIN)
        assert world.challenges.table.all() == []
        assert world.send_limits.table.all() == []


class TestSending:
    async def test_is_limited_for_both_purposes_together(self) -> None:
        world = World(RATE_LIMITS="on")
        sender = world.deliver_codes()
        await world.user()
        send = world.container.send_otp()
        await send(mobile=ANN, purpose=LOGIN)
        [challenge] = world.challenges.table.all()
        for purpose in OtpPurpose:
            with pytest.raises(CodesSentTooOften) as refused:
                await send(mobile=ANN, purpose=purpose)
            assert refused.value.retry_after == 60
        assert len(sender.sent) == 1
        assert world.challenges.table.all() == [challenge], "the code that was sent is still good"
        world.clock.move(timedelta(seconds=60))
        await send(mobile=ANN, purpose=RESET)
        assert len(sender.sent) == 2

    async def test_is_not_where_limits_are_off(self, world: World) -> None:
        await world.user()
        for _ in range(20):
            await code_for(world)


class TestPasswords:
    @pytest.fixture
    async def guessers(self, guessers: Guessers) -> Guessers:
        user = await guessers.world.user(UNKNOWN)
        user = await guessers.world.now(replace(user, mobile=MobileNumber(ANN)))
        await guessers.world.container.set_password()(user=user, new_password="correct horse")
        return guessers

    async def log_in(self, guessers: Guessers, password: str, mobile: str = ANN) -> None:
        await asyncio.sleep(0)
        try:
            await guessers.world.container.log_in()(mobile=mobile, password=password, device=PHONE)
            guessers.outcomes["right"] += 1
        except DomainError as error:
            guessers.outcomes[error.code] += 1

    async def test_of_two_hundred_at_once_five_are_evaluated(self, guessers: Guessers) -> None:
        await asyncio.gather(*(self.log_in(guessers, "wrong horse") for _ in range(200)))
        assert guessers.outcomes == {"credentials_invalid": 5, "too_many_guesses": 195}
        assert guessers.hasher.evaluated == 5
        await self.log_in(guessers, "correct horse")
        assert guessers.outcomes["right"] == 0
        guessers.world.clock.move(SECOND)
        await self.log_in(guessers, "correct horse")
        assert guessers.outcomes["right"] == 1

    async def test_a_day_of_guessing_is_twenty_guesses(self, guessers: Guessers) -> None:
        for _ in range(24 * 60):
            await self.log_in(guessers, "wrong horse")
            guessers.world.clock.move(timedelta(minutes=1))
        assert guessers.hasher.evaluated == GUESSES_A_DAY

    @pytest.mark.parametrize("mobile", ["+919876543219", UNKNOWN])
    async def test_where_there_is_none_the_answers_are_the_same(self, guessers: Guessers, mobile: str) -> None:
        for _ in range(7):
            await self.log_in(guessers, "correct horse", mobile)
        assert guessers.outcomes == {"credentials_invalid": 5, "too_many_guesses": 2}

    async def test_right_ones_cost_nothing(self, guessers: Guessers) -> None:
        for _ in range(50):
            await self.log_in(guessers, "correct horse")
        assert guessers.outcomes == {"right": 50}

    async def test_the_current_one_is_guessed_at_on_a_budget_of_the_session(self, guessers: Guessers) -> None:
        mine = await log_in_by_code(guessers.world)
        caller = await caller_of(guessers.world, mine)
        change = guessers.world.container.change_password()
        for _ in range(6):
            await self.log_in(guessers, "wrong horse")
        assert guessers.outcomes == {"credentials_invalid": 5, "too_many_guesses": 1}
        for _ in range(5):
            with pytest.raises(PasswordWrong):
                await change(caller=caller, new_password="new horse", code=None, current_password="wrong horse")
        with pytest.raises(TooManyGuesses):
            await change(caller=caller, new_password="new horse", code=None, current_password="correct horse")
        guessers.world.clock.move(SECOND)
        await change(caller=caller, new_password="new horse", code=None, current_password="correct horse")
        await self.log_in(guessers, "new horse")
        assert guessers.outcomes["right"] == 1

    async def test_a_code_is_guessed_at_on_the_budget_of_codes_while_signed_in(self, guessers: Guessers) -> None:
        caller = await caller_of(guessers.world, await log_in_by_code(guessers.world))
        change = guessers.world.container.change_password()
        before = guessers.hasher.evaluated
        for _ in range(20):
            code = await guessers.unknown_code()
            with pytest.raises((OtpInvalid, TooManyGuesses)):
                await change(caller=caller, new_password="new horse", code=code, current_password=None)
        assert guessers.hasher.evaluated - before == 5
        guessers.world.clock.move(DAY)
        code = await code_for(guessers.world)
        await change(caller=caller, new_password="new horse", code=code, current_password=None)

    async def test_the_code_that_is_meant_for_it_costs_nothing_beside_another(self, guessers: Guessers) -> None:
        caller = await caller_of(guessers.world, await log_in_by_code(guessers.world))
        change = guessers.world.container.change_password()
        for number in range(GUESSES_AN_HOUR + 1):
            await code_for(guessers.world)
            code = await code_for(guessers.world, RESET)
            await change(caller=caller, new_password=f"new horse {number}", code=code, current_password=None)

    async def test_codes_that_are_off_for_strangers_still_prove_who_is_signed_in(self, guessers: Guessers) -> None:
        caller = await caller_of(guessers.world, await log_in_by_code(guessers.world))
        while guessers.outcomes["codes_off"] == 0:
            await guessers.guess(await guessers.unknown_code())
            guessers.world.clock.move(timedelta(hours=2))
        code = await code_for(guessers.world)
        await guessers.world.container.change_password()(
            caller=caller, new_password="new horse", code=code, current_password=None
        )


class TestCommonPasswords:
    @pytest.mark.parametrize("password", COMMON)
    async def test_are_refused_before_anything_is_spent(self, world: World, password: str) -> None:
        user = await world.user()
        mine = await log_in_by_code(world)
        caller = await caller_of(world, mine)
        code = await code_for(world, RESET)
        challenges = world.challenges.table.all()
        with pytest.raises(InvalidInput) as refused:
            await world.container.reset_password()(mobile=ANN, code=code, new_password=password)
        assert refused.value.pointer == "/newPassword"
        for proof in ({"code": code, "current_password": None}, {"code": None, "current_password": "x"}):
            with pytest.raises(InvalidInput):
                await world.container.change_password()(caller=caller, new_password=password, **proof)
        assert world.challenges.table.all() == challenges
        assert (await world.now(user)).password_hash is None
        assert await is_alive(world, mine)

    @pytest.mark.parametrize("password", ["correct horse", "pässwörter 🌻", "0123456789abcdef", "xkzwqvyj"])
    async def test_others_are_not(self, world: World, password: str) -> None:
        await world.user()
        await world.container.reset_password()(mobile=ANN, code=await code_for(world, RESET), new_password=password)
        await world.container.log_in()(mobile=ANN, password=password, device=PHONE)


def test_the_hashers_of_codes_and_passwords_are_not_the_same(world: World) -> None:
    hashers: list[SecretHasher] = [world.container.code_hasher(), world.container.password_hasher()]
    assert hashers[0] is not hashers[1]
