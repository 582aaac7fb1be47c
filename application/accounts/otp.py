"""One-time codes: sending one, checking one, and logging in with one."""

from __future__ import annotations

from dataclasses import dataclass

from application.accounts.sessions import OpenSession, SignedIn
from application.ports.accounts import (
    GuessLimits,
    MobileNumbers,
    OtpChallenges,
    OtpSender,
    OtpSendLimits,
    SecretHasher,
    Users,
)
from application.ports.runtime import Clock, UnitOfWork
from domain.accounts import OTP_LIFETIME, Device, GuessKind, MobileNumber, OtpChallenge, OtpPurpose
from domain.errors import CountryNotAllowed, OtpInvalid, UserNotFound


@dataclass(frozen=True, slots=True)
class SendOtp:
    """Send a new six-digit code, valid for five minutes; an earlier one for the same purpose is dead.

    Returns the code where codes are handed back in the reply (development), else None. Then an
    unknown number looks like a known one: it gets a challenge of its own, only no code is sent.
    Sending costs, and there are those who earn by it: `countries` are those it is done for, none means all.
    """

    users: Users
    challenges: OtpChallenges
    send_limits: OtpSendLimits
    sender: OtpSender
    code_hasher: SecretHasher
    mobile_numbers: MobileNumbers
    clock: Clock
    unit_of_work: UnitOfWork
    is_limited: bool
    countries: frozenset[str] = frozenset()

    async def __call__(self, *, mobile: str, purpose: OtpPurpose) -> str | None:
        number = self.mobile_numbers.parse(mobile)
        if self.countries and self.mobile_numbers.country(number) not in self.countries:
            raise CountryNotAllowed
        is_known = await self.users.find_by_mobile(number) is not None
        if self.sender.in_reply and not is_known:
            raise UserNotFound
        code = OtpChallenge.new_code()
        code_hash = await self.code_hasher.hash(code)
        now = self.clock.now()
        async with self.unit_of_work():
            if self.is_limited:
                await self.send_limits.record(number, now=now)
            await self.challenges.replace(
                OtpChallenge(mobile=number, purpose=purpose, code_hash=code_hash, expires_at=now + OTP_LIFETIME)
            )
        if is_known:
            await self.sender.send(number, code, purpose)
        return code if self.sender.in_reply else None


@dataclass(frozen=True, slots=True)
class CheckOtp:
    """Spend a guess on a code; returns the matching challenge's hash, to be consumed by the caller.

    The guess is counted before it is compared, so parallel guesses cannot outrun the count: it is
    one of the code's, and one of the number's, which a new code does not give back.
    """

    challenges: OtpChallenges
    guess_limits: GuessLimits
    code_hasher: SecretHasher
    clock: Clock
    unit_of_work: UnitOfWork

    async def __call__(self, *, mobile: MobileNumber, code: str, purpose: OtpPurpose) -> str:
        now = self.clock.now()
        async with self.unit_of_work():  # a guess that the number's budget refuses is none of the code's
            code_hash = await self.challenges.count_guess(mobile, purpose, now=now)
            if code_hash is not None:
                await self.guess_limits.record_wrong(mobile, GuessKind.CODE, now=now)
        if not await self.code_hasher.matches(code, code_hash) or code_hash is None:
            raise OtpInvalid
        return code_hash


@dataclass(frozen=True, slots=True)
class ConsumeOtp:
    """Use up the code that CheckOtp found right, inside the caller's unit of work. One caller at most gets through."""

    challenges: OtpChallenges
    guess_limits: GuessLimits

    async def __call__(self, *, mobile: MobileNumber, purpose: OtpPurpose, code_hash: str) -> None:
        if not await self.challenges.consume(mobile, purpose, code_hash):
            raise OtpInvalid
        await self.guess_limits.clear(mobile, GuessKind.CODE)


@dataclass(frozen=True, slots=True)
class VerifyOtp:
    """Log in with a code. A code logs in once."""

    users: Users
    check_otp: CheckOtp
    consume_otp: ConsumeOtp
    open_session: OpenSession
    mobile_numbers: MobileNumbers
    unit_of_work: UnitOfWork

    async def __call__(self, *, mobile: str, code: str, device: Device) -> SignedIn:
        number = self.mobile_numbers.parse(mobile)
        code_hash = await self.check_otp(mobile=number, code=code, purpose=OtpPurpose.LOGIN)
        user = await self.users.find_by_mobile(number)
        if user is None:
            raise OtpInvalid
        try:
            async with self.unit_of_work():
                await self.consume_otp(mobile=number, purpose=OtpPurpose.LOGIN, code_hash=code_hash)
                return await self.open_session(user=user, device=device)
        except UserNotFound:  # deleted in this very moment
            raise OtpInvalid from None
