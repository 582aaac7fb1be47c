"""People and how they prove who they are."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NewType

from domain.billing import Tier
from domain.ids import SessionId, UserId

MobileNumber = NewType("MobileNumber", str)
"""A phone number in E.164 form, such as "+919876543210": one number, one spelling."""

MAX_NAME_CHARACTERS = 100
MIN_PASSWORD_CHARACTERS = 8
MAX_PASSWORD_CHARACTERS = 128
OTP_LIFETIME = timedelta(seconds=300)
OTP_GUESSES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    id: UserId
    mobile: MobileNumber
    name: str
    password_hash: str | None = None
    tier: Tier = Tier.BASIC
    #: Grows with every change to the user's set of chatrooms; the cache of the list is keyed by it.
    chatrooms_version: int = 0
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One signed-in device. An access token names its session and dies with it."""

    id: SessionId
    user_id: UserId
    created_at: datetime
    ended_at: datetime | None = None

    def end(self, now: datetime) -> Session:
        return self if self.ended_at else replace(self, ended_at=now)


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
        return f"{secrets.randbelow(1_000_000):06d}"

    def is_open(self, now: datetime) -> bool:
        return self.guesses_left > 0 and now < self.expires_at
