"""Users, sessions and codes in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Protocol

from adapters.memory.store import Table
from application.ports.accounts import (
    GuessBudgets,
    OtpChallenges,
    OtpSender,
    OtpSendings,
    SecretHasher,
    Sessions,
    Users,
)
from domain.accounts import (
    CODES_OFF_AFTER,
    FREE_GUESSES,
    GUESSES_A_DAY,
    GUESSES_AN_HOUR,
    LONGEST_GUESS_WAIT,
    REFRESH_REPLAY,
    ROW_REMEMBERED,
    SENDING_RULES,
    SESSION_IDLE,
    GuessKind,
    MobileNumber,
    OtpChallenge,
    OtpPurpose,
    Session,
    User,
)
from domain.errors import (
    CodesOff,
    CodesSentTooOften,
    MobileTaken,
    RefreshTokenInvalid,
    SessionNotFound,
    TooManyGuesses,
    UserNotFound,
)
from domain.ids import SessionId, UserId


class Belongings(Protocol):
    """What is kept elsewhere of a user."""

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
        """With chatrooms, messages and the allowance; the rest is only modelled in Postgres."""
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


@dataclass(frozen=True, slots=True)
class _RefreshToken:
    session_id: SessionId
    expires_at: datetime
    spent_at: datetime | None = None


class MemorySessions(Sessions):
    def __init__(self, users: MemoryUsers) -> None:
        self._users = users
        self.table: Table[SessionId, Session] = Table()
        self.tokens: Table[bytes, _RefreshToken] = Table()

    async def add(self, session: Session, refresh_hash: bytes) -> None:
        if self._users.table.get(session.user_id) is None:
            raise UserNotFound
        self.table.put(session.id, session)
        self.tokens.put(refresh_hash, _RefreshToken(session.id, session.created_at + SESSION_IDLE))

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
            if now >= token.expires_at or session.ended_at or now >= session.expires_at:
                raise RefreshTokenInvalid
            self.tokens.put(spent_hash, replace(token, spent_at=now))
            idle = min(now + SESSION_IDLE, session.expires_at)
            self.tokens.put(next_hash, _RefreshToken(session.id, idle))
            session = replace(session, last_seen_at=now)
            self.table.put(session.id, session)
            return session
        following = self.tokens.get(next_hash)
        is_parent = following is not None and following.spent_at is None
        if is_parent and now <= token.spent_at + REFRESH_REPLAY and session.is_alive(now):
            return session
        self.table.put(session.id, session.end(now))
        raise RefreshTokenInvalid

    async def alive(self, user_id: UserId, *, now: datetime) -> list[Session]:
        mine = [one for one in self.table.all() if one.user_id == user_id and one.is_alive(now)]
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
            over = session.expires_at < now or session.last_seen_at < now - SESSION_IDLE
            if over or (session.ended_at and session.ended_at < now):
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


class MemoryGuessBudgets(GuessBudgets):
    def __init__(self) -> None:
        self.table: Table[tuple[MobileNumber, GuessKind], tuple[tuple[datetime, ...], int]] = Table()

    async def count(self, mobile: MobileNumber, kind: GuessKind, *, now: datetime) -> None:
        wrong_at, in_a_row = self.table.get((mobile, kind)) or ((), 0)
        if kind is GuessKind.CODE and in_a_row >= CODES_OFF_AFTER:
            raise CodesOff
        again: list[datetime] = []
        if in_a_row > FREE_GUESSES and wrong_at:
            wait = timedelta(seconds=2 ** min(in_a_row - FREE_GUESSES - 1, 30))
            again.append(wrong_at[0] + min(wait, LONGEST_GUESS_WAIT))
        for most, within in ((GUESSES_AN_HOUR, timedelta(hours=1)), (GUESSES_A_DAY, timedelta(days=1))):
            if len(wrong_at) >= most:
                again.append(wrong_at[most - 1] + within)
        if again and max(again) > now:
            raise TooManyGuesses(retry_after=(max(again) - now).total_seconds())
        self.table.put((mobile, kind), ((now, *wrong_at)[:GUESSES_A_DAY], in_a_row + 1))

    async def forgive(self, mobile: MobileNumber, kind: GuessKind) -> None:
        if found := self.table.get((mobile, kind)):
            self.table.put((mobile, kind), (found[0][1:], 0))

    async def reset(self, mobile: MobileNumber) -> bool:
        found = [kind for kind in GuessKind if self.table.get((mobile, kind))]
        for kind in found:
            self.table.put((mobile, kind), None)
        return bool(found)

    async def purge(self, *, now: datetime) -> None:
        for key, (wrong_at, in_a_row) in self.table.items():
            codes_in_a_row = in_a_row if key[1] is GuessKind.CODE else 0
            kept = ROW_REMEMBERED if codes_in_a_row else timedelta(days=1)
            if codes_in_a_row < CODES_OFF_AFTER and (not wrong_at or wrong_at[0] < now - kept):
                self.table.put(key, None)


class MemoryOtpSendings(OtpSendings):
    def __init__(self) -> None:
        self.table: Table[MobileNumber, tuple[datetime, ...]] = Table()

    async def count(self, mobile: MobileNumber, *, now: datetime) -> None:
        sent_at = self.table.get(mobile) or ()
        again = [sent_at[rule.most - 1] + rule.within for rule in SENDING_RULES if len(sent_at) >= rule.most]
        if again and max(again) > now:
            raise CodesSentTooOften(retry_after=(max(again) - now).total_seconds())
        self.table.put(mobile, (now, *sent_at)[: max(rule.most for rule in SENDING_RULES)])

    async def purge(self, *, now: datetime) -> None:
        for mobile, sent_at in self.table.items():
            if sent_at[0] < now - max(rule.within for rule in SENDING_RULES):
                self.table.put(mobile, None)


class MemoryOtpSender(OtpSender):
    """Keeps what it was given, as a phone would."""

    in_reply = False

    def __init__(self) -> None:
        self.sent: list[tuple[MobileNumber, str, OtpPurpose]] = []

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, mobile: MobileNumber, code: str, purpose: OtpPurpose) -> None:
        self.sent.append((mobile, code, purpose))


class PlainHasher(SecretHasher):
    """No hash at all: for tests, where a slow one would only cost time."""

    async def hash(self, secret: str) -> str:
        return f"plain:{secret}"

    async def matches(self, secret: str, hashed: str | None) -> bool:
        return hashed == f"plain:{secret}"
