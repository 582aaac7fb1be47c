"""Setting a password, and proving who one is with a code or with the current password."""

from __future__ import annotations

from dataclasses import dataclass

from application.accounts.otp import CheckedCode, CheckOtp, ConsumeOtp
from application.accounts.sessions import Caller, MatchPassword
from application.ports.accounts import (
    CommonPasswords,
    GuessLimits,
    MobileNumbers,
    SecretHasher,
    Sessions,
    Users,
)
from application.ports.runtime import Clock, UnitOfWork
from domain.accounts import NO_DEVICE, Device, GuessKind, OtpPurpose, User
from domain.errors import InvalidInput, OtpInvalid, PasswordWrong, ProofRequired
from domain.ids import SessionId
from domain.text import opaque_string


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
        password_hash = await self.password_hasher.hash(opaque_string(new_password), caller=str(user.id))
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

    async def __call__(
        self, *, mobile: str, code: str, new_password: str, device: Device = NO_DEVICE, challenge: str | None = None
    ) -> None:
        _refuse_common(new_password, self.common_passwords)
        number = self.mobile_numbers.parse(mobile)
        checked = await self.check_otp.for_device(
            mobile=number, code=code, purpose=OtpPurpose.RESET, device=device, challenge=challenge
        )
        user = await self.users.find_by_mobile(number)
        if user is None:
            raise OtpInvalid
        await self.set_password(user=user, new_password=new_password, code=checked)


@dataclass(frozen=True, slots=True)
class ProveCaller:
    """A signed-in caller proves to be the owner of the account, with a code or with the current password.

    The code may come from forgot-password or from send-otp, because the caller is signed in to the account that it was
    sent to. A session's guesses are counted by themselves: strangers cannot use them up.
    """

    check_otp: CheckOtp
    match_password: MatchPassword
    guess_limits: GuessLimits
    clock: Clock

    async def __call__(
        self, *, caller: Caller, code: str | None, current_password: str | None, challenge: str | None = None
    ) -> CheckedCode | None:
        """The code, for the caller to consume. Raises ProofRequired, OtpInvalid or PasswordWrong."""
        if code is not None:
            return await self._by_code(caller, code, challenge)
        if current_password is None:
            raise ProofRequired
        await self._by_password(caller, current_password)
        return None

    async def _by_password(self, caller: Caller, password: str) -> None:
        mobile, session = caller.user.mobile, caller.session_id.bytes
        await self.guess_limits.record_wrong(mobile, GuessKind.PASSWORD, now=self.clock.now(), device=session)
        if await self.match_password(password, caller.user, caller=str(caller.user.id)) is None:
            raise PasswordWrong
        await self.guess_limits.clear(mobile, GuessKind.PASSWORD, device=session)

    async def _by_code(self, caller: Caller, code: str, challenge: str | None) -> CheckedCode:
        # What forgot-password sends comes first: checking the other code, if there is one, spends a guess.
        for purpose in (OtpPurpose.RESET, OtpPurpose.LOGIN):
            try:
                return await self.check_otp(
                    mobile=caller.user.mobile,
                    code=code,
                    purpose=purpose,
                    challenge=challenge,
                    known_device=caller.session_id.bytes,
                    caller=str(caller.user.id),
                )
            except OtpInvalid:
                continue
        raise OtpInvalid


@dataclass(frozen=True, slots=True)
class ChangePassword:
    """Set a new password while signed in, with a code or the current password. All other sessions end."""

    prove: ProveCaller
    set_password: SetPassword
    common_passwords: CommonPasswords

    async def __call__(
        self,
        *,
        caller: Caller,
        new_password: str,
        code: str | None,
        current_password: str | None,
        challenge: str | None = None,
    ) -> None:
        _refuse_common(new_password, self.common_passwords)
        proof = await self.prove(caller=caller, code=code, current_password=current_password, challenge=challenge)
        await self.set_password(user=caller.user, new_password=new_password, code=proof, keep_session=caller.session_id)


def _refuse_common(password: str, common_passwords: CommonPasswords) -> None:
    """Call this before a code or a guess is spent. Raises InvalidInput."""
    if common_passwords.contain(opaque_string(password)):
        raise InvalidInput("This password is too common.", pointer="/newPassword")
