"""People and how they prove who they are."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NewType

from domain.billing import Tier
from domain.ids import SessionId, UserId
from domain.text import ascii_digits

MobileNumber = NewType("MobileNumber", str)
"""A phone number in E.164 form, such as "+919876543210": one number, one spelling."""

MAX_NAME_CHARACTERS = 100
MIN_PASSWORD_CHARACTERS = 8
MAX_PASSWORD_CHARACTERS = 128
OTP_LIFETIME = timedelta(seconds=300)
OTP_GUESSES = 5
OTP_DIGITS = 6
SESSION_LIFETIME = timedelta(days=30)
SESSION_IDLE = timedelta(days=7)
#: A spent refresh token may be shown again so long after: its answer may have been lost on the way.
REFRESH_REPLAY = timedelta(seconds=10)
MAX_DEVICE_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    id: UserId
    mobile: MobileNumber
    name: str
    password_hash: str | None = None
    #: What the user's subscriptions amount to: Pro until then, or None. Only time decides, no job.
    pro_until: datetime | None = None
    #: Grows with every change to the user's set of chatrooms; the cache of the list is keyed by it.
    chatrooms_version: int = 0
    created_at: datetime

    def tier(self, now: datetime) -> Tier:
        return Tier.PRO if self.pro_until is not None and now < self.pro_until else Tier.BASIC


@dataclass(frozen=True, slots=True)
class Device:
    """What its owner may know a device by: its user agent, and the network it came from, never the whole address."""

    name: str = ""
    network: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One signed-in device. An access token names its session and dies with it.

    It is kept alive by refresh tokens, each of which is spent for the next; `last_seen_at` is when
    the last one was. Left alone for a week, or after 30 days in all, it is over.
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

    def end(self, now: datetime) -> Session:
        return self if self.ended_at else replace(self, ended_at=now)

    def is_alive(self, now: datetime) -> bool:
        return self.ended_at is None and now < min(self.expires_at, self.last_seen_at + SESSION_IDLE)


class OtpPurpose(StrEnum):
    """What a code may be used for: one sent for a reset logs nobody in."""

    LOGIN = "login"
    RESET = "reset"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtpChallenge:
    """The one live code of a number for a purpose. Only its hash is kept."""

    mobile: MobileNumber
    purpose: OtpPurpose
    code_hash: str
    expires_at: datetime
    guesses_left: int = OTP_GUESSES

    @staticmethod
    def new_code() -> str:
        """Six digits from the system's CSPRNG, leading zeros included."""
        return f"{secrets.randbelow(10**OTP_DIGITS):0{OTP_DIGITS}d}"

    @staticmethod
    def read_code(text: str) -> str | None:
        """The code that was meant, however a keyboard or the clipboard wrote its digits; None if it has not six."""
        code = ascii_digits(text)
        return code if len(code) == OTP_DIGITS and code.isascii() and code.isdecimal() else None

    def is_open(self, now: datetime) -> bool:
        return self.guesses_left > 0 and now < self.expires_at


class GuessKind(StrEnum):
    """What is guessed at when somebody tries to log in as the owner of a number."""

    CODE = "code"
    PASSWORD = "password"  # noqa: S105 - a kind, no password


GUESSES_AN_HOUR = 10
GUESSES_A_DAY = 20
FREE_GUESSES = 4  # wrong ones in a row; from the next on there is a wait that doubles each time
LONGEST_GUESS_WAIT = timedelta(seconds=900)
CODES_OFF_AFTER = 100  # wrong codes in a row: from then on the number's owner needs an operator
#: So long a row of wrong guesses is remembered: who guesses only now and then would begin anew each time.
ROW_REMEMBERED = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class SendingRule:
    """At most so many codes to a number within so long."""

    most: int
    within: timedelta


SENDING_RULES = (
    SendingRule(1, timedelta(seconds=60)),
    SendingRule(3, timedelta(minutes=10)),
    SendingRule(5, timedelta(hours=1)),
    SendingRule(10, timedelta(days=1)),
)
