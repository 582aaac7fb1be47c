"""Users, sessions and codes in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from adapters.memory.store import Table
from application.ports.accounts import OtpChallenges, OtpSender, SecretHasher, Sessions, Users
from domain.accounts import MobileNumber, OtpChallenge, OtpPurpose, Session, User
from domain.errors import MobileTaken
from domain.ids import SessionId, UserId


class MemoryUsers(Users):
    def __init__(self) -> None:
        self.table: Table[UserId, User] = Table()

    async def add(self, user: User) -> None:
        if any(other.mobile == user.mobile for other in self.table.all()):
            raise MobileTaken
        self.table.put(user.id, user)

    async def find_by_mobile(self, mobile: MobileNumber) -> User | None:
        return next((user for user in self.table.all() if user.mobile == mobile), None)

    async def set_password(self, user_id: UserId, password_hash: str) -> None:
        if user := self.table.get(user_id):
            self.table.put(user_id, replace(user, password_hash=password_hash))


class MemorySessions(Sessions):
    def __init__(self, users: MemoryUsers) -> None:
        self._users = users
        self.table: Table[SessionId, Session] = Table()

    async def add(self, session: Session) -> None:
        self.table.put(session.id, session)

    async def add_by_password(self, session: Session, password_hash: str) -> bool:
        user = self._users.table.get(session.user_id)
        if user is None or user.password_hash != password_hash:
            return False
        await self.add(session)
        return True

    async def find_user(self, session_id: SessionId) -> User | None:
        session = self.table.get(session_id)
        return None if session is None or session.ended_at else self._users.table.get(session.user_id)

    async def end_all(self, user_id: UserId, *, now: datetime, keep: SessionId | None = None) -> None:
        for session in self.table.all():
            if session.user_id == user_id and session.id != keep:
                self.table.put(session.id, session.end(now))

    async def purge(self, *, opened_before: datetime) -> None:
        for session in self.table.all():
            if session.created_at < opened_before:
                self.table.put(session.id, None)


class MemoryOtpChallenges(OtpChallenges):
    def __init__(self) -> None:
        self.table: Table[tuple[MobileNumber, OtpPurpose], OtpChallenge] = Table()

    async def replace(self, challenge: OtpChallenge) -> None:
        self.table.put((challenge.mobile, challenge.purpose), challenge)

    async def count_guess(self, mobile: MobileNumber, purpose: OtpPurpose, *, now: datetime) -> str | None:
        challenge = self.table.get((mobile, purpose))
        if challenge is None or not challenge.is_open(now):
            return None
        self.table.put((mobile, purpose), replace(challenge, guesses_left=challenge.guesses_left - 1))
        return challenge.code_hash

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


class MemoryOtpSender(OtpSender):
    """Keeps what it was given, as a phone would."""

    in_reply = False

    def __init__(self) -> None:
        self.sent: list[tuple[MobileNumber, str, OtpPurpose]] = []

    async def send(self, mobile: MobileNumber, code: str, purpose: OtpPurpose) -> None:
        self.sent.append((mobile, code, purpose))


class PlainHasher(SecretHasher):
    """No hash at all: for tests, where a slow one would only cost time."""

    async def hash(self, secret: str) -> str:
        return f"plain:{secret}"

    async def matches(self, secret: str, hashed: str | None) -> bool:
        return hashed == f"plain:{secret}"
