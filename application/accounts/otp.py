"""One-time codes: sending one, checking one, and logging in with one."""

from __future__ import annotations

from dataclasses import dataclass

from application.accounts.sessions import OpenSession, SignedIn
from application.ports.accounts import MobileNumbers, OtpChallenges, OtpSender, SecretHasher, Users
from application.ports.runtime import Clock, UnitOfWork
from domain.accounts import OTP_LIFETIME, MobileNumber, OtpChallenge, OtpPurpose
from domain.errors import OtpInvalid, UserNotFound


@dataclass(frozen=True, slots=True)
class SendOtp:
    """Send a new six-digit code, valid for five minutes; an earlier one for the same purpose is dead.

    Returns the code where codes are handed back in the reply (development), else None, and then
    an unknown number looks like a known one.
    """

    users: Users
    challenges: OtpChallenges
    sender: OtpSender
    code_hasher: SecretHasher
    mobile_numbers: MobileNumbers
    clock: Clock

    async def __call__(self, *, mobile: str, purpose: OtpPurpose) -> str | None:
        number = self.mobile_numbers.parse(mobile)
        code = OtpChallenge.new_code()
        code_hash = await self.code_hasher.hash(code)  # for unknown numbers too: they shall not answer faster
        if await self.users.find_by_mobile(number) is None:
            if self.sender.in_reply:
                raise UserNotFound
            return None
        await self.challenges.replace(
            OtpChallenge(
                mobile=number,
                purpose=purpose,
                code_hash=code_hash,
                expires_at=self.clock.now() + OTP_LIFETIME,
            )
        )
        await self.sender.send(number, code, purpose)
        return code if self.sender.in_reply else None


@dataclass(frozen=True, slots=True)
class CheckOtp:
    """Spend a guess on a code; returns the matching challenge's hash, to be consumed by the caller.

    The guess is counted before it is compared, so parallel guesses cannot outrun the count.
    """

    challenges: OtpChallenges
    code_hasher: SecretHasher
    clock: Clock

    async def __call__(self, *, mobile: MobileNumber, code: str, purpose: OtpPurpose) -> str:
        code_hash = await self.challenges.count_guess(mobile, purpose, now=self.clock.now())
        if not await self.code_hasher.matches(code, code_hash) or code_hash is None:
            raise OtpInvalid
        return code_hash


@dataclass(frozen=True, slots=True)
class VerifyOtp:
    """Log in with a code. A code logs in once."""

    users: Users
    challenges: OtpChallenges
    check_otp: CheckOtp
    open_session: OpenSession
    mobile_numbers: MobileNumbers
    unit_of_work: UnitOfWork

    async def __call__(self, *, mobile: str, code: str) -> SignedIn:
        number = self.mobile_numbers.parse(mobile)
        code_hash = await self.check_otp(mobile=number, code=code, purpose=OtpPurpose.LOGIN)
        user = await self.users.find_by_mobile(number)
        if user is None:
            raise OtpInvalid
        async with self.unit_of_work():
            if not await self.challenges.consume(number, OtpPurpose.LOGIN, code_hash):
                raise OtpInvalid
            return await self.open_session(user=user)
