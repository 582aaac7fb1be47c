"""The ports of the accounts use cases."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from application.ports.runtime import Resource
from domain.accounts import (
    USUAL_GUESS,
    GuessKind,
    GuessRule,
    MobileNumber,
    OtpChallenge,
    OtpGuess,
    OtpPurpose,
    Session,
    Standing,
    User,
)
from domain.ids import SessionId, UserId


class Users(Protocol):
    """Users, and what deleted users have used of the current day's allowance.

    The allowance belongs to the number: deleting the account and signing up again, in any order and however often
    at once, leaves the day's use as it was, with nothing in flight.
    """

    @abstractmethod
    async def add(self, user: User) -> None:
        """Store a new user, with the day's use of an earlier account of the number.

        Raises MobileTaken, however many try at once, even if this user has the number already.
        """

    @abstractmethod
    async def find_by_mobile(self, mobile: MobileNumber) -> User | None: ...

    @abstractmethod
    async def rename(self, user_id: UserId, name: str) -> None: ...

    @abstractmethod
    async def delete(self, user_id: UserId) -> None:
        """Remove the user and all that belongs to them, in every table, including stored replies and codes.

        What stays until it expires does not show whose it was: the day's use, and the counts of codes sent and of
        wrong guesses, under the number's digest.
        """

    @abstractmethod
    async def set_password(self, user_id: UserId, password_hash: str) -> None: ...

    @abstractmethod
    async def rehash_password(self, user_id: UserId, old_hash: str, new_hash: str) -> None:
        """Replace the hash of an unchanged password, unless the password was changed meanwhile."""

    @abstractmethod
    async def purge(self, *, today: date) -> None:
        """Remove what deleted accounts used on days before this one."""


class Sessions(Protocol):
    """Signed-in devices, each with the refresh tokens that keep it alive, which are stored hashed.

    A device is known to the account from its first login on, for DEVICE_RETENTION after its last one: the latest
    MAX_KNOWN_DEVICES are. Logging out leaves it known. Ending its session from another device makes it unknown.
    """

    @abstractmethod
    async def add(self, session: Session, refresh_hash: bytes, device_hash: bytes) -> None:
        """Store the session with its first refresh token, and its device as known.

        Raises UserNotFound if its user is gone.
        """

    @abstractmethod
    async def add_by_password(
        self, session: Session, refresh_hash: bytes, device_hash: bytes, password_hash: str
    ) -> bool:
        """Add it only if this is still the user's password. False if the password changed while it was checked."""

    @abstractmethod
    async def standing(self, mobile: MobileNumber, device_hash: bytes | None, *, now: datetime) -> Standing:
        """What the number's account knows of a device."""

    @abstractmethod
    async def find_user(self, session_id: SessionId) -> User | None:
        """The owner of a session that has not ended, as stored now; else None."""

    @abstractmethod
    async def ended(self, session_ids: Sequence[SessionId]) -> list[SessionId]:
        """Those of them that have ended or do not exist."""

    @abstractmethod
    async def rotate(self, spent_hash: bytes, next_hash: bytes, *, now: datetime) -> Session:
        """Spend a refresh token for its successor, and return the session, seen now.

        Atomic: however many callers spend one token at once, it has one successor. A spent token whose successor is
        not spent gives the same result again, as long as the session is alive. Any other spent token is in the wrong
        hands and ends its session. Raises RefreshTokenInvalid.

        Spent tokens are removed once they could not have been spent any more; from then on they are unknown.
        """

    @abstractmethod
    async def unspent(self, hashes: Sequence[bytes]) -> bytes | None:
        """The first of these refresh tokens that is stored and not spent; None if there is none."""

    @abstractmethod
    async def alive(self, user_id: UserId, *, now: datetime) -> list[Session]:
        """The user's sessions that can still be used, most recently seen first."""

    @abstractmethod
    async def end(self, session_id: SessionId, user_id: UserId, *, now: datetime, forget_device: bool = False) -> None:
        """Raises SessionNotFound if there is no open session with this id, or if it is another user's."""

    @abstractmethod
    async def end_all(self, user_id: UserId, *, now: datetime, keep: SessionId | None = None) -> None:
        """End every open session of the user except `keep`, and forget all devices but that of `keep`."""

    @abstractmethod
    async def purge(self, *, now: datetime) -> None:
        """Remove the sessions that are over, and devices that have not logged in for DEVICE_RETENTION."""


class OtpChallenges(Protocol):
    """Pending codes. The caller compares them, between `count_guess` and `consume`."""

    @abstractmethod
    async def add(self, challenge: OtpChallenge) -> None:
        """Store it beside earlier ones of the number, which stay open for those who requested them."""

    @abstractmethod
    async def count_guess(
        self, mobile: MobileNumber, purpose: OtpPurpose, *, challenge_hash: bytes | None, now: datetime
    ) -> OtpGuess | None:
        """Spend one guess at that challenge, or without one an unbound guess at the latest code of the number.

        None if it is not open, or has no such guess left. Atomic: n guesses are given out n times, however many callers
        there are.
        """

    @abstractmethod
    async def consume(self, mobile: MobileNumber, purpose: OtpPurpose, code_hash: str) -> bool:
        """Remove the challenge that has this hash. True for exactly one caller."""

    @abstractmethod
    async def purge(self, *, expired_before: datetime) -> None: ...


class GuessLimits(Protocol):
    """The wrong guesses made for a number: by each known device, and by all strange ones together.

    Neither a new code, nor deleting the account and signing up again, nor the loss of Redis resets them.
    The number itself is not stored.
    """

    @abstractmethod
    async def record_wrong(
        self,
        mobile: MobileNumber,
        kind: GuessKind,
        *,
        now: datetime,
        device: bytes = b"",
        rule: GuessRule = USUAL_GUESS,
    ) -> None:
        """Count a guess as wrong before it is checked, by the rules of WrongGuesses. `device`: a known one.

        Atomic, however many come at once. Raises TooManyGuesses or OtpLocked; then nothing is counted.
        """

    @abstractmethod
    async def clear(self, mobile: MobileNumber, kind: GuessKind, *, device: bytes = b"") -> None:
        """The last guess was right after all: it is not counted, and the streak of wrong ones ends."""

    @abstractmethod
    async def reset(self, mobile: MobileNumber) -> bool:
        """Delete all wrong guesses of strange devices; False if there were none."""

    @abstractmethod
    async def purge(self, *, now: datetime) -> None:
        """Remove what has no effect any more."""


class OtpSendLimits(Protocol):
    """How often codes are sent to a number, whether or not it has an account.

    The number itself is not stored.
    """

    @abstractmethod
    async def record(self, mobile: MobileNumber, *, now: datetime, standing: Standing = Standing.FIRST) -> None:
        """Record a sending. Raises CodesSentTooOften by SendingRules. Atomic, however many come at once."""

    @abstractmethod
    async def record_in_total(self, *, day: date, most: int, is_sent: bool) -> int:
        """Count a code that is really sent, to whatever number, and return how many are by now on this day.

        Raises CodesExhausted if that would be more than `most`; what is not sent is refused then, too, and not counted.
        """

    @abstractmethod
    async def purge(self, *, now: datetime) -> None:
        """Remove what has no effect any more."""


class OtpSender(Resource, Protocol):
    """Delivers codes."""

    @property
    @abstractmethod
    def in_reply(self) -> bool:
        """True where codes are returned to the caller (development): there, known numbers are not secret."""

    @abstractmethod
    async def send(self, mobile: MobileNumber, code: str, purpose: OtpPurpose) -> None: ...


class MobileNumbers(Protocol):
    @abstractmethod
    def parse(self, text: str) -> MobileNumber:
        """The number in E.164 form. Raises InvalidMobile."""

    @abstractmethod
    def country(self, number: MobileNumber) -> str:
        """Its two-letter country, such as IN; empty if it belongs to no country."""


class NumberDigests(Protocol):
    @abstractmethod
    def digest(self, number: MobileNumber, device: bytes = b"") -> str:
        """22 characters that stand for the number, or one of its devices, where it must not be stored; always the same.

        Keyed, because there are few enough numbers to search a plain hash.
        """


class SecretHasher(Protocol):
    """A slow, salted hash for passwords and codes. Both verbs run off the event loop.

    Work for different callers is done in turn, so that a crowd behind one network delays itself. Raises HashingBusy
    instead of letting anybody wait for long. `caller` is a network, or whatever else callers share.
    """

    @abstractmethod
    def admitted(self, caller: str) -> AbstractContextManager[None]:
        """Around the work of a caller who is not logged in, before its first statement.

        Raises HashingBusy if too much of it is under way, so that a crowd does not occupy the database either.
        """

    @abstractmethod
    async def hash(self, secret: str, *, caller: str = "") -> str: ...

    @abstractmethod
    async def matches(self, secret: str, hashed: str | None, *, caller: str = "") -> bool:
        """False for a hash of None, after the same time."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    token: str
    expires_in: int
    """Seconds."""


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """Whom an access token speaks for."""

    user_id: UserId
    session_id: SessionId


class RefreshTokens(Protocol):
    """Opaque, 256 bits. A token's successor is always the same, so that a lost reply can be repeated."""

    @abstractmethod
    def first(self) -> str: ...

    @abstractmethod
    def next(self, token: str) -> str:
        """The token's successor, which cannot be derived without the server's key."""

    @abstractmethod
    def hash(self, token: str) -> bytes:
        """The form in which it is stored."""


class CommonPasswords(Protocol):
    @abstractmethod
    def contain(self, password: str) -> bool:
        """Whether it is one of the 3,000 most common, ignoring case."""


class AccessTokens(Protocol):
    @abstractmethod
    def issue(self, session: Session) -> AccessToken: ...

    @abstractmethod
    def read(self, token: str) -> AccessClaims:
        """Raises TokenExpired or TokenInvalid. The session may have ended since."""
