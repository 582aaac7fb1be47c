"""Users, and how they prove who they are."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
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
    """How its owner recognises a device: its user agent and its network, never the whole address."""

    name: str = ""
    network: str = ""


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


class OtpPurpose(StrEnum):
    """What a code may be used for: one sent for a reset does not log in."""

    LOGIN = "login"
    RESET = "reset"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtpChallenge:
    """The current code of a number for a purpose. Only its hash is stored."""

    mobile: MobileNumber
    purpose: OtpPurpose
    code_hash: str
    expires_at: datetime
    guesses_left: int = OTP_GUESSES

    @staticmethod
    def new_code() -> str:
        """Six digits from the system's CSPRNG, including leading zeros."""
        return f"{secrets.randbelow(10**OTP_DIGITS):0{OTP_DIGITS}d}"

    @staticmethod
    def read_code(text: str) -> str | None:
        """The code in ASCII digits, whatever the keyboard or the clipboard made of it; None unless it has six."""
        code = ascii_digits(text)
        return code if len(code) == OTP_DIGITS and code.isascii() and code.isdecimal() else None

    def guessed(self, now: datetime) -> OtpChallenge | None:
        """With one guess spent; None if none is left, or the code has expired."""
        if self.guesses_left < 1 or now >= self.expires_at:
            return None
        return replace(self, guesses_left=self.guesses_left - 1)


class GuessKind(StrEnum):
    """What is guessed when somebody tries to log in as the owner of a number."""

    CODE = "code"
    PASSWORD = "password"  # noqa: S105 - a kind, not a password


GUESSES_AN_HOUR = 10
GUESSES_A_DAY = 20
GUESSES_BEFORE_BACKOFF = 4  # consecutive wrong ones; after the next, there is a wait that doubles each time
MAX_GUESS_BACKOFF = timedelta(seconds=900)
LOCKOUT_STREAK = 100  # consecutive wrong codes: after these the number's owner needs an operator
#: How long a streak of wrong codes is kept after the last one: rare guesses must not begin a new streak each time.
STREAK_RETENTION = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class WrongGuesses:
    """The wrong guesses at a number's codes, or at its password."""

    kind: GuessKind
    times: tuple[datetime, ...] = ()
    """The last ones, latest first."""
    streak: int = 0
    """How many since the last right one."""

    @property
    def is_locked(self) -> bool:
        return self.kind is GuessKind.CODE and self.streak >= LOCKOUT_STREAK

    def next_allowed_at(self) -> datetime | None:
        """None if a guess has always been allowed."""
        allowed_at = [
            self.times[most - 1] + within
            for most, within in ((GUESSES_AN_HOUR, timedelta(hours=1)), (GUESSES_A_DAY, timedelta(days=1)))
            if len(self.times) >= most
        ]
        if self.times and self.streak > GUESSES_BEFORE_BACKOFF:
            backoff = timedelta(seconds=2 ** min(self.streak - GUESSES_BEFORE_BACKOFF - 1, 30))
            allowed_at.append(self.times[0] + min(backoff, MAX_GUESS_BACKOFF))
        return max(allowed_at, default=None)

    def with_wrong(self, now: datetime) -> WrongGuesses:
        """With one more. Raises OtpLocked or TooManyGuesses if it is not allowed."""
        if self.is_locked:
            raise OtpLocked
        allowed_at = self.next_allowed_at()
        if allowed_at is not None and allowed_at > now:
            raise TooManyGuesses(retry_after=(allowed_at - now).total_seconds())
        return replace(self, times=(now, *self.times)[:GUESSES_A_DAY], streak=self.streak + 1)

    def cleared(self) -> WrongGuesses:
        """The last one was right after all."""
        return replace(self, times=self.times[1:], streak=0)

    def is_obsolete(self, now: datetime) -> bool:
        """Whether it has no effect any more."""
        has_streak = self.kind is GuessKind.CODE and self.streak > 0
        kept_for = STREAK_RETENTION if has_streak else timedelta(days=1)
        return not self.is_locked and (not self.times or self.times[0] < now - kept_for)


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


@dataclass(frozen=True, slots=True)
class CodesSent:
    """The times at which the last codes were sent to a number, latest first."""

    times: tuple[datetime, ...] = ()

    def next_allowed_at(self) -> datetime | None:
        """None if one has always been allowed."""
        reached = [rule for rule in SENDING_RULES if len(self.times) >= rule.most]
        return max((self.times[rule.most - 1] + rule.within for rule in reached), default=None)

    def with_sent(self, now: datetime) -> CodesSent:
        """With one more. Raises CodesSentTooOften."""
        allowed_at = self.next_allowed_at()
        if allowed_at is not None and allowed_at > now:
            raise CodesSentTooOften(retry_after=(allowed_at - now).total_seconds())
        return CodesSent((now, *self.times)[:SENDINGS_KEPT])

    def is_obsolete(self, now: datetime) -> bool:
        """Whether it has no effect any more."""
        return not self.times or self.times[0] < now - SENDINGS_KEPT_FOR
