"""What a stranger who knows a number cannot take from its owner."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from adapters.memory.accounts import PlainHasher
from application.accounts.otp import SentOtp
from application.accounts.sessions import SignedIn
from domain.accounts import LOCKOUT_STREAK, MAX_KNOWN_DEVICES, Device
from domain.errors import (
    CodesExhausted,
    CodesSentTooOften,
    CredentialsInvalid,
    DomainError,
    OtpInvalid,
    OtpLocked,
    PasswordWrong,
    PaymentsUnavailable,
    ProofRequired,
    TooManyGuesses,
)
from tests.unit.conftest import ANN, World
from tests.unit.signing_in import LOGIN, PHONE, RESET, UNKNOWN, caller_of, code_for, log_in_by_code, wrong

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
STRANGER = Device("A stranger", "198.51.100.0/24")


class Hasher(PlainHasher):
    """Counts the wrong codes that were compared with a right one."""

    evaluated = 0

    async def matches(self, secret: str, hashed: str | None, *, caller: str = "") -> bool:
        matches = await super().matches(secret, hashed)
        self.evaluated += hashed is not None and not matches
        return matches


class People:
    """The owner of a number, who has a phone that codes arrive at, and a stranger who knows the number."""

    def __init__(self, **settings: str) -> None:
        self.world = World(RATE_LIMITS="on", **settings)
        self.sender = self.world.deliver_codes()
        self.hasher = Hasher()
        self.world.replace(code_hasher=self.hasher)
        self.outcomes: Counter[str] = Counter()

    async def send(self, device: Device) -> SentOtp | None:
        """With the code that the owner's phone shows; None if it is refused."""
        try:
            sent = await self.world.container.send_otp()(mobile=ANN, purpose=LOGIN, device=device)
        except (CodesSentTooOften, CodesExhausted):
            return None
        return SentOtp(sent.challenge, self.sender.sent[-1][1])

    async def log_in(self, device: Device = PHONE) -> SignedIn:
        sent = await self.send(device)
        assert sent is not None, "no code is sent"
        assert sent.code is not None
        verify = self.world.container.verify_otp()
        return await verify(mobile=ANN, code=sent.code, device=device, challenge=sent.challenge)

    async def guess(self, challenge: str | None = None, device: Device = STRANGER) -> None:
        code = wrong(self.sender.sent[-1][1])
        try:
            await self.world.container.verify_otp()(mobile=ANN, code=code, device=device, challenge=challenge)
            self.outcomes["right"] += 1
        except DomainError as error:
            self.outcomes[error.code] += 1

    async def guess_password(self, device: Device = STRANGER) -> None:
        try:
            await self.world.container.log_in()(mobile=ANN, password="wrong horse", device=device)
        except (CredentialsInvalid, TooManyGuesses) as error:
            self.outcomes[error.code] += 1


@pytest.fixture
async def people() -> People:
    people = People()
    await people.world.user()
    return people


def known(signed_in: SignedIn, device: Device = PHONE) -> Device:
    """The device as it comes back, with the token of its last login."""
    return Device(device.name, device.network, signed_in.device_token or "")


class TestAStranger:
    async def test_who_tries_all_day_keeps_no_known_device_from_logging_in(self, people: People) -> None:
        phone = known(await people.log_in())
        people.world.clock.move(DAY)
        before = len(people.sender.sent)
        for minute in range(24 * 60):
            if sent := await people.send(STRANGER):
                for _ in range(6):
                    await people.guess(sent.challenge)
            await people.guess()
            if minute % 300 == 200:
                await people.guess()
                phone = known(await people.log_in(phone))
            people.world.clock.move(MINUTE)
        assert people.outcomes["right"] == 0
        assert people.hasher.evaluated <= 20, "of the stranger's; the owner's were right"
        assert len(people.sender.sent) - before <= 10

    async def test_who_only_guesses_keeps_no_new_device_from_logging_in(self, people: People) -> None:
        assert await people.send(PHONE)
        for _ in range(60):
            people.world.clock.move(timedelta(seconds=70))
            await people.guess()
        people.world.clock.move(timedelta(hours=1))
        sent = await people.send(PHONE)
        assert sent is not None
        for _ in range(10):
            await people.guess()
        assert sent.code is not None
        verify = people.world.container.verify_otp()
        assert await verify(mobile=ANN, code=sent.code, device=PHONE, challenge=sent.challenge)

    async def test_who_switches_codes_off_leaves_them_on_for_known_devices(self, people: People) -> None:
        phone = known(await people.log_in())
        while people.outcomes["codes_off"] == 0:
            people.world.clock.move(timedelta(hours=1))
            await people.send(STRANGER)
            for _ in range(3):
                await people.guess()
        assert max(one.streak for one in people.world.guess_limits.table.all()) == LOCKOUT_STREAK
        people.world.clock.move(timedelta(hours=1))
        await people.log_in(phone)
        people.world.clock.move(timedelta(hours=2))
        with pytest.raises(OtpLocked):
            await people.log_in(PHONE)

    async def test_who_guesses_passwords_keeps_no_known_device_from_using_the_right_one(self, people: People) -> None:
        phone = known(await people.log_in())
        owner = next(iter(people.world.users.table.all()))
        await people.world.container.set_password()(
            user=owner, new_password="correct horse", keep_session=people.world.sessions.table.all()[0].id
        )
        for _ in range(20):
            await people.guess_password()
        assert people.outcomes["too_many_guesses"] == 15
        log_in = people.world.container.log_in()
        with pytest.raises(TooManyGuesses):
            await log_in(mobile=ANN, password="correct horse", device=PHONE)
        assert await log_in(mobile=ANN, password="correct horse", device=phone)


class TestDevices:
    async def test_is_given_a_token_that_is_stored_hashed(self, people: People) -> None:
        first = await people.log_in()
        token = first.device_token
        assert token is not None
        assert len(token) == 43
        assert [key for key, _ in people.world.sessions.devices.items()] != [token.encode()]
        people.world.clock.move(DAY)
        assert (await people.log_in(known(first))).device_token == token, "it stays known by the same"

    async def test_a_token_that_the_account_does_not_know_is_not_adopted(self, people: People) -> None:
        planted = Device("A phone", "203.0.113.0/24", "planted")
        signed_in = await people.log_in(planted)
        assert signed_in.device_token != "planted"
        for _ in range(5):
            await people.guess(device=planted)
        assert not [key for key, _ in people.world.guess_limits.table.items() if key[1]]

    async def test_a_device_of_another_account_is_strange(self, people: People) -> None:
        first = await people.log_in()
        await people.world.user(UNKNOWN)
        theirs = known(first)
        sent = await people.world.container.send_otp()(mobile=UNKNOWN, purpose=LOGIN, device=theirs)
        code = people.sender.sent[-1][1]
        verify = people.world.container.verify_otp()
        other = await verify(mobile=UNKNOWN, code=code, device=theirs, challenge=sent.challenge)
        assert other.device_token != first.device_token

    async def test_logging_out_leaves_it_known(self, people: People) -> None:
        first = await people.log_in()
        await people.world.container.end_session()(caller=await caller_of(people.world, first))
        people.world.clock.move(DAY)
        assert (await people.log_in(known(first))).device_token == first.device_token

    async def test_ending_its_session_from_elsewhere_makes_it_strange(self, people: People) -> None:
        lost = await people.log_in()
        people.world.clock.move(DAY)
        mine = await people.log_in()
        caller = await caller_of(people.world, mine)
        [other] = [s.id for s in people.world.sessions.table.all() if s.id != caller.session_id]
        await people.world.container.end_session()(caller=caller, session_id=other)
        people.world.clock.move(DAY)
        assert (await people.log_in(known(lost))).device_token != lost.device_token
        people.world.clock.move(DAY)
        assert (await people.log_in(known(mine))).device_token == mine.device_token

    async def test_a_new_password_makes_all_others_strange(self, people: People) -> None:
        lost = await people.log_in()
        people.world.clock.move(DAY)
        mine = await people.log_in()
        caller = await caller_of(people.world, mine)
        await people.world.container.set_password()(
            user=caller.user, new_password="correct horse", keep_session=caller.session_id
        )
        for signed_in, stays in ((lost, False), (mine, True)):
            people.world.clock.move(DAY)
            again = await people.log_in(known(signed_in))
            assert (again.device_token == signed_in.device_token) is stays

    async def test_an_account_knows_its_latest_twenty(self, people: People) -> None:
        first = await people.log_in()
        for _ in range(MAX_KNOWN_DEVICES):
            people.world.clock.move(DAY)
            await people.log_in()
        assert len(people.world.sessions.devices.all()) == MAX_KNOWN_DEVICES
        people.world.clock.move(DAY)
        assert (await people.log_in(known(first))).device_token != first.device_token


class TestDailyTotal:
    async def test_when_it_is_reached_known_devices_still_get_codes(self) -> None:
        people = People(OTP_DAILY="5")
        await people.world.user()
        await people.world.user(UNKNOWN)
        phone = known(await people.log_in())
        send = people.world.container.send_otp()
        for _ in range(3):
            people.world.clock.move(timedelta(minutes=11))
            await send(mobile=UNKNOWN, purpose=LOGIN)
        people.world.clock.move(timedelta(minutes=11))
        for mobile in (UNKNOWN, ANN, "+919876543219"):
            with pytest.raises(CodesExhausted):
                await send(mobile=mobile, purpose=LOGIN)
        assert len(people.sender.sent) == 4
        await people.log_in(phone)
        people.world.clock.move(DAY)
        await send(mobile=UNKNOWN, purpose=LOGIN)

    async def test_an_unknown_number_costs_nothing_of_it(self) -> None:
        people = People(OTP_DAILY="5")
        await people.world.user()
        for number in range(20):
            await people.world.container.send_otp()(mobile=f"+9198765433{number:02d}", purpose=LOGIN)
        assert people.sender.sent == []
        assert await people.log_in()


class TestPasswordsByRfc8265:
    @pytest.mark.parametrize(
        ("set_as", "typed"),
        [
            ("café noir 1", "cafe\u0301 noir 1"),
            ("cafe\u0301 noir 1", "café noir 1"),
            ("correct\u00a0horse", "correct horse"),
            ("correct horse", "correct\u3000horse"),
        ],
    )
    async def test_one_password_in_several_forms(self, world: World, set_as: str, typed: str) -> None:
        user = await world.user()
        await world.container.set_password()(user=user, new_password=set_as)
        await world.container.log_in()(mobile=ANN, password=typed, device=PHONE)

    async def test_an_older_hash_stays_valid_and_is_replaced(self, world: World) -> None:
        user = await world.user()
        typed = "cafe\u0301 noir 1"
        await world.users.set_password(user.id, f"plain:{typed}")  # as an earlier version stored it
        with pytest.raises(CredentialsInvalid):
            await world.container.log_in()(mobile=ANN, password="café noir 2", device=PHONE)
        assert await world.container.log_in()(mobile=ANN, password=typed, device=PHONE)
        assert (await world.now(user)).password_hash == "plain:café noir 1"
        for form in (typed, "café noir 1"):
            assert await world.container.log_in()(mobile=ANN, password=form, device=PHONE)

    async def test_it_is_the_current_password_too(self, world: World) -> None:
        user = await world.user()
        await world.container.set_password()(user=user, new_password="café noir 1")
        caller = await caller_of(world, await log_in_by_code(world))
        change = world.container.change_password()
        await change(caller=caller, new_password="cafe\u0301 noir 2", code=None, current_password="cafe\u0301 noir 1")
        await world.container.log_in()(mobile=ANN, password="café noir 2", device=PHONE)


class TestDeletionByProof:
    async def test_without_one_nothing_happens(self, world: World) -> None:
        await world.user()
        caller = await caller_of(world, await log_in_by_code(world))
        delete = world.container.delete_user()
        with pytest.raises(ProofRequired):
            await delete(caller=caller, code=None, current_password=None)
        with pytest.raises(PasswordWrong):
            await delete(caller=caller, code=None, current_password="wrong horse")
        with pytest.raises(OtpInvalid):
            await delete(caller=caller, code=wrong(await code_for(world)), current_password=None)
        assert len(world.users.table.all()) == 1

    @pytest.mark.parametrize("purpose", [LOGIN, RESET])
    async def test_by_a_code(self, world: World, purpose: str) -> None:
        await world.user()
        caller = await caller_of(world, await log_in_by_code(world))
        sent = await world.container.send_otp()(mobile=ANN, purpose=LOGIN if purpose == LOGIN else RESET)
        delete = world.container.delete_user()
        await delete(caller=caller, code=sent.code, current_password=None, challenge=sent.challenge)
        assert world.users.table.all() == []

    async def test_by_the_password(self, world: World) -> None:
        user = await world.user()
        await world.container.set_password()(user=user, new_password="correct horse")
        caller = await caller_of(world, await log_in_by_code(world))
        await world.container.delete_user()(caller=caller, code=None, current_password="correct horse")
        assert world.users.table.all() == []

    async def test_if_stripe_is_away_the_same_code_proves_it_again(self, world: World) -> None:
        user = await world.user()
        caller = await caller_of(world, await log_in_by_code(world))
        await world.container.upgrade_tier()(user=user)
        world.gateway.error = PaymentsUnavailable()
        code = await code_for(world)
        delete = world.container.delete_user()
        with pytest.raises(PaymentsUnavailable):
            await delete(caller=caller, code=code, current_password=None)
        world.gateway.error = None
        await delete(caller=caller, code=code, current_password=None)
        assert world.users.table.all() == []
