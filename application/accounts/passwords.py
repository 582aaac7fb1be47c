"""Setting a password, with a code or with the current one."""

from __future__ import annotations

from dataclasses import dataclass

from application.accounts.otp import CheckedCode, CheckOtp, ConsumeOtp
from application.accounts.sessions import Caller
from application.ports.accounts import (
    CommonPasswords,
    GuessLimits,
    MobileNumbers,
    SecretHasher,
    Sessions,
    Users,
)
from application.ports.runtime import Clock, UnitOfWork
from domain.accounts import GuessKind, OtpPurpose, User
from domain.errors import InvalidInput, OtpInvalid, PasswordWrong
from domain.ids import SessionId


@dataclass(frozen=True, slots=True)
class SetPassword:
    """Store the new password, end all other sessions, and use up the code that allowed it, if any."""

    users: Users
    sessions: Sessions
    consume_otp: ConsumeOtp
    password_hasher: SecretHasher
    clock: Clock
    unit_of_work: UnitOfWork

    async def __call__(
        self,
        *,
        user: User,
        new_password: str,
        code: CheckedCode | None = None,
        keep_session: SessionId | None = None,
    ) -> None:
        password_hash = await self.password_hasher.hash(new_password)
        async with self.unit_of_work():
            if code:
                await self.consume_otp(code)
            await self.users.set_password(user.id, password_hash)
            await self.sessions.end_all(user.id, now=self.clock.now(), keep=keep_session)


@dataclass(frozen=True, slots=True)
class ResetPassword:
    """Set a new password with a code from forgot-password. All sessions end."""

    users: Users
    check_otp: CheckOtp
    set_password: SetPassword
    mobile_numbers: MobileNumbers
    common_passwords: CommonPasswords

    async def __call__(self, *, mobile: str, code: str, new_password: str) -> None:
        _refuse_common(new_password, self.common_passwords)
        number = self.mobile_numbers.parse(mobile)
        checked = await self.check_otp(mobile=number, code=code, purpose=OtpPurpose.RESET)
        user = await self.users.find_by_mobile(number)
        if user is None:
            raise OtpInvalid
        await self.set_password(user=user, new_password=new_password, code=checked)


@dataclass(frozen=True, slots=True)
class ChangePassword:
    """Set a new password while signed in, with a code or the current password.

    The code may come from forgot-password or from send-otp, because the caller is signed in to the account that it
    was sent to. All other sessions end.
    """

    check_otp: CheckOtp
    set_password: SetPassword
    password_hasher: SecretHasher
    guess_limits: GuessLimits
    common_passwords: CommonPasswords
    clock: Clock

    async def __call__(
        self, *, caller: Caller, new_password: str, code: str | None, current_password: str | None
    ) -> None:
        _refuse_common(new_password, self.common_passwords)
        proof = None
        if code is not None:
            proof = await self._prove_by_code(caller.user, code)
        else:
            await self._prove_by_password(caller.user, current_password or "")
        await self.set_password(user=caller.user, new_password=new_password, code=proof, keep_session=caller.session_id)

    async def _prove_by_password(self, user: User, password: str) -> None:
        await self.guess_limits.record_wrong(user.mobile, GuessKind.PASSWORD, now=self.clock.now())
        if not await self.password_hasher.matches(password, user.password_hash):
            raise PasswordWrong
        await self.guess_limits.clear(user.mobile, GuessKind.PASSWORD)

    async def _prove_by_code(self, user: User, code: str) -> CheckedCode:
        # What forgot-password sends comes first: checking the other code, if there is one, spends a guess.
        for purpose in (OtpPurpose.RESET, OtpPurpose.LOGIN):
            try:
                return await self.check_otp(mobile=user.mobile, code=code, purpose=purpose)
            except OtpInvalid:
                continue
        raise OtpInvalid


def _refuse_common(password: str, common_passwords: CommonPasswords) -> None:
    """Call this before a code or a guess is spent. Raises InvalidInput."""
    if common_passwords.contain(password):
        raise InvalidInput("This password is too common.", pointer="/newPassword")
