"""Users, sessions and codes in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from functools import partial
from uuid import UUID

import asyncpg
import structlog

from adapters.postgres.connection import transaction
from adapters.postgres.lookup import Lookup
from adapters.postgres.mapping import to_entity, to_row
from adapters.postgres.statements import Statements
from adapters.postgres.tables import SessionRow, UserRow
from application.ports.accounts import GuessLimits, NumberDigests, OtpChallenges, OtpSendLimits, Sessions, Users
from domain.accounts import (
    DEVICE_RETENTION,
    GUESSES_A_DAY,
    GUESSES_BEFORE_BACKOFF,
    LOCKOUT,
    LOCKOUT_STREAK,
    MAX_GUESS_BACKOFF,
    MAX_KNOWN_DEVICES,
    OTP_GUESSES,
    SENDINGS_KEPT,
    SENDINGS_KEPT_FOR,
    SESSION_IDLE,
    STREAK_RETENTION,
    USUAL_GUESS,
    GuessKind,
    GuessRule,
    MobileNumber,
    OtpChallenge,
    OtpGuess,
    OtpPurpose,
    RefreshToken,
    SendingRules,
    Session,
    Standing,
    User,
)
from domain.errors import (
    CodesExhausted,
    CodesSentTooOften,
    MobileTaken,
    OtpLocked,
    RefreshTokenInvalid,
    SessionNotFound,
    TooManyGuesses,
    UserNotFound,
)
from domain.ids import SessionId, UserId

log = structlog.get_logger(__name__)

USERS, SESSIONS, CODES, GUESSES = (Statements(area) for area in ("users", "sessions", "codes", "guesses"))


def _arrays(rules: SendingRules) -> dict[str, object]:
    return {
        "all_most": [rule.most for rule in rules.of_all],
        "all_within": [rule.within for rule in rules.of_all],
        "known_most": [rule.most for rule in rules.of_known],
        "known_within": [rule.within for rule in rules.of_known],
    }


_SENDING_RULES = {standing: _arrays(SendingRules.of(standing)) for standing in Standing}


class PostgresUsers(Users):
    def __init__(self, digests: NumberDigests) -> None:
        self._digests = digests

    async def add(self, user: User) -> None:
        # The insert waits for a concurrent deletion of the number's last account. What that deletion keeps is visible
        # to the second statement, not to the first.
        async def run(connection: asyncpg.Connection) -> None:
            if not await USERS.add.on(connection, **to_row(user)):
                raise MobileTaken
            digest = self._digests.digest(user.mobile)
            await USERS.restore_days_use.on(connection, user_id=user.id, number_digest=digest)

        await transaction(run)

    async def find_by_mobile(self, mobile: MobileNumber) -> User | None:
        row = await UserRow.get_or_none(mobile=mobile)
        return None if row is None else to_entity(User, row)

    async def rename(self, user_id: UserId, name: str) -> None:
        await UserRow.filter(id=user_id).update(name=name)

    async def delete(self, user_id: UserId) -> None:
        # Locks are taken in the order in which sending and finishing messages, using codes and syncing subscriptions
        # take them: the user last, then the sessions in the order of their ids.
        async def run(connection: asyncpg.Connection) -> None:
            for statement in (
                USERS.lock_chatrooms,
                USERS.lock_queue_entries,
                USERS.lock_allowance,
                USERS.lock_billing,
                USERS.delete_codes,
                USERS.delete_previous_codes,
            ):
                await statement.on(connection, user_id=user_id)
            found = await USERS.lock.on(connection, user_id=user_id)
            if not found:
                return
            await USERS.lock_sessions.on(connection, user_id=user_id)
            digest = self._digests.digest(found[0]["mobile"])
            # The user is locked first: a first message would create the counters that are kept here.
            await USERS.keep_days_use.on(connection, user_id=user_id, number_digest=digest)
            await USERS.delete.on(connection, user_id=user_id)
            # Stored replies are scoped by user, or by number for callers who were not logged in.
            for owner in (str(user_id), digest):
                await USERS.delete_replies.on(connection, owner=owner)

        await transaction(run)

    async def set_password(self, user_id: UserId, password_hash: str) -> None:
        await UserRow.filter(id=user_id).update(password_hash=password_hash)

    async def rehash_password(self, user_id: UserId, old_hash: str, new_hash: str) -> None:
        await USERS.rehash_password(user_id=user_id, old_hash=old_hash, new_hash=new_hash)

    async def purge(self, *, today: date) -> None:
        await USERS.purge_days_use(today=today)


class PostgresSessions(Sessions):
    def __init__(self) -> None:
        self._find_user: Lookup[SessionId, User] = Lookup(SESSIONS.find_users, partial(to_entity, User))

    async def add(self, session: Session, refresh_hash: bytes, device_hash: bytes) -> None:
        if not await self._add(session, refresh_hash, device_hash, None):
            raise UserNotFound

    async def add_by_password(
        self, session: Session, refresh_hash: bytes, device_hash: bytes, password_hash: str
    ) -> bool:
        return await self._add(session, refresh_hash, device_hash, password_hash)

    async def _add(self, session: Session, refresh_hash: bytes, device_hash: bytes, password_hash: str | None) -> bool:
        added = await SESSIONS.add(
            id=session.id,
            user_id=session.user_id,
            created_at=session.created_at,
            expires_at=session.expires_at,
            device=session.device,
            network=session.network,
            refresh_hash=refresh_hash,
            device_hash=device_hash,
            max_devices=MAX_KNOWN_DEVICES,
            token_expires_at=session.created_at + SESSION_IDLE,
            password_hash=password_hash,
        )
        return bool(added)

    async def standing(self, mobile: MobileNumber, device_hash: bytes | None, *, now: datetime) -> Standing:
        [found] = await SESSIONS.standing(mobile=mobile, device_hash=device_hash, seen_after=now - DEVICE_RETENTION)
        if not found["has_any"]:
            return Standing.FIRST
        return Standing.KNOWN if found["is_known"] else Standing.STRANGE

    async def unspent(self, hashes: Sequence[bytes]) -> bytes | None:
        found = {row["hash"] for row in await SESSIONS.unspent(hashes=list(hashes))}
        return next((one for one in hashes if one in found), None)

    async def rotate(self, spent_hash: bytes, next_hash: bytes, *, now: datetime) -> Session:
        rotated = await SESSIONS.rotate(spent_hash=spent_hash, next_hash=next_hash, now=now, idle=SESSION_IDLE)
        if rotated:
            return to_entity(Session, rotated[0])
        found = await SESSIONS.find_token(spent_hash=spent_hash, next_hash=next_hash)
        if not found or found[0]["spent_at"] is None:  # never issued, or left alone for too long
            raise RefreshTokenInvalid
        session = to_entity(Session, found[0])
        token = RefreshToken(session.id, found[0]["token_expires_at"], found[0]["spent_at"])
        if token.may_repeat(session, now, is_last=found[0]["is_last"]):
            return session
        await SessionRow.filter(id=session.id, ended_at=None).update(ended_at=now)
        log.warning("refresh_token_reused", session_id=str(session.id))
        raise RefreshTokenInvalid

    async def alive(self, user_id: UserId, *, now: datetime) -> list[Session]:
        found = await SESSIONS.alive(user_id=user_id, now=now, idle=SESSION_IDLE)
        return [to_entity(Session, row) for row in found]

    async def end(self, session_id: SessionId, user_id: UserId, *, now: datetime, forget_device: bool = False) -> None:
        if not await SESSIONS.end(id=session_id, user_id=user_id, now=now, forget_device=forget_device):
            raise SessionNotFound

    async def find_user(self, session_id: SessionId) -> User | None:
        return await self._find_user(session_id)

    async def ended(self, session_ids: Sequence[SessionId]) -> list[SessionId]:
        return [SessionId(UUID(int=row["key"].int)) for row in await SESSIONS.ended(keys=session_ids)]

    async def end_all(self, user_id: UserId, *, now: datetime, keep: SessionId | None = None) -> None:
        await SESSIONS.end_all(user_id=user_id, now=now, keep=keep)

    async def purge(self, *, now: datetime) -> None:
        while await SESSIONS.purge(now=now, idle=SESSION_IDLE):
            pass
        while await SESSIONS.purge_devices(seen_before=now - DEVICE_RETENTION):
            pass


class PostgresOtpChallenges(OtpChallenges):
    async def add(self, challenge: OtpChallenge) -> None:
        await CODES.add(**to_row(challenge))

    async def count_guess(
        self, mobile: MobileNumber, purpose: OtpPurpose, *, challenge_hash: bytes | None, now: datetime
    ) -> OtpGuess | None:
        whose = {"mobile": mobile, "purpose": purpose, "now": now}
        if challenge_hash is None:
            counted = await CODES.count_unbound_guess(**whose)
            return OtpGuess(counted[0]["code_hash"], is_first=False) if counted else None
        counted = await CODES.count_bound_guess(**whose, challenge_hash=challenge_hash)
        if not counted:
            return None
        return OtpGuess(counted[0]["code_hash"], is_first=counted[0]["guesses_left"] == OTP_GUESSES - 1)

    async def consume(self, mobile: MobileNumber, purpose: OtpPurpose, code_hash: str) -> bool:
        return bool(await CODES.consume(mobile=mobile, purpose=purpose, code_hash=code_hash))

    async def purge(self, *, expired_before: datetime) -> None:
        while await CODES.purge(expired_before=expired_before):
            pass
        await CODES.purge_previous(expired_before=expired_before)


class PostgresGuessLimits(GuessLimits):
    def __init__(self, digests: NumberDigests) -> None:
        self._digests = digests

    async def record_wrong(
        self,
        mobile: MobileNumber,
        kind: GuessKind,
        *,
        now: datetime,
        device: bytes = b"",
        rule: GuessRule = USUAL_GUESS,
    ) -> None:
        key = {"number_digest": self._digests.digest(mobile, device), "kind": kind}
        limits = {
            "an_hour": rule.an_hour,
            "a_day": rule.a_day,
            "backs_off": rule.backs_off,
            "before_backoff": GUESSES_BEFORE_BACKOFF,
            "max_backoff": MAX_GUESS_BACKOFF,
            "max_streak": LOCKOUT_STREAK if kind is GuessKind.CODE else None,
            "lockout": LOCKOUT,
        }
        while True:
            if await GUESSES.record_wrong(**key, **limits, now=now, kept=GUESSES_A_DAY):
                return
            [found] = await GUESSES.budget(**key, **limits) or [{"locked_until": None, "next_at": None}]
            if found["locked_until"] is not None and found["locked_until"] > now:
                raise OtpLocked(retry_after=(found["locked_until"] - now).total_seconds())
            if found["next_at"] is not None and found["next_at"] > now:
                raise TooManyGuesses(retry_after=(found["next_at"] - now).total_seconds())

    async def clear(self, mobile: MobileNumber, kind: GuessKind, *, device: bytes = b"") -> None:
        await GUESSES.clear(number_digest=self._digests.digest(mobile, device), kind=kind)

    async def reset(self, mobile: MobileNumber) -> bool:
        return bool(await GUESSES.reset(number_digest=self._digests.digest(mobile)))

    async def purge(self, *, now: datetime) -> None:
        await GUESSES.purge(now=now, code=GuessKind.CODE, retention=STREAK_RETENTION)


class PostgresOtpSendLimits(OtpSendLimits):
    def __init__(self, digests: NumberDigests) -> None:
        self._digests = digests

    async def record(self, mobile: MobileNumber, *, now: datetime, standing: Standing = Standing.FIRST) -> None:
        digest = self._digests.digest(mobile)
        rules = _SENDING_RULES[standing]
        is_known = standing is Standing.KNOWN
        while True:
            recorded = await CODES.record_sending(
                number_digest=digest, now=now, kept=SENDINGS_KEPT, is_known=is_known, **rules
            )
            if recorded:
                return
            found = await CODES.next_sending_at(number_digest=digest, **rules)
            if found and found[0]["next_at"] is not None and found[0]["next_at"] > now:
                raise CodesSentTooOften(retry_after=(found[0]["next_at"] - now).total_seconds())

    async def record_in_total(self, *, day: date, most: int, is_sent: bool) -> int:
        if is_sent:
            counted = await CODES.record_in_total(day=day, most=most) if most > 0 else []
        else:
            counted = await CODES.total(day=day) or [{"sent": 0}]
        if not counted or (not is_sent and counted[0]["sent"] >= most):
            log.error("codes_exhausted", limit=most)
            raise CodesExhausted
        sent = int(counted[0]["sent"])
        if is_sent and sent == most * 4 // 5:
            log.warning("codes_nearly_exhausted", sent=sent, limit=most)
        return sent

    async def purge(self, *, now: datetime) -> None:
        while await CODES.purge_sendings(sent_before=now - SENDINGS_KEPT_FOR):
            pass
        await CODES.purge_totals(day=now.date())
