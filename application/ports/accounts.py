"""What the accounts use cases need from the outside."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from application.ports.runtime import Resource
from domain.accounts import GuessKind, MobileNumber, OtpChallenge, OtpPurpose, Session, User
from domain.ids import SessionId, UserId


class Users(Protocol):
    """Users, and what their numbers have used of the day's allowance if they were deleted during the day.

    The allowance belongs to the number: whoever deletes the account and signs up again, in whatever
    order and however often at once, finds the day's use as it was, with nothing in flight.
    """

    @abstractmethod
    async def add(self, user: User) -> None:
        """Store a new user, with the day's use that an earlier account of the number has left.

        Raises MobileTaken, however many try at once, also if it is this very user's already.
        """

    @abstractmethod
    async def find_by_mobile(self, mobile: MobileNumber) -> User | None: ...

    @abstractmethod
    async def rename(self, user_id: UserId, name: str) -> None: ...

    @abstractmethod
    async def delete(self, user_id: UserId) -> None:
        """Remove the user and all that is theirs, whatever table it is in, kept replies and codes included.

        What stays until it expires does not tell whose it was: the day's use, and the counts of codes
        sent and of wrong guesses, under the number's digest.
        """

    @abstractmethod
    async def set_password(self, user_id: UserId, password_hash: str) -> None: ...

    @abstractmethod
    async def purge(self, *, today: date) -> None:
        """Forget what deleted accounts have used of days before this one."""


class Sessions(Protocol):
    """Signed-in devices, each with the family of refresh tokens that keeps it alive. Tokens are stored hashed."""

    @abstractmethod
    async def add(self, session: Session, refresh_hash: bytes) -> None:
        """Store the session with its first refresh token. Raises UserNotFound if its user is gone."""

    @abstractmethod
    async def add_by_password(self, session: Session, refresh_hash: bytes, password_hash: str) -> bool:
        """Add it only if this is still the user's password, which takes a while to check and may change meanwhile."""

    @abstractmethod
    async def find_user(self, session_id: SessionId) -> User | None:
        """The owner of a session that has not ended, as stored now; else None."""

    @abstractmethod
    async def rotate(self, spent_hash: bytes, next_hash: bytes, *, now: datetime) -> Session:
        """Spend a refresh token for the next one, which is idle-limited, and return the session, seen now.

        Atomic: however many show one token at once, there is one next. A token that was spent up to
        REFRESH_REPLAY ago, and whose next is not spent yet, is answered likewise without effect. Any
        other spent one is in wrong hands: its session is ended. Raises RefreshTokenInvalid.
        """

    @abstractmethod
    async def alive(self, user_id: UserId, *, now: datetime) -> list[Session]:
        """The user's sessions that can still be used, the one seen last first."""

    @abstractmethod
    async def end(self, session_id: SessionId, user_id: UserId, *, now: datetime) -> None:
        """Raises SessionNotFound if there is none alive, or if it is somebody else's."""

    @abstractmethod
    async def end_all(self, user_id: UserId, *, now: datetime, keep: SessionId | None = None) -> None:
        """End every open session of the user, but for `keep`."""

    @abstractmethod
    async def purge(self, *, now: datetime) -> None:
        """Remove the sessions that are over."""


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


class GuessLimits(Protocol):
    """The wrong guesses made for a number, whoever makes them.

    Neither a new code, nor deleting the account and signing up again, nor the loss of Redis resets them.
    The number itself is not stored.
    """

    @abstractmethod
    async def record_wrong(self, mobile: MobileNumber, kind: GuessKind, *, now: datetime) -> None:
        """Count a guess as wrong before it is checked, by the rules of WrongGuesses.

        Atomic, however many come at once. Raises TooManyGuesses or OtpLocked; then nothing is counted.
        """

    @abstractmethod
    async def clear(self, mobile: MobileNumber, kind: GuessKind) -> None:
        """The last guess was right after all: it is not counted, and the streak of wrong ones ends."""

    @abstractmethod
    async def reset(self, mobile: MobileNumber) -> bool:
        """Delete all wrong guesses; False if there were none."""

    @abstractmethod
    async def purge(self, *, now: datetime) -> None:
        """Remove what has no effect any more."""


class OtpSendLimits(Protocol):
    """How often codes are sent to a number, whether or not it has an account.

    The number itself is not stored.
    """

    @abstractmethod
    async def record(self, mobile: MobileNumber, *, now: datetime) -> None:
        """Record a sending. Raises CodesSentTooOften by SENDING_RULES. Atomic, however many come at once."""

    @abstractmethod
    async def purge(self, *, now: datetime) -> None:
        """Remove what has no effect any more."""


class OtpSender(Resource, Protocol):
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

    @abstractmethod
    def country(self, number: MobileNumber) -> str:
        """Its two-letter country, such as IN; empty if it is of no country in particular."""


class NumberDigests(Protocol):
    @abstractmethod
    def digest(self, number: MobileNumber) -> str:
        """22 characters that stand for the number where it is not to be kept: always the same ones.

        Keyed, because numbers are too few for a plain hash: it could be searched.
        """


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


class RefreshTokens(Protocol):
    """Opaque, 256 bits. The next of a token is always the same, so that an answer that was lost can be given again."""

    @abstractmethod
    def first(self) -> str: ...

    @abstractmethod
    def next(self, token: str) -> str:
        """Nobody who has the token can find it without our key."""

    @abstractmethod
    def hash(self, token: str) -> bytes:
        """What is stored of it."""


class CommonPasswords(Protocol):
    @abstractmethod
    def contain(self, password: str) -> bool:
        """Whether it is among the 3,000 that are tried first, in whatever case."""


class AccessTokens(Protocol):
    @abstractmethod
    def issue(self, session: Session) -> AccessToken: ...

    @abstractmethod
    def read(self, token: str) -> tuple[UserId, SessionId]:
        """Whom the token speaks for. Raises TokenExpired or TokenInvalid; says nothing of the session."""
