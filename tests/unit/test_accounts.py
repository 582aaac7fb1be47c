"""Signing up, codes, passwords and sessions."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from adapters.memory.accounts import PlainHasher
from application.accounts.otp import CheckedCode
from domain.accounts import OTP_GUESSES, OtpChallenge, OtpPurpose, Session, User
from domain.billing import Tier
from domain.errors import (
    CredentialsInvalid,
    InvalidMobile,
    MobileTaken,
    OtpInvalid,
    PasswordWrong,
    UserNotFound,
)
from domain.ids import SessionId, UserId
from tests.unit.conftest import ANN, World
from tests.unit.signing_in import LOGIN, PHONE, RESET, UNKNOWN, caller_of, code_for, is_alive, log_in_by_code, wrong


class TestSignUp:
    async def test_stores_a_basic_user_under_one_spelling(self, world: World) -> None:
        user = await world.container.sign_up()(mobile="098765 43210", name="Ann")
        assert (user.mobile, user.name, user.tier(user.created_at), user.password_hash) == (
            ANN,
            "Ann",
            Tier.BASIC,
            None,
        )
        assert user.created_at == world.clock.now()
        assert await world.now(user) == user

    @pytest.mark.parametrize("spelling", [ANN, "9876543210", "+91 98765-43210", "0091 9876543210"])
    async def test_a_number_signs_up_once_however_it_is_spelled(self, world: World, spelling: str) -> None:
        await world.user()
        with pytest.raises(MobileTaken):
            await world.user(spelling)

    async def test_what_is_no_number_is_refused(self, world: World) -> None:
        with pytest.raises(InvalidMobile):
            await world.user("call me")
        assert world.users.table.all() == []

    async def test_with_a_known_id_is_the_first_one(self, world: World) -> None:
        sign_up, user_id = world.container.sign_up(), UserId(uuid4())
        first = await sign_up(mobile=ANN, name="Ann", user_id=user_id)
        world.clock.move(timedelta(seconds=40))
        assert await sign_up(mobile=ANN, name="Ann", user_id=user_id) == first
        with pytest.raises(MobileTaken):
            await sign_up(mobile=ANN, name="Ann", user_id=UserId(uuid4()))


class TestSendOtp:
    async def test_hands_the_code_back_where_codes_go_into_replies(self, world: World) -> None:
        await world.user()
        code = await code_for(world)
        assert len(code) == 6
        assert code.isdecimal()

    async def test_an_unknown_number_is_reported_in_development(self, world: World) -> None:
        with pytest.raises(UserNotFound):
            await world.container.send_otp()(mobile=ANN, purpose=LOGIN)

    async def test_elsewhere_known_and_unknown_numbers_look_alike(self, world: World) -> None:
        sender = world.deliver_codes()
        await world.user()
        sent = [await world.container.send_otp()(mobile=one, purpose=RESET) for one in ("98765 43210", UNKNOWN)]
        assert [(one.code, len(one.challenge)) for one in sent] == [(None, 43)] * 2
        [(mobile, code, purpose)] = sender.sent
        assert (mobile, purpose) == (ANN, RESET)
        assert len(code) == 6

    async def test_what_is_no_number_is_refused(self, world: World) -> None:
        with pytest.raises(InvalidMobile):
            await world.container.send_otp()(mobile="12", purpose=LOGIN)

    async def test_keeps_a_hash_and_not_the_code(self, world: World) -> None:
        world = World()
        world.container.code_hasher.reset_override()
        await world.user()
        code = await code_for(world)
        [(_, challenge)] = world.challenges.table.all()
        assert code not in challenge.code_hash
        assert challenge.code_hash.startswith("$argon2id$v=19$m=47104,t=1,p=1$")
        assert challenge.expires_at == world.clock.now() + timedelta(seconds=300)
        signed_in = await world.container.verify_otp()(mobile=ANN, code=code, device=PHONE)
        assert signed_in.user.mobile == ANN


class TestVerifyOtp:
    async def test_logs_in(self, world: World) -> None:
        user = await world.user()
        signed_in = await log_in_by_code(world)
        assert signed_in.user == user
        assert signed_in.access.expires_in == 3600
        assert (await caller_of(world, signed_in)).user == user

    async def test_a_code_logs_in_once(self, world: World) -> None:
        await world.user()
        code = await code_for(world)
        await world.container.verify_otp()(mobile=ANN, code=code, device=PHONE)
        with pytest.raises(OtpInvalid):
            await world.container.verify_otp()(mobile=ANN, code=code, device=PHONE)
        assert len(world.sessions.table.all()) == 1

    async def test_a_wrong_code_spends_one_of_five_guesses(self, world: World) -> None:
        await world.user()
        code = await code_for(world)
        for _ in range(OTP_GUESSES - 1):
            with pytest.raises(OtpInvalid):
                await world.container.verify_otp()(mobile=ANN, code=wrong(code), device=PHONE)
        await world.container.verify_otp()(mobile=ANN, code=code, device=PHONE)

    async def test_after_five_wrong_guesses_the_right_one_is_wrong_too(self, world: World) -> None:
        await world.user()
        code = await code_for(world)
        for guess in [wrong(code)] * OTP_GUESSES + [code]:
            with pytest.raises(OtpInvalid):
                await world.container.verify_otp()(mobile=ANN, code=guess, device=PHONE)

    async def test_an_expired_code_is_wrong(self, world: World) -> None:
        await world.user()
        code = await code_for(world)
        world.clock.move(timedelta(seconds=300))
        with pytest.raises(OtpInvalid):
            await world.container.verify_otp()(mobile=ANN, code=code, device=PHONE)

    async def test_a_newer_code_kills_the_older(self, world: World) -> None:
        await world.user()
        old = await code_for(world)
        while (new := await code_for(world)) == old:
            pass
        with pytest.raises(OtpInvalid):
            await world.container.verify_otp()(mobile=ANN, code=old, device=PHONE)
        await world.container.verify_otp()(mobile=ANN, code=new, device=PHONE)

    async def test_a_code_for_a_reset_logs_nobody_in(self, world: World) -> None:
        await world.user()
        code = await code_for(world, RESET)
        with pytest.raises(OtpInvalid):
            await world.container.verify_otp()(mobile=ANN, code=code, device=PHONE)

    async def test_somebody_elses_code_is_wrong(self, world: World) -> None:
        await world.user()
        await world.user(UNKNOWN)
        code = await code_for(world, mobile=UNKNOWN)
        with pytest.raises(OtpInvalid):
            await world.container.verify_otp()(mobile=ANN, code=code, device=PHONE)

    async def test_without_an_account_or_a_code(self, world: World) -> None:
        with pytest.raises(OtpInvalid):
            await world.container.verify_otp()(mobile=ANN, code="123456", device=PHONE)
        await world.user()
        with pytest.raises(OtpInvalid):
            await world.container.verify_otp()(mobile=ANN, code="123456", device=PHONE)


class TestLogIn:
    async def with_password(self, world: World) -> User:
        user = await world.user()
        await world.container.set_password()(user=user, new_password="correct horse")
        return user

    async def test_by_number_and_password(self, world: World) -> None:
        user = await self.with_password(world)
        signed_in = await world.container.log_in()(mobile="98765 43210", password="correct horse", device=PHONE)
        assert signed_in.user.id == user.id
        assert await is_alive(world, signed_in)

    @pytest.mark.parametrize(
        ("mobile", "password"), [(ANN, "wrong horse"), (ANN, ""), (UNKNOWN, "correct horse"), (UNKNOWN, "")]
    )
    async def test_wrong_and_unknown_are_the_same(self, world: World, mobile: str, password: str) -> None:
        await self.with_password(world)
        with pytest.raises(CredentialsInvalid):
            await world.container.log_in()(mobile=mobile, password=password, device=PHONE)
        assert world.sessions.table.all() == []

    async def test_without_a_password_nothing_logs_in(self, world: World) -> None:
        await world.user()
        for password in ("", "None", "plain:"):
            with pytest.raises(CredentialsInvalid):
                await world.container.log_in()(mobile=ANN, password=password, device=PHONE)

    async def test_a_password_that_changes_while_it_is_checked_is_the_wrong_one(self, world: World) -> None:
        user = await self.with_password(world)

        class ChangedMeanwhile(PlainHasher):
            async def matches(self, secret: str, hashed: str | None, *, caller: str = "") -> bool:
                matches = await super().matches(secret, hashed)
                await world.container.set_password()(user=user, new_password="new horse")
                return matches

        match = replace(world.container.match_password(), password_hasher=ChangedMeanwhile())
        log_in = replace(world.container.log_in(), match_password=match)
        with pytest.raises(CredentialsInvalid):
            await log_in(mobile=ANN, password="correct horse", device=PHONE)
        assert world.sessions.table.all() == []
        assert await is_alive(world, await world.container.log_in()(mobile=ANN, password="new horse", device=PHONE))


class TestChangePassword:
    async def test_with_the_current_one(self, world: World) -> None:
        user = await world.user()
        await world.container.set_password()(user=user, new_password="old horse")
        mine = await world.container.log_in()(mobile=ANN, password="old horse", device=PHONE)
        other = await world.container.log_in()(mobile=ANN, password="old horse", device=PHONE)
        change = world.container.change_password()
        caller = await caller_of(world, mine)
        with pytest.raises(PasswordWrong):
            await change(caller=caller, new_password="new horse", code=None, current_password="wrong")
        assert await is_alive(world, other), "a failed change ends nothing"

        await change(caller=caller, new_password="new horse", code=None, current_password="old horse")
        assert (await is_alive(world, mine), await is_alive(world, other)) == (True, False)
        await world.container.log_in()(mobile=ANN, password="new horse", device=PHONE)
        with pytest.raises(CredentialsInvalid):
            await world.container.log_in()(mobile=ANN, password="old horse", device=PHONE)

    @pytest.mark.parametrize("purpose", OtpPurpose)
    async def test_with_a_code_from_either_call(self, world: World, purpose: OtpPurpose) -> None:
        await world.user()
        mine, other = await log_in_by_code(world), await log_in_by_code(world)
        code = await code_for(world, purpose)
        change = world.container.change_password()
        caller = await caller_of(world, mine)
        with pytest.raises(OtpInvalid):
            await change(caller=caller, new_password="new horse", code=wrong(code), current_password=None)
        await change(caller=caller, new_password="new horse", code=code, current_password=None)
        assert (await is_alive(world, mine), await is_alive(world, other)) == (True, False)
        await world.container.log_in()(mobile=ANN, password="new horse", device=PHONE)
        with pytest.raises(OtpInvalid):
            await change(caller=caller, new_password="newer horse", code=code, current_password=None)

    @pytest.mark.parametrize("current", ["", "None"])
    async def test_who_has_none_cannot_give_the_current_one(self, world: World, current: str | None) -> None:
        await world.user()
        caller = await caller_of(world, await log_in_by_code(world))
        with pytest.raises(PasswordWrong):
            await world.container.change_password()(
                caller=caller, new_password="new horse", code=None, current_password=current
            )
        assert (await world.now(caller.user)).password_hash is None

    async def test_a_code_that_somebody_else_spent_meanwhile_changes_nothing(self, world: World) -> None:
        user = await world.user()
        signed_in = await log_in_by_code(world)
        await code_for(world)
        checked = CheckedCode(user.mobile, LOGIN, "another hash")
        with pytest.raises(OtpInvalid):
            await world.container.set_password()(user=user, new_password="new horse", code=checked)
        assert (await world.now(user)).password_hash is None
        assert await is_alive(world, signed_in)


class TestResetPassword:
    async def test_sets_it_and_ends_all_sessions(self, world: World) -> None:
        await world.user()
        signed_in = await log_in_by_code(world)
        code = await code_for(world, RESET)
        reset = world.container.reset_password()
        await reset(mobile="98765 43210", code=code, new_password="new horse")
        assert not await is_alive(world, signed_in)
        await world.container.log_in()(mobile=ANN, password="new horse", device=PHONE)
        with pytest.raises(OtpInvalid):
            await reset(mobile=ANN, code=code, new_password="newer horse")

    async def test_a_login_code_resets_nothing(self, world: World) -> None:
        user = await world.user()
        code = await code_for(world, LOGIN)
        with pytest.raises(OtpInvalid):
            await world.container.reset_password()(mobile=ANN, code=code, new_password="new horse")
        assert (await world.now(user)).password_hash is None

    async def test_an_unknown_number_and_a_wrong_code_are_the_same(self, world: World) -> None:
        await world.user()
        code = await code_for(world, RESET)
        for mobile, guess in [(UNKNOWN, code), (ANN, wrong(code))]:
            with pytest.raises(OtpInvalid):
                await world.container.reset_password()(mobile=mobile, code=guess, new_password="new horse")


class TestPurgeExpired:
    async def test_removes_what_can_do_nothing_any_more(self, world: World) -> None:
        await world.user()
        await log_in_by_code(world)
        await code_for(world, RESET)
        await world.keys.begin("scope", "old", b"", new_id=uuid4(), busy_for=timedelta(seconds=30))
        world.clock.move(timedelta(days=7, seconds=1))
        new = await log_in_by_code(world)
        code = await code_for(world)
        await world.keys.begin("scope", "new", b"", new_id=uuid4(), busy_for=timedelta(seconds=30))
        for _ in range(2):
            await world.container.purge_expired()()
            assert len(world.sessions.table.all()) == 1
            assert [challenge.purpose for _, challenge in world.challenges.table.all()] == [LOGIN]
            assert [key for key, _ in world.keys.table.items()] == [("scope", "new")]
        assert await is_alive(world, new)
        await world.container.verify_otp()(mobile=ANN, code=code, device=PHONE)

    async def test_leaves_a_session_as_long_as_it_can_be_refreshed(self, world: World) -> None:
        await world.user()
        signed_in = await log_in_by_code(world)
        for _ in range(2):
            world.clock.move(timedelta(days=6))
            await world.container.purge_expired()()
            signed_in = await world.container.refresh_session()(refresh_token=signed_in.refresh_token)
        assert await is_alive(world, signed_in)
        world.clock.move(timedelta(days=7, milliseconds=1))
        await world.container.purge_expired()()
        assert world.sessions.table.all() == []


class TestEntities:
    def test_a_challenge_is_open_while_it_has_guesses_and_time(self, world: World) -> None:
        now = world.clock.now()
        number = world.container.mobile_numbers().parse(ANN)
        challenge = OtpChallenge(
            mobile=number, purpose=LOGIN, challenge_hash=b"c", code_hash="h", expires_at=now, guesses_left=1
        )
        moment = timedelta(milliseconds=1)
        spent = challenge.guessed(now - moment, is_bound=True)
        assert spent == replace(challenge, guesses_left=0)
        assert spent.guessed(now - moment, is_bound=True) is None
        assert spent.guessed(now - moment, is_bound=False) == replace(spent, unbound_left=spent.unbound_left - 1)
        assert replace(spent, unbound_left=0).guessed(now - moment, is_bound=False) is None
        assert [challenge.guessed(now, is_bound=is_bound) for is_bound in (True, False)] == [None, None]

    def test_codes_are_six_digits_zeros_included(self) -> None:
        codes = {OtpChallenge.new_code() for _ in range(2_000)}
        assert all(len(code) == 6 and code.isdecimal() and code.isascii() for code in codes)
        assert len(codes) > 1_900
        assert any(code.startswith("0") for code in codes)

    def test_a_session_ends_once(self, world: World) -> None:
        now = world.clock.now()
        session = Session.begin(SessionId(uuid4()), UserId(uuid4()), PHONE, now)
        ended = session.end(now)
        assert (session.ended_at, ended.ended_at) == (None, now)
        assert ended.end(now + timedelta(hours=1)) == ended
