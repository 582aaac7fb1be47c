"""One-time codes: sending and checking them, and logging in."""

from __future__ import annotations

from dataclasses import dataclass

from application.accounts.sessions import OpenSession, RecogniseDevice, SignedIn
from application.ports.accounts import (
    GuessLimits,
    MobileNumbers,
    OtpChallenges,
    OtpSender,
    OtpSendLimits,
    RefreshTokens,
    SecretHasher,
    Users,
)
from application.ports.runtime import Clock, UnitOfWork
from domain.accounts import (
    FIRST_GUESS,
    NO_DEVICE,
    OTP_LIFETIME,
    STRANGE_GUESS,
    USUAL_GUESS,
    Device,
    GuessKind,
    MobileNumber,
    OtpChallenge,
    OtpPurpose,
    Standing,
)
from domain.errors import CountryNotAllowed, OtpInvalid, UserNotFound


@dataclass(frozen=True, slots=True)
class SentOtp:
    """A code that was requested. `code` is None unless codes are returned in the reply (development)."""

    challenge: str
    """The secret that binds guesses to this request."""
    code: str | None = None


@dataclass(frozen=True, slots=True)
class SendOtp:
    """Send a new six-digit code, valid for five minutes. Earlier ones stay valid for those who requested them.

    Where codes are sent, an unknown number looks like a known one: it gets a challenge too, but no code is sent.
    `countries` limits where codes are sent, because toll fraud earns money by them; empty allows all countries.
    `daily` limits the codes that are sent in all; the last fifth of them goes to devices that have logged in before.
    """

    users: Users
    challenges: OtpChallenges
    send_limits: OtpSendLimits
    sender: OtpSender
    code_hasher: SecretHasher
    recognise: RecogniseDevice
    tokens: RefreshTokens
    mobile_numbers: MobileNumbers
    clock: Clock
    unit_of_work: UnitOfWork
    is_limited: bool
    daily: int
    countries: frozenset[str] = frozenset()

    async def __call__(self, *, mobile: str, purpose: OtpPurpose, device: Device = NO_DEVICE) -> SentOtp:
        number = self.mobile_numbers.parse(mobile)
        if self.countries and self.mobile_numbers.country(number) not in self.countries:
            raise CountryNotAllowed
        with self.code_hasher.admitted(device.network):
            return await self._send(number, purpose, device)

    async def _send(self, number: MobileNumber, purpose: OtpPurpose, device: Device) -> SentOtp:
        has_account = await self.users.find_by_mobile(number) is not None
        if self.sender.in_reply and not has_account:
            raise UserNotFound
        standing = await self.recognise(number, device)
        code, challenge = OtpChallenge.new_code(), self.tokens.first()
        code_hash = await self.code_hasher.hash(code, caller=device.network)
        now = self.clock.now()
        stored = OtpChallenge(
            mobile=number,
            purpose=purpose,
            challenge_hash=self.tokens.hash(challenge),
            code_hash=code_hash,
            expires_at=now + OTP_LIFETIME,
        )
        async with self.unit_of_work():
            if self.is_limited:
                await self.send_limits.record(number, now=now, standing=standing)
                await self._count_in_total(standing, is_sent=has_account)
            await self.challenges.add(stored)
        if has_account:
            await self.sender.send(number, code, purpose)
        return SentOtp(challenge, code if self.sender.in_reply else None)

    async def _count_in_total(self, standing: Standing, *, is_sent: bool) -> None:
        if self.daily and not self.sender.in_reply:
            most = self.daily if standing is Standing.KNOWN else self.daily - self.daily // 5
            await self.send_limits.record_in_total(day=self.clock.now().date(), most=most, is_sent=is_sent)


@dataclass(frozen=True, slots=True)
class CheckedCode:
    """A code that was found right, and is not used up yet."""

    mobile: MobileNumber
    purpose: OtpPurpose
    code_hash: str
    known_device: bytes = b""


@dataclass(frozen=True, slots=True)
class CheckOtp:
    """Spend a guess on a code, for the caller to consume. Raises OtpInvalid.

    The guess is counted before the code is compared, so that parallel guesses cannot exceed the limit. It counts
    against the code, and against the limit of the known device, or of all strange devices together, which a new code
    does not reset.
    """

    challenges: OtpChallenges
    guess_limits: GuessLimits
    code_hasher: SecretHasher
    recognise: RecogniseDevice
    tokens: RefreshTokens
    clock: Clock
    unit_of_work: UnitOfWork

    async def __call__(
        self,
        *,
        mobile: MobileNumber,
        code: str,
        purpose: OtpPurpose,
        challenge: str | None = None,
        known_device: bytes = b"",
        caller: str = "",
    ) -> CheckedCode:
        now = self.clock.now()
        challenge_hash = self.tokens.hash(challenge) if challenge is not None else None
        async with self.unit_of_work():  # a guess that the number's limit refuses does not count against the code
            guess = await self.challenges.count_guess(mobile, purpose, challenge_hash=challenge_hash, now=now)
            if guess is not None:
                strange = FIRST_GUESS if guess.is_first else STRANGE_GUESS
                rule = USUAL_GUESS if known_device else strange
                await self.guess_limits.record_wrong(mobile, GuessKind.CODE, now=now, device=known_device, rule=rule)
        code_hash = guess.code_hash if guess else None
        if not await self.code_hasher.matches(code, code_hash, caller=caller) or code_hash is None:
            raise OtpInvalid
        return CheckedCode(mobile, purpose, code_hash, known_device)

    async def for_device(
        self, *, mobile: MobileNumber, code: str, purpose: OtpPurpose, device: Device, challenge: str | None
    ) -> CheckedCode:
        """For a caller who is not logged in."""
        with self.code_hasher.admitted(device.network):
            known = await self.recognise.known(mobile, device)
            return await self(
                mobile=mobile,
                code=code,
                purpose=purpose,
                challenge=challenge,
                known_device=known,
                caller=device.network,
            )


@dataclass(frozen=True, slots=True)
class ConsumeOtp:
    """Use up a checked code, inside the caller's unit of work. Of concurrent callers one succeeds."""

    challenges: OtpChallenges
    guess_limits: GuessLimits

    async def __call__(self, code: CheckedCode) -> None:
        if not await self.challenges.consume(code.mobile, code.purpose, code.code_hash):
            raise OtpInvalid
        await self.guess_limits.clear(code.mobile, GuessKind.CODE, device=code.known_device)


@dataclass(frozen=True, slots=True)
class VerifyOtp:
    """Log in with a code. A code works once."""

    users: Users
    check_otp: CheckOtp
    consume_otp: ConsumeOtp
    open_session: OpenSession
    mobile_numbers: MobileNumbers
    unit_of_work: UnitOfWork

    async def __call__(self, *, mobile: str, code: str, device: Device, challenge: str | None = None) -> SignedIn:
        number = self.mobile_numbers.parse(mobile)
        checked = await self.check_otp.for_device(
            mobile=number, code=code, purpose=OtpPurpose.LOGIN, device=device, challenge=challenge
        )
        user = await self.users.find_by_mobile(number)
        if user is None:
            raise OtpInvalid
        try:
            async with self.unit_of_work():
                await self.consume_otp(checked)
                return await self.open_session(user=user, device=device, is_known=bool(checked.known_device))
        except UserNotFound:  # deleted concurrently
            raise OtpInvalid from None
