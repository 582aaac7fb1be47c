"""Setting a password: with a code, or with the current one."""

from __future__ import annotations

from dataclasses import dataclass

from application.accounts.otp import CheckOtp
from application.accounts.sessions import Caller
from application.ports.accounts import MobileNumbers, OtpChallenges, SecretHasher, Sessions, Users
from application.ports.runtime import Clock, UnitOfWork
from domain.accounts import OtpPurpose, User
from domain.errors import OtpInvalid, PasswordWrong
from domain.ids import SessionId


@dataclass(frozen=True, slots=True)
class SetPassword:
    """Store the new password and end all other sessions; spend the code that allowed it, if any."""

    users: Users
    sessions: Sessions
    challenges: OtpChallenges
    password_hasher: SecretHasher
    clock: Clock
    unit_of_work: UnitOfWork

    async def __call__(
        self,
        *,
        user: User,
        new_password: str,
        code: tuple[OtpPurpose, str] | None = None,
        keep_session: SessionId | None = None,
    ) -> None:
        password_hash = await self.password_hasher.hash(new_password)
        async with self.unit_of_work():
            if code and not await self.challenges.consume(user.mobile, *code):
                raise OtpInvalid
            await self.users.set_password(user.id, password_hash)
            await self.sessions.end_all(user.id, now=self.clock.now(), keep=keep_session)


@dataclass(frozen=True, slots=True)
class ResetPassword:
    """Set a new password with a code from forgot-password. All sessions end."""

    users: Users
    check_otp: CheckOtp
    set_password: SetPassword
    mobile_numbers: MobileNumbers

    async def __call__(self, *, mobile: str, code: str, new_password: str) -> None:
        number = self.mobile_numbers.parse(mobile)
        code_hash = await self.check_otp(mobile=number, code=code, purpose=OtpPurpose.RESET)
        user = await self.users.find_by_mobile(number)
        if user is None:
            raise OtpInvalid
        await self.set_password(user=user, new_password=new_password, code=(OtpPurpose.RESET, code_hash))


@dataclass(frozen=True, slots=True)
class ChangePassword:
    """Set a new password while signed in, with a code or the current password.

    The code may come from forgot-password or from send-otp: the caller is signed in to the very
    account that the code was sent for. All other sessions end.
    """

    check_otp: CheckOtp
    set_password: SetPassword
    password_hasher: SecretHasher

    async def __call__(
        self, *, caller: Caller, new_password: str, code: str | None, current_password: str | None
    ) -> None:
        proof = None
        if code is not None:
            proof = await self._prove_by_code(caller.user, code)
        elif not await self.password_hasher.matches(current_password or "", caller.user.password_hash):
            raise PasswordWrong
        await self.set_password(user=caller.user, new_password=new_password, code=proof, keep_session=caller.session_id)

    async def _prove_by_code(self, user: User, code: str) -> tuple[OtpPurpose, str]:
        for purpose in OtpPurpose:
            try:
                return purpose, await self.check_otp(mobile=user.mobile, code=code, purpose=purpose)
            except OtpInvalid:
                continue
        raise OtpInvalid
