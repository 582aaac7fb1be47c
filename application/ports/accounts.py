"""What the accounts use cases need from the outside."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from domain.accounts import MobileNumber, OtpChallenge, OtpPurpose, Session, User
from domain.ids import SessionId, UserId


class Users(Protocol):
    @abstractmethod
    async def add(self, user: User) -> None:
        """Store a new user. Raises MobileTaken, however many try at once, also if it is this very user's already."""

    @abstractmethod
    async def find_by_mobile(self, mobile: MobileNumber) -> User | None: ...

    @abstractmethod
    async def set_password(self, user_id: UserId, password_hash: str) -> None: ...


class Sessions(Protocol):
    @abstractmethod
    async def add(self, session: Session) -> None: ...

    @abstractmethod
    async def add_by_password(self, session: Session, password_hash: str) -> bool:
        """Add it only if this is still the user's password, which takes a while to check and may change meanwhile."""

    @abstractmethod
    async def find_user(self, session_id: SessionId) -> User | None:
        """The owner of a session that has not ended, as stored now; else None."""

    @abstractmethod
    async def end_all(self, user_id: UserId, *, now: datetime, keep: SessionId | None = None) -> None:
        """End every open session of the user, but for `keep`."""

    @abstractmethod
    async def purge(self, *, opened_before: datetime) -> None:
        """Remove the sessions opened before that, ended or not."""


class OtpChallenges(Protocol):
    """At most one challenge a number and purpose. Codes are compared outside, between the two verbs."""

    @abstractmethod
    async def replace(self, challenge: OtpChallenge) -> None:
        """Store the challenge in place of an earlier one, which is dead from then on."""

    @abstractmethod
    async def count_guess(self, mobile: MobileNumber, purpose: OtpPurpose, *, now: datetime) -> str | None:
        """Spend one guess and return the hash to compare with; None if no open challenge is left.

        Atomic: n guesses are handed out n times, whoever asks at once.
        """

    @abstractmethod
    async def consume(self, mobile: MobileNumber, purpose: OtpPurpose, code_hash: str) -> bool:
        """Remove the challenge that has this hash. True for exactly one caller."""

    @abstractmethod
    async def purge(self, *, expired_before: datetime) -> None: ...


class OtpSender(Protocol):
    """Brings codes to people."""

    @property
    @abstractmethod
    def in_reply(self) -> bool:
        """True where codes are handed back to the caller (development): numbers are no secret there."""

    @abstractmethod
    async def send(self, mobile: MobileNumber, code: str, purpose: OtpPurpose) -> None: ...


class MobileNumbers(Protocol):
    @abstractmethod
    def parse(self, text: str) -> MobileNumber:
        """The number in E.164 form, whatever the spelling. Raises InvalidMobile."""


class SecretHasher(Protocol):
    """A slow, salted hash for things people type. Both verbs run off the event loop."""

    @abstractmethod
    async def hash(self, secret: str) -> str: ...

    @abstractmethod
    async def matches(self, secret: str, hashed: str | None) -> bool:
        """False for a hash of None, after the same time."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    token: str
    expires_in: int
    """Seconds."""


class AccessTokens(Protocol):
    @abstractmethod
    def issue(self, session: Session) -> AccessToken: ...

    @abstractmethod
    def read(self, token: str) -> tuple[UserId, SessionId]:
        """Whom the token speaks for. Raises TokenExpired or TokenInvalid; says nothing of the session."""
