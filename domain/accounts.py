"""Users, and how they prove who they are."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, StrEnum, auto
from typing import NewType

from domain.billing import Tier
from domain.errors import CodesSentTooOften, OtpLocked, RefreshTokenInvalid, TooManyGuesses
from domain.ids import SessionId, UserId
from domain.text import ascii_digits

MobileNumber = NewType("MobileNumber", str)
"""A phone number in E.164 form, such as "+919876543210"."""

MAX_NAME_CHARACTERS = 100
MIN_PASSWORD_CHARACTERS = 8
MAX_PASSWORD_CHARACTERS = 128
OTP_LIFETIME = timedelta(seconds=300)
OTP_GUESSES = 5
OTP_DIGITS = 6
SESSION_LIFETIME = timedelta(days=30)
SESSION_IDLE = timedelta(days=7)
MAX_DEVICE_CHARACTERS = 200
#: A device that has not logged in for longer is unknown again. Browsers keep a cookie for no longer than that.
DEVICE_RETENTION = timedelta(days=400)
#: Of an account; the one that has not logged in for longest is forgotten for the next.
MAX_KNOWN_DEVICES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    id: UserId
    mobile: MobileNumber
    name: str
    password_hash: str | None = None
    #: Pro until then, by the user's subscriptions. No job has to end it.
    pro_until: datetime | None = None
    #: Grows with every change to the user's set of chatrooms. The cached list has it in its key.
    chatrooms_version: int = 0
    created_at: datetime

    def tier(self, now: datetime) -> Tier:
        return Tier.PRO if self.pro_until is not None and now < self.pro_until else Tier.BASIC


@dataclass(frozen=True, slots=True)
class Device:
    """How its owner recognises a device: its user agent and its network, never the whole address.

    `token`: what its last login gave it, so that its guesses and codes are not counted with those of strangers.
    """

    name: str = ""
    network: str = ""
    token: str = ""


NO_DEVICE = Device()


class Standing(Enum):
    """What an account knows of a device."""

    KNOWN = auto()
    """It has logged in to the account before."""
    STRANGE = auto()
    """Others have."""
    FIRST = auto()
    """None has, or there is no such account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One signed-in device. An access token names its session and dies with it.

    Refresh tokens keep it alive: each is spent for the next, and `last_seen_at` is when the last one was.
    A session ends after a week without a refresh, or 30 days after it began.
    """

    id: SessionId
    user_id: UserId
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    device: str = ""
    network: str = ""
    ended_at: datetime | None = None

    @classmethod
    def begin(cls, session_id: SessionId, user_id: UserId, device: Device, now: datetime) -> Session:
        return cls(
            id=session_id,
            user_id=user_id,
            created_at=now,
            last_seen_at=now,
            expires_at=now + SESSION_LIFETIME,
            device="".join(filter(str.isprintable, device.name))[:MAX_DEVICE_CHARACTERS],
            network=device.network,
        )

    def seen(self, now: datetime) -> Session:
        return replace(self, last_seen_at=now)

    def end(self, now: datetime) -> Session:
        return self if self.ended_at else replace(self, ended_at=now)

    def is_alive(self, now: datetime) -> bool:
        return self.ended_at is None and now < min(self.expires_at, self.last_seen_at + SESSION_IDLE)

    def is_over(self, now: datetime) -> bool:
        """Whether it can be removed."""
        ended = self.ended_at is not None and self.ended_at < now
        return ended or self.expires_at < now or self.last_seen_at < now - SESSION_IDLE

    def new_token(self) -> RefreshToken:
        """The token that keeps the session alive from now on. It expires if it is not used for a week."""
        return RefreshToken(self.id, min(self.last_seen_at + SESSION_IDLE, self.expires_at))


@dataclass(frozen=True, slots=True)
class RefreshToken:
    session_id: SessionId
    expires_at: datetime
    spent_at: datetime | None = None

    def spent(self, session: Session, now: datetime) -> RefreshToken:
        """Raises RefreshTokenInvalid if the token or its session has expired, or the session has ended."""
        if now >= self.expires_at or session.ended_at is not None or now >= session.expires_at:
            raise RefreshTokenInvalid
        return replace(self, spent_at=now)

    def is_forgotten(self, now: datetime) -> bool:
        """Whether the session's next refresh removes it: spent, and too old to be spent."""
        return self.spent_at is not None and self.expires_at <= now

    def may_repeat(self, session: Session, now: datetime, *, is_last: bool) -> bool:
        """Whether the spent token may be shown again, because its reply may have been lost, however long ago.

        `is_last`: its successor is not spent. A spent token that may not be repeated is in the wrong hands.
        """
        return is_last and self.spent_at is not None and session.is_alive(now)


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A device that has logged in to an account."""

    user_id: UserId
    session_id: SessionId
    """Its latest session, which may be over."""
    seen_at: datetime

    def is_forgotten(self, now: datetime) -> bool:
        return self.seen_at + DEVICE_RETENTION <= now


class OtpPurpose(StrEnum):
    """What a code may be used for: one sent for a reset does not log in."""

    LOGIN = "login"
    RESET = "reset"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtpChallenge:
    """A code for a number and a purpose. Only hashes are stored.

    It belongs to the caller who requested it: the reply to the request had a secret, the challenge, and a guess that
    comes with it is a bound one. Clients that ignore the challenge guess at the latest code of the number, on its other
    count, so that a stranger cannot use up the guesses of the caller who requested the code.
    """

    mobile: MobileNumber
    purpose: OtpPurpose
    challenge_hash: bytes
    code_hash: str
    expires_at: datetime
    guesses_left: int = OTP_GUESSES
    unbound_left: int = OTP_GUESSES

    @staticmethod
    def new_code() -> str:
        """Six digits from the system's CSPRNG, including leading zeros."""
        return f"{secrets.randbelow(10**OTP_DIGITS):0{OTP_DIGITS}d}"

    @staticmethod
    def read_code(text: str) -> str | None:
        """The code in ASCII digits, whatever the keyboard or the clipboard made of it; None unless it has six."""
        code = ascii_digits(text)
        return code if len(code) == OTP_DIGITS and code.isascii() and code.isdecimal() else None

    def guessed(self, now: datetime, *, is_bound: bool) -> OtpChallenge | None:
        """With one guess spent; None if none is left, or the code has expired."""
        left = self.guesses_left if is_bound else self.unbound_left
        if left < 1 or now >= self.expires_at:
            return None
        return replace(self, guesses_left=left - 1) if is_bound else replace(self, unbound_left=left - 1)


@dataclass(frozen=True, slots=True)
class OtpGuess:
    """A guess that was counted: what it is compared with, and whether it is the first bound one at that code."""

    code_hash: str
    is_first: bool


class GuessKind(StrEnum):
    """What is guessed when somebody tries to log in as the owner of a number."""

    CODE = "code"
    PASSWORD = "password"  # noqa: S105 - a kind, not a password


GUESSES_AN_HOUR = 10
GUESSES_A_DAY = 20
GUESSES_BEFORE_BACKOFF = 4  # consecutive wrong ones; after the next, there is a wait that doubles each time
MAX_GUESS_BACKOFF = timedelta(seconds=900)
LOCKOUT_STREAK = 100  # consecutive wrong codes: after these codes are off for LOCKOUT
LOCKOUT = timedelta(days=1)
#: How long a streak of wrong codes is kept after the last one: rare guesses must not begin a new streak each time.
STREAK_RETENTION = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class GuessRule:
    """How many of the last guesses may be wrong."""

    an_hour: int = GUESSES_AN_HOUR
    a_day: int = GUESSES_A_DAY
    backs_off: bool = True

    def next_allowed_at(self, guesses: WrongGuesses) -> datetime | None:
        """None if a guess has always been allowed."""
        times, streak = guesses.times, guesses.streak
        allowed_at = [
            times[most - 1] + within
            for most, within in ((self.an_hour, timedelta(hours=1)), (self.a_day, timedelta(days=1)))
            if len(times) >= most
        ]
        if self.backs_off and times and streak > GUESSES_BEFORE_BACKOFF:
            backoff = timedelta(seconds=2 ** min(streak - GUESSES_BEFORE_BACKOFF - 1, 30))
            allowed_at.append(times[0] + min(backoff, MAX_GUESS_BACKOFF))
        return max(allowed_at, default=None)


USUAL_GUESS = GuessRule()
#: The first bound guess at a code. Its number is bounded by that of the codes sent, and strangers cannot use it up.
FIRST_GUESS = GuessRule(an_hour=GUESSES_A_DAY, backs_off=False)
#: Any other guess at a code by a device that has not logged in before: half of the day's is left for first guesses.
STRANGE_GUESS = GuessRule(a_day=GUESSES_A_DAY // 2)


@dataclass(frozen=True, slots=True)
class WrongGuesses:
    """The wrong guesses at a number's codes, or at its password, by one known device or by all strange ones."""

    kind: GuessKind
    times: tuple[datetime, ...] = ()
    """The last ones, latest first."""
    streak: int = 0
    """How many since the last right one."""

    @property
    def locked_until(self) -> datetime | None:
        is_locked = self.kind is GuessKind.CODE and self.streak >= LOCKOUT_STREAK and self.times
        return self.times[0] + LOCKOUT if is_locked else None

    def with_wrong(self, now: datetime, rule: GuessRule = USUAL_GUESS) -> WrongGuesses:
        """With one more. Raises OtpLocked or TooManyGuesses if it is not allowed. After a lockout the streak is new."""
        locked_until = self.locked_until
        if locked_until is not None and locked_until > now:
            raise OtpLocked(retry_after=(locked_until - now).total_seconds())
        allowed_at = rule.next_allowed_at(self)
        if allowed_at is not None and allowed_at > now:
            raise TooManyGuesses(retry_after=(allowed_at - now).total_seconds())
        streak = 0 if locked_until else self.streak
        return replace(self, times=(now, *self.times)[:GUESSES_A_DAY], streak=streak + 1)

    def cleared(self) -> WrongGuesses:
        """The last one was right after all."""
        return replace(self, times=self.times[1:], streak=0)

    def is_obsolete(self, now: datetime) -> bool:
        """Whether it has no effect any more."""
        has_streak = self.kind is GuessKind.CODE and self.streak > 0
        kept_for = STREAK_RETENTION if has_streak else timedelta(days=1)
        return not self.times or self.times[0] < now - kept_for


@dataclass(frozen=True, slots=True)
class SendingRule:
    """At most this many codes to a number within this time."""

    most: int
    within: timedelta


SENDING_RULES = (
    SendingRule(1, timedelta(seconds=60)),
    SendingRule(3, timedelta(minutes=10)),
    SendingRule(5, timedelta(hours=1)),
    SendingRule(10, timedelta(days=1)),
)
SENDINGS_KEPT = max(rule.most for rule in SENDING_RULES)
SENDINGS_KEPT_FOR = max(rule.within for rule in SENDING_RULES)
#: Of the day's codes, those that only known devices get, so that strangers cannot use up all of them.
SENDINGS_RESERVED = 5


@dataclass(frozen=True, slots=True)
class SendingRules:
    """The rules for the next code, by the device that asks for it."""

    of_all: tuple[SendingRule, ...]
    """For all codes sent to the number."""
    of_known: tuple[SendingRule, ...] = ()
    """For those that known devices asked for."""

    @classmethod
    def of(cls, standing: Standing) -> SendingRules:
        """A known device waits for its own codes, not for those of strangers; a day's sum holds for all together."""
        *short, a_day = SENDING_RULES
        match standing:
            case Standing.KNOWN:
                return cls(of_all=(a_day,), of_known=tuple(short))
            case Standing.STRANGE:
                return cls(of_all=(*short, replace(a_day, most=a_day.most - SENDINGS_RESERVED)))
            case Standing.FIRST:
                return cls(of_all=SENDING_RULES)


@dataclass(frozen=True, slots=True)
class CodesSent:
    """The times at which the last codes were sent to a number, latest first."""

    times: tuple[datetime, ...] = ()
    known: tuple[datetime, ...] = ()
    """Of these, the ones that known devices asked for."""

    def next_allowed_at(self, standing: Standing) -> datetime | None:
        """None if one has always been allowed."""
        rules = SendingRules.of(standing)
        allowed_at = [
            times[rule.most - 1] + rule.within
            for times, group in ((self.times, rules.of_all), (self.known, rules.of_known))
            for rule in group
            if len(times) >= rule.most
        ]
        return max(allowed_at, default=None)

    def with_sent(self, now: datetime, standing: Standing = Standing.FIRST) -> CodesSent:
        """With one more. Raises CodesSentTooOften."""
        allowed_at = self.next_allowed_at(standing)
        if allowed_at is not None and allowed_at > now:
            raise CodesSentTooOften(retry_after=(allowed_at - now).total_seconds())
        known = (now, *self.known) if standing is Standing.KNOWN else self.known
        return CodesSent((now, *self.times)[:SENDINGS_KEPT], known[:SENDINGS_KEPT])

    def is_obsolete(self, now: datetime) -> bool:
        """Whether it has no effect any more."""
        return not self.times or self.times[0] < now - SENDINGS_KEPT_FOR
