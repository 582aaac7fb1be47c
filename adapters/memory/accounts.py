"""Users, sessions and codes in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime
from typing import Protocol

from adapters.memory.store import Table
from application.ports.accounts import (
    GuessLimits,
    OtpChallenges,
    OtpSender,
    OtpSendLimits,
    SecretHasher,
    Sessions,
    Users,
)
from domain.accounts import (
    CodesSent,
    GuessKind,
    MobileNumber,
    OtpChallenge,
    OtpPurpose,
    RefreshToken,
    Session,
    User,
    WrongGuesses,
)
from domain.errors import (
    MobileTaken,
    RefreshTokenInvalid,
    SessionNotFound,
    UserNotFound,
)
from domain.ids import SessionId, UserId


class Belongings(Protocol):
    """What other tables hold of a user."""

    def user_added(self, user: User) -> None: ...

    def user_deleted(self, user: User) -> None: ...

    def purge(self, today: date) -> None: ...


class MemoryUsers(Users):
    def __init__(self) -> None:
        self.table: Table[UserId, User] = Table()
        self.belongings: list[Belongings] = []

    async def add(self, user: User) -> None:
        if any(other.mobile == user.mobile for other in self.table.all()):
            raise MobileTaken
        self.table.put(user.id, user)
        for belongings in self.belongings:
            belongings.user_added(user)

    async def find_by_mobile(self, mobile: MobileNumber) -> User | None:
        return next((user for user in self.table.all() if user.mobile == mobile), None)

    async def rename(self, user_id: UserId, name: str) -> None:
        if user := self.table.get(user_id):
            self.table.put(user_id, replace(user, name=name))

    async def delete(self, user_id: UserId) -> None:
        """With chatrooms, messages and the allowance. Other cascades are only modelled in Postgres."""
        if user := self.table.get(user_id):
            self.table.put(user_id, None)
            for belongings in self.belongings:
                belongings.user_deleted(user)

    async def set_password(self, user_id: UserId, password_hash: str) -> None:
        if user := self.table.get(user_id):
            self.table.put(user_id, replace(user, password_hash=password_hash))

    async def purge(self, *, today: date) -> None:
        for belongings in self.belongings:
            belongings.purge(today)


class MemorySessions(Sessions):
    def __init__(self, users: MemoryUsers) -> None:
        self._users = users
        self.table: Table[SessionId, Session] = Table()
        self.tokens: Table[bytes, RefreshToken] = Table()

    async def add(self, session: Session, refresh_hash: bytes) -> None:
        if self._users.table.get(session.user_id) is None:
            raise UserNotFound
        self.table.put(session.id, session)
        self.tokens.put(refresh_hash, session.new_token())

    async def add_by_password(self, session: Session, refresh_hash: bytes, password_hash: str) -> bool:
        user = self._users.table.get(session.user_id)
        if user is None or user.password_hash != password_hash:
            return False
        await self.add(session, refresh_hash)
        return True

    async def rotate(self, spent_hash: bytes, next_hash: bytes, *, now: datetime) -> Session:
        token = self.tokens.get(spent_hash)
        session = self.table.get(token.session_id) if token else None
        if token is None or session is None:
            raise RefreshTokenInvalid
        if token.spent_at is None:
            self.tokens.put(spent_hash, token.spent(session, now))
            for key, other in self.tokens.items():
                if other.session_id == session.id and other.is_forgotten(now):
                    self.tokens.put(key, None)
            session = session.seen(now)
            self.tokens.put(next_hash, session.new_token())
            self.table.put(session.id, session)
            return session
        successor = self.tokens.get(next_hash)
        if token.may_repeat(session, now, is_last=successor is not None and successor.spent_at is None):
            return session
        self.table.put(session.id, session.end(now))
        raise RefreshTokenInvalid

    async def alive(self, user_id: UserId, *, now: datetime) -> list[Session]:
        mine = [session for session in self.table.all() if session.user_id == user_id and session.is_alive(now)]
        return sorted(mine, key=lambda session: (session.last_seen_at, session.id), reverse=True)

    async def end(self, session_id: SessionId, user_id: UserId, *, now: datetime) -> None:
        session = self.table.get(session_id)
        if session is None or session.user_id != user_id or session.ended_at:
            raise SessionNotFound
        self.table.put(session_id, session.end(now))

    async def find_user(self, session_id: SessionId) -> User | None:
        session = self.table.get(session_id)
        return None if session is None or session.ended_at else self._users.table.get(session.user_id)

    async def end_all(self, user_id: UserId, *, now: datetime, keep: SessionId | None = None) -> None:
        for session in self.table.all():
            if session.user_id == user_id and session.id != keep:
                self.table.put(session.id, session.end(now))

    async def purge(self, *, now: datetime) -> None:
        for session in self.table.all():
            if session.is_over(now):
                self.table.put(session.id, None)


class MemoryOtpChallenges(OtpChallenges):
    def __init__(self) -> None:
        self.table: Table[tuple[MobileNumber, OtpPurpose], OtpChallenge] = Table()

    async def replace(self, challenge: OtpChallenge) -> None:
        self.table.put((challenge.mobile, challenge.purpose), challenge)

    async def count_guess(self, mobile: MobileNumber, purpose: OtpPurpose, *, now: datetime) -> str | None:
        challenge = self.table.get((mobile, purpose))
        guessed = challenge.guessed(now) if challenge else None
        if guessed is None:
            return None
        self.table.put((mobile, purpose), guessed)
        return guessed.code_hash

    async def consume(self, mobile: MobileNumber, purpose: OtpPurpose, code_hash: str) -> bool:
        challenge = self.table.get((mobile, purpose))
        if challenge is None or challenge.code_hash != code_hash:
            return False
        self.table.put((mobile, purpose), None)
        return True

    async def purge(self, *, expired_before: datetime) -> None:
        for key, challenge in self.table.items():
            if challenge.expires_at < expired_before:
                self.table.put(key, None)


class MemoryGuessLimits(GuessLimits):
    def __init__(self) -> None:
        self.table: Table[tuple[MobileNumber, GuessKind], WrongGuesses] = Table()

    async def record_wrong(self, mobile: MobileNumber, kind: GuessKind, *, now: datetime) -> None:
        guesses = self.table.get((mobile, kind)) or WrongGuesses(kind)
        self.table.put((mobile, kind), guesses.with_wrong(now))

    async def clear(self, mobile: MobileNumber, kind: GuessKind) -> None:
        if guesses := self.table.get((mobile, kind)):
            self.table.put((mobile, kind), guesses.cleared())

    async def reset(self, mobile: MobileNumber) -> bool:
        found = [kind for kind in GuessKind if self.table.get((mobile, kind))]
        for kind in found:
            self.table.put((mobile, kind), None)
        return bool(found)

    async def purge(self, *, now: datetime) -> None:
        for key, guesses in self.table.items():
            if guesses.is_obsolete(now):
                self.table.put(key, None)


class MemoryOtpSendLimits(OtpSendLimits):
    def __init__(self) -> None:
        self.table: Table[MobileNumber, CodesSent] = Table()

    async def record(self, mobile: MobileNumber, *, now: datetime) -> None:
        self.table.put(mobile, (self.table.get(mobile) or CodesSent()).with_sent(now))

    async def purge(self, *, now: datetime) -> None:
        for mobile, sent in self.table.items():
            if sent.is_obsolete(now):
                self.table.put(mobile, None)


class MemoryOtpSender(OtpSender):
    """Keeps the codes that were sent, as a phone would."""

    in_reply = False

    def __init__(self) -> None:
        self.sent: list[tuple[MobileNumber, str, OtpPurpose]] = []

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, mobile: MobileNumber, code: str, purpose: OtpPurpose) -> None:
        self.sent.append((mobile, code, purpose))


class PlainHasher(SecretHasher):
    """No hash: for tests, where a slow one would only cost time."""

    async def hash(self, secret: str) -> str:
        return f"plain:{secret}"

    async def matches(self, secret: str, hashed: str | None) -> bool:
        return hashed == f"plain:{secret}"
