"""Users, sessions and codes in memory."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
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
    MAX_KNOWN_DEVICES,
    OTP_GUESSES,
    USUAL_GUESS,
    CodesSent,
    GuessKind,
    GuessRule,
    KnownDevice,
    MobileNumber,
    OtpChallenge,
    OtpGuess,
    OtpPurpose,
    RefreshToken,
    Session,
    Standing,
    User,
    WrongGuesses,
)
from domain.errors import (
    CodesExhausted,
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

    async def rehash_password(self, user_id: UserId, old_hash: str, new_hash: str) -> None:
        user = self.table.get(user_id)
        if user and user.password_hash == old_hash:
            await self.set_password(user_id, new_hash)

    async def purge(self, *, today: date) -> None:
        for belongings in self.belongings:
            belongings.purge(today)


class MemorySessions(Sessions):
    def __init__(self, users: MemoryUsers) -> None:
        self._users = users
        self.table: Table[SessionId, Session] = Table()
        self.tokens: Table[bytes, RefreshToken] = Table()
        self.devices: Table[bytes, KnownDevice] = Table()

    async def add(self, session: Session, refresh_hash: bytes, device_hash: bytes) -> None:
        if self._users.table.get(session.user_id) is None:
            raise UserNotFound
        self.table.put(session.id, session)
        self.tokens.put(refresh_hash, session.new_token())
        known = self.devices.get(device_hash)
        if known and known.user_id != session.user_id:
            return
        self.devices.put(device_hash, KnownDevice(session.user_id, session.id, session.created_at))
        others = [(key, device) for key, device in self._devices_of(session.user_id) if key != device_hash]
        others.sort(key=lambda other: other[1].seen_at, reverse=True)
        for key, _ in others[MAX_KNOWN_DEVICES - 1 :]:
            self.devices.put(key, None)

    async def add_by_password(
        self, session: Session, refresh_hash: bytes, device_hash: bytes, password_hash: str
    ) -> bool:
        user = self._users.table.get(session.user_id)
        if user is None or user.password_hash != password_hash:
            return False
        await self.add(session, refresh_hash, device_hash)
        return True

    def _devices_of(self, user_id: UserId) -> list[tuple[bytes, KnownDevice]]:
        return [(key, device) for key, device in self.devices.items() if device.user_id == user_id]

    async def standing(self, mobile: MobileNumber, device_hash: bytes | None, *, now: datetime) -> Standing:
        user = await self._users.find_by_mobile(mobile)
        known = [key for key, device in self._devices_of(user.id) if not device.is_forgotten(now)] if user else []
        if not known:
            return Standing.FIRST
        return Standing.KNOWN if device_hash in known else Standing.STRANGE

    async def unspent(self, hashes: Sequence[bytes]) -> bytes | None:
        found = ((key, self.tokens.get(key)) for key in hashes)
        return next((key for key, token in found if token and token.spent_at is None), None)

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

    async def end(self, session_id: SessionId, user_id: UserId, *, now: datetime, forget_device: bool = False) -> None:
        session = self.table.get(session_id)
        if session is None or session.user_id != user_id or session.ended_at:
            raise SessionNotFound
        self.table.put(session_id, session.end(now))
        for key, device in self._devices_of(user_id):
            if forget_device and device.session_id == session_id:
                self.devices.put(key, None)

    async def find_user(self, session_id: SessionId) -> User | None:
        session = self.table.get(session_id)
        return None if session is None or session.ended_at else self._users.table.get(session.user_id)

    async def ended(self, session_ids: Sequence[SessionId]) -> list[SessionId]:
        return [session_id for session_id in session_ids if await self.find_user(session_id) is None]

    async def end_all(self, user_id: UserId, *, now: datetime, keep: SessionId | None = None) -> None:
        for session in self.table.all():
            if session.user_id == user_id and session.id != keep:
                self.table.put(session.id, session.end(now))
        for key, device in self._devices_of(user_id):
            if device.session_id != keep:
                self.devices.put(key, None)

    async def purge(self, *, now: datetime) -> None:
        for session in self.table.all():
            if session.is_over(now):
                self.table.put(session.id, None)
        for key, device in self.devices.items():
            if device.is_forgotten(now):
                self.devices.put(key, None)


class MemoryOtpChallenges(OtpChallenges):
    def __init__(self) -> None:
        self._numbers = itertools.count()
        #: By their hashes, numbered in the order in which they were added.
        self.table: Table[bytes, tuple[int, OtpChallenge]] = Table()

    async def add(self, challenge: OtpChallenge) -> None:
        self.table.put(challenge.challenge_hash, (next(self._numbers), challenge))

    def _of(self, mobile: MobileNumber, purpose: OtpPurpose) -> list[tuple[int, OtpChallenge]]:
        """The latest first."""
        mine = [row for row in self.table.all() if (row[1].mobile, row[1].purpose) == (mobile, purpose)]
        return sorted(mine, key=lambda row: row[0], reverse=True)

    async def count_guess(
        self, mobile: MobileNumber, purpose: OtpPurpose, *, challenge_hash: bytes | None, now: datetime
    ) -> OtpGuess | None:
        is_bound = challenge_hash is not None
        found = self._of(mobile, purpose)
        if is_bound:
            found = [row for row in found if row[1].challenge_hash == challenge_hash]
        number, challenge = found[0] if found else (0, None)
        guessed = challenge.guessed(now, is_bound=is_bound) if challenge else None
        if guessed is None:
            return None
        self.table.put(guessed.challenge_hash, (number, guessed))
        return OtpGuess(guessed.code_hash, is_bound and guessed.guesses_left == OTP_GUESSES - 1)

    async def consume(self, mobile: MobileNumber, purpose: OtpPurpose, code_hash: str) -> bool:
        found = [challenge for _, challenge in self._of(mobile, purpose) if challenge.code_hash == code_hash]
        for challenge in found:
            self.table.put(challenge.challenge_hash, None)
        return bool(found)

    async def purge(self, *, expired_before: datetime) -> None:
        for key, (_, challenge) in self.table.items():
            if challenge.expires_at < expired_before:
                self.table.put(key, None)


class MemoryGuessLimits(GuessLimits):
    def __init__(self) -> None:
        self.table: Table[tuple[MobileNumber, bytes, GuessKind], WrongGuesses] = Table()

    async def record_wrong(
        self,
        mobile: MobileNumber,
        kind: GuessKind,
        *,
        now: datetime,
        device: bytes = b"",
        rule: GuessRule = USUAL_GUESS,
    ) -> None:
        guesses = self.table.get((mobile, device, kind)) or WrongGuesses(kind)
        self.table.put((mobile, device, kind), guesses.with_wrong(now, rule))

    async def clear(self, mobile: MobileNumber, kind: GuessKind, *, device: bytes = b"") -> None:
        if guesses := self.table.get((mobile, device, kind)):
            self.table.put((mobile, device, kind), guesses.cleared())

    async def reset(self, mobile: MobileNumber) -> bool:
        found = [kind for kind in GuessKind if self.table.get((mobile, b"", kind))]
        for kind in found:
            self.table.put((mobile, b"", kind), None)
        return bool(found)

    async def purge(self, *, now: datetime) -> None:
        for key, guesses in self.table.items():
            if guesses.is_obsolete(now):
                self.table.put(key, None)


class MemoryOtpSendLimits(OtpSendLimits):
    def __init__(self) -> None:
        self.table: Table[MobileNumber, CodesSent] = Table()
        self.totals: Table[date, int] = Table()

    async def record(self, mobile: MobileNumber, *, now: datetime, standing: Standing = Standing.FIRST) -> None:
        self.table.put(mobile, (self.table.get(mobile) or CodesSent()).with_sent(now, standing))

    async def record_in_total(self, *, day: date, most: int, is_sent: bool) -> int:
        sent = self.totals.get(day) or 0
        if sent >= most:
            raise CodesExhausted
        if is_sent:
            sent += 1
            self.totals.put(day, sent)
        return sent

    async def purge(self, *, now: datetime) -> None:
        for mobile, sent in self.table.items():
            if sent.is_obsolete(now):
                self.table.put(mobile, None)
        for day in [day for day, _ in self.totals.items() if day < now.date()]:
            self.totals.put(day, None)


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

    def admitted(self, caller: str) -> AbstractContextManager[None]:
        return nullcontext()

    async def hash(self, secret: str, *, caller: str = "") -> str:
        return f"plain:{secret}"

    async def matches(self, secret: str, hashed: str | None, *, caller: str = "") -> bool:
        return hashed == f"plain:{secret}"
