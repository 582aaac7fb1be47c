"""One-time codes: sending and checking them, and logging in."""

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
    """Send a new six-digit code, valid for five minutes. It replaces an earlier one for the same purpose.

    Returns the code where codes are returned in the reply (development), else None. Where they are sent, an unknown
    number looks like a known one: it gets a challenge too, but no code is sent. `countries` limits where codes are
    sent, because toll fraud earns money by them; empty allows all countries.
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
class CheckedCode:
    """A code that was found right, and is not used up yet."""

    mobile: MobileNumber
    purpose: OtpPurpose
    code_hash: str


@dataclass(frozen=True, slots=True)
class CheckOtp:
    """Spend a guess on a code, for the caller to consume. Raises OtpInvalid.

    The guess is counted before the code is compared, so that parallel guesses cannot exceed the limit. It counts
    against the code, and against the number's limit, which a new code does not reset.
    """

    challenges: OtpChallenges
    guess_limits: GuessLimits
    code_hasher: SecretHasher
    clock: Clock
    unit_of_work: UnitOfWork

    async def __call__(self, *, mobile: MobileNumber, code: str, purpose: OtpPurpose) -> CheckedCode:
        now = self.clock.now()
        async with self.unit_of_work():  # a guess that the number's limit refuses does not count against the code
            code_hash = await self.challenges.count_guess(mobile, purpose, now=now)
            if code_hash is not None:
                await self.guess_limits.record_wrong(mobile, GuessKind.CODE, now=now)
        if not await self.code_hasher.matches(code, code_hash) or code_hash is None:
            raise OtpInvalid
        return CheckedCode(mobile, purpose, code_hash)


@dataclass(frozen=True, slots=True)
class ConsumeOtp:
    """Use up a checked code, inside the caller's unit of work. Of concurrent callers one succeeds."""

    challenges: OtpChallenges
    guess_limits: GuessLimits

    async def __call__(self, code: CheckedCode) -> None:
        if not await self.challenges.consume(code.mobile, code.purpose, code.code_hash):
            raise OtpInvalid
        await self.guess_limits.clear(code.mobile, GuessKind.CODE)


@dataclass(frozen=True, slots=True)
class VerifyOtp:
    """Log in with a code. A code works once."""

    users: Users
    check_otp: CheckOtp
    consume_otp: ConsumeOtp
    open_session: OpenSession
    mobile_numbers: MobileNumbers
    unit_of_work: UnitOfWork

    async def __call__(self, *, mobile: str, code: str, device: Device) -> SignedIn:
        number = self.mobile_numbers.parse(mobile)
        checked = await self.check_otp(mobile=number, code=code, purpose=OtpPurpose.LOGIN)
        user = await self.users.find_by_mobile(number)
        if user is None:
            raise OtpInvalid
        try:
            async with self.unit_of_work():
                await self.consume_otp(checked)
                return await self.open_session(user=user, device=device)
        except UserNotFound:  # deleted concurrently
            raise OtpInvalid from None
