"""Users, sessions and codes in Postgres."""

from __future__ import annotations

from datetime import date, datetime

import asyncpg
import structlog

from adapters.postgres.connection import rows, transaction
from adapters.postgres.mapping import to_entity, to_row
from adapters.postgres.tables import OtpChallengeRow, SessionRow, UserRow
from application.ports.accounts import GuessLimits, NumberDigests, OtpChallenges, OtpSendLimits, Sessions, Users
from domain.accounts import (
    GUESSES_A_DAY,
    GUESSES_AN_HOUR,
    GUESSES_BEFORE_BACKOFF,
    LOCKOUT_STREAK,
    MAX_GUESS_BACKOFF,
    SENDING_RULES,
    SENDINGS_KEPT,
    SENDINGS_KEPT_FOR,
    SESSION_IDLE,
    STREAK_RETENTION,
    GuessKind,
    MobileNumber,
    OtpChallenge,
    OtpPurpose,
    RefreshToken,
    Session,
    User,
)
from domain.errors import (
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

# All of one token's parallel spenders wait here for the first; then it is spent, and they find no row. The session is
# locked before its tokens, as it is when it is deleted.
_ROTATE = """
WITH family AS (
    SELECT id, expires_at FROM sessions
    WHERE id = (SELECT session_id FROM refresh_tokens WHERE hash = $1) AND ended_at IS NULL AND expires_at > $3
    FOR UPDATE
),
spent AS (
    UPDATE refresh_tokens SET spent_at = $3 FROM family
    WHERE hash = $1 AND spent_at IS NULL AND refresh_tokens.expires_at > $3 AND session_id = family.id
    RETURNING session_id, family.expires_at
),
successor AS (
    INSERT INTO refresh_tokens (hash, session_id, expires_at)
    SELECT $2, session_id, least($3 + $4::interval, expires_at) FROM spent
)
UPDATE sessions SET last_seen_at = $3 FROM spent WHERE id = session_id RETURNING sessions.*
"""

# The wait after so many wrong ones in a row, and the hour's and the day's budget, by the times of the last ones.
_GUESS_AFTER = """greatest(
    budget.wrong_at[1] + CASE WHEN budget.in_a_row > $3
        THEN least(power(2, least(budget.in_a_row - $3 - 1, 30)) * interval '1 s', $4) ELSE interval '0' END,
    budget.wrong_at[$5] + interval '1 hour', budget.wrong_at[$6] + interval '1 day')"""
_SEND_AGAIN_AT = "greatest({})".format(
    ", ".join(
        f"sending.sent_at[{rule.most}] + interval '{rule.within.total_seconds():.0f} s'" for rule in SENDING_RULES
    )
)
# What outlives an account: of the day that is not over, and nothing in flight.
_DAYS_USE = "day, used, minute_from, minute_used, input_tokens, output_tokens, empty_cuts"
_KEEP_DAYS_USE = f"""
INSERT INTO kept_allowances (number_digest, {_DAYS_USE})
SELECT $2, {_DAYS_USE} FROM allowances WHERE user_id = $1 AND day >= (now() AT TIME ZONE 'UTC')::date
ON CONFLICT (number_digest) DO UPDATE SET ({_DAYS_USE}) = ({", ".join(f"excluded.{c}" for c in _DAYS_USE.split(", "))})
"""
_RESTORE_DAYS_USE = f"""
WITH kept AS (DELETE FROM kept_allowances WHERE number_digest = $2 RETURNING *)
INSERT INTO allowances (user_id, in_flight, {_DAYS_USE}) SELECT $1, 0, {_DAYS_USE} FROM kept
"""
_GUESS_LIMITS = (GUESSES_BEFORE_BACKOFF, MAX_GUESS_BACKOFF, GUESSES_AN_HOUR, GUESSES_A_DAY)


class PostgresUsers(Users):
    def __init__(self, digests: NumberDigests) -> None:
        self._digests = digests

    async def add(self, user: User) -> None:
        row = to_row(user)
        values = ", ".join(f"${number}" for number, _ in enumerate(row, 1))
        # No violation of a constraint: Postgres would write the number into its log. Whoever is being deleted with this
        # number is waited for, and what that leaves is seen by the second statement, not by the first.
        insert = f"INSERT INTO users ({', '.join(row)}) VALUES ({values}) ON CONFLICT DO NOTHING RETURNING id"

        async def run(connection: asyncpg.Connection) -> None:
            if not await connection.fetch(insert, *row.values()):
                raise MobileTaken
            await connection.execute(_RESTORE_DAYS_USE, user.id, self._digests.digest(user.mobile))

        await transaction(run)

    async def find_by_mobile(self, mobile: MobileNumber) -> User | None:
        row = await UserRow.get_or_none(mobile=mobile)
        return None if row is None else to_entity(User, row)

    async def rename(self, user_id: UserId, name: str) -> None:
        await UserRow.filter(id=user_id).update(name=name)

    async def delete(self, user_id: UserId) -> None:
        # Locked in the order in which messages are sent and finished, codes used and subscriptions read: the user
        # last, then the sessions in the order of their ids.
        async def run(connection: asyncpg.Connection) -> None:
            await connection.execute("SELECT FROM chatrooms WHERE user_id = $1 ORDER BY id FOR UPDATE", user_id)
            await connection.execute("SELECT FROM messages WHERE user_id = $1 ORDER BY id FOR UPDATE", user_id)
            await connection.execute("SELECT FROM allowances WHERE user_id = $1 FOR UPDATE", user_id)
            await connection.execute("SELECT FROM billing_accounts WHERE user_id = $1 FOR UPDATE", user_id)
            await connection.execute(
                "DELETE FROM otp_challenges WHERE mobile = (SELECT mobile FROM users WHERE id = $1)", user_id
            )
            mobile = await connection.fetchval("SELECT mobile FROM users WHERE id = $1 FOR UPDATE", user_id)
            if mobile is None:
                return
            await connection.execute("SELECT FROM sessions WHERE user_id = $1 ORDER BY id FOR UPDATE", user_id)
            digest = self._digests.digest(mobile)
            # After the user is locked: from then on nobody sends a first message of theirs.
            await connection.execute(_KEEP_DAYS_USE, user_id, digest)
            await connection.execute("DELETE FROM users WHERE id = $1", user_id)
            # Kept replies are scoped by who asked: by the user, or by the number where nobody was logged in. These
            # operators, unlike LIKE, always use the index.
            for owner in (user_id, digest):
                await connection.execute(
                    "DELETE FROM idempotency_keys WHERE scope ~>=~ $1 AND scope ~<~ $2", f"{owner} ", f"{owner}!"
                )

        await transaction(run)

    async def set_password(self, user_id: UserId, password_hash: str) -> None:
        await UserRow.filter(id=user_id).update(password_hash=password_hash)

    async def purge(self, *, today: date) -> None:
        await rows("DELETE FROM kept_allowances WHERE day < $1", today)


class PostgresSessions(Sessions):
    async def add(self, session: Session, refresh_hash: bytes) -> None:
        if not await self._add(session, refresh_hash, None):
            raise UserNotFound

    async def add_by_password(self, session: Session, refresh_hash: bytes, password_hash: str) -> bool:
        return await self._add(session, refresh_hash, password_hash)

    async def _add(self, session: Session, refresh_hash: bytes, password_hash: str | None) -> bool:
        # FOR SHARE waits for a change of the password that is being committed.
        return bool(
            await rows(
                "WITH owner AS ("
                "   SELECT id FROM users WHERE id = $2 AND ($8::text IS NULL OR password_hash = $8) FOR SHARE"
                " ), opened AS ("
                "   INSERT INTO sessions (id, user_id, created_at, last_seen_at, expires_at, device, network)"
                "   SELECT $1, id, $3, $3, $4, $5, $6 FROM owner RETURNING id"
                " ) INSERT INTO refresh_tokens (hash, session_id, expires_at)"
                " SELECT $7, id, $9 FROM opened RETURNING session_id",
                session.id,
                session.user_id,
                session.created_at,
                session.expires_at,
                session.device,
                session.network,
                refresh_hash,
                password_hash,
                session.created_at + SESSION_IDLE,
            )
        )

    async def rotate(self, spent_hash: bytes, next_hash: bytes, *, now: datetime) -> Session:
        rotated = await rows(_ROTATE, spent_hash, next_hash, now, SESSION_IDLE)
        if rotated:
            return to_entity(Session, rotated[0])
        found = await rows(
            "SELECT sessions.*, token.expires_at AS token_expires_at, spent_at, EXISTS ("
            "   SELECT FROM refresh_tokens WHERE hash = $2 AND spent_at IS NULL"
            " ) AS is_last FROM refresh_tokens token JOIN sessions ON sessions.id = session_id WHERE hash = $1",
            spent_hash,
            next_hash,
        )
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
        found = [to_entity(Session, row) for row in await SessionRow.filter(user_id=user_id, ended_at=None)]
        alive = [session for session in found if session.is_alive(now)]
        return sorted(alive, key=lambda session: (session.last_seen_at, session.id), reverse=True)

    async def end(self, session_id: SessionId, user_id: UserId, *, now: datetime) -> None:
        if not await SessionRow.filter(id=session_id, user_id=user_id, ended_at=None).update(ended_at=now):
            raise SessionNotFound

    async def find_user(self, session_id: SessionId) -> User | None:
        # Every authenticated request asks this: below the ORM, which costs more than twice the time.
        found = await rows(
            "SELECT users.* FROM sessions JOIN users ON users.id = sessions.user_id"
            " WHERE sessions.id = $1 AND sessions.ended_at IS NULL",
            session_id,
        )
        return to_entity(User, found[0]) if found else None

    async def end_all(self, user_id: UserId, *, now: datetime, keep: SessionId | None = None) -> None:
        await rows(
            "WITH open AS ("
            "   SELECT id FROM sessions WHERE user_id = $1 AND ended_at IS NULL AND id IS DISTINCT FROM $3"
            "   ORDER BY id FOR UPDATE"
            " ) UPDATE sessions SET ended_at = $2 FROM open WHERE sessions.id = open.id",
            user_id,
            now,
            keep,
        )

    async def purge(self, *, now: datetime) -> None:
        await rows(
            "DELETE FROM sessions WHERE id IN ("
            "   SELECT id FROM sessions WHERE expires_at < $1 OR ended_at < $1 OR last_seen_at < $2"
            "   FOR UPDATE SKIP LOCKED)",
            now,
            now - SESSION_IDLE,
        )


class PostgresOtpChallenges(OtpChallenges):
    async def replace(self, challenge: OtpChallenge) -> None:
        await rows(
            "INSERT INTO otp_challenges (mobile, purpose, code_hash, expires_at, guesses_left)"
            " VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT (mobile, purpose) DO UPDATE SET code_hash = excluded.code_hash,"
            " expires_at = excluded.expires_at, guesses_left = excluded.guesses_left",
            *to_row(challenge).values(),
        )

    async def count_guess(self, mobile: MobileNumber, purpose: OtpPurpose, *, now: datetime) -> str | None:
        counted = await rows(
            "UPDATE otp_challenges SET guesses_left = guesses_left - 1"
            " WHERE mobile = $1 AND purpose = $2 AND guesses_left > 0 AND expires_at > $3 RETURNING code_hash",
            mobile,
            purpose,
            now,
        )
        return counted[0]["code_hash"] if counted else None

    async def consume(self, mobile: MobileNumber, purpose: OtpPurpose, code_hash: str) -> bool:
        return bool(
            await rows(
                "DELETE FROM otp_challenges WHERE mobile = $1 AND purpose = $2 AND code_hash = $3 RETURNING id",
                mobile,
                purpose,
                code_hash,
            )
        )

    async def purge(self, *, expired_before: datetime) -> None:
        await OtpChallengeRow.filter(expires_at__lt=expired_before).delete()


class PostgresGuessLimits(GuessLimits):
    def __init__(self, digests: NumberDigests) -> None:
        self._digests = digests

    async def record_wrong(self, mobile: MobileNumber, kind: GuessKind, *, now: datetime) -> None:
        most_in_a_row = LOCKOUT_STREAK if kind is GuessKind.CODE else None
        while True:
            counted = await rows(
                "INSERT INTO wrong_guesses AS budget (number_digest, kind, wrong_at, in_a_row)"
                " VALUES ($1, $2, ARRAY[$7::timestamptz], 1) ON CONFLICT (number_digest, kind) DO UPDATE SET"
                " wrong_at = ($7::timestamptz || budget.wrong_at)[:$6], in_a_row = budget.in_a_row + 1"
                f" WHERE coalesce({_GUESS_AFTER} <= $7, true) AND ($8::int IS NULL OR budget.in_a_row < $8)"
                " RETURNING budget.in_a_row",
                self._digests.digest(mobile),
                kind.value,
                *_GUESS_LIMITS,
                now,
                most_in_a_row,
            )
            if counted:
                return
            found = await rows(
                f"SELECT in_a_row, {_GUESS_AFTER} AS guess_after FROM wrong_guesses budget"
                " WHERE number_digest = $1 AND kind = $2",
                self._digests.digest(mobile),
                kind.value,
                *_GUESS_LIMITS,
            )
            if found and most_in_a_row is not None and found[0]["in_a_row"] >= most_in_a_row:
                raise OtpLocked
            if found and found[0]["guess_after"] is not None and found[0]["guess_after"] > now:
                raise TooManyGuesses(retry_after=(found[0]["guess_after"] - now).total_seconds())

    async def clear(self, mobile: MobileNumber, kind: GuessKind) -> None:
        await rows(
            "UPDATE wrong_guesses SET wrong_at = wrong_at[2:], in_a_row = 0 WHERE number_digest = $1 AND kind = $2",
            self._digests.digest(mobile),
            kind.value,
        )

    async def reset(self, mobile: MobileNumber) -> bool:
        sql = "DELETE FROM wrong_guesses WHERE number_digest = $1 RETURNING id"
        return bool(await rows(sql, self._digests.digest(mobile)))

    async def purge(self, *, now: datetime) -> None:
        await rows(
            "DELETE FROM wrong_guesses WHERE (in_a_row < $3 OR kind <> $2)"
            " AND coalesce(wrong_at[1] < $1::timestamptz - CASE WHEN in_a_row > 0 AND kind = $2"
            "   THEN $4::interval ELSE interval '1 day' END, true)",
            now,
            GuessKind.CODE.value,
            LOCKOUT_STREAK,
            STREAK_RETENTION,
        )


class PostgresOtpSendLimits(OtpSendLimits):
    def __init__(self, digests: NumberDigests) -> None:
        self._digests = digests

    async def record(self, mobile: MobileNumber, *, now: datetime) -> None:
        while True:
            counted = await rows(
                "INSERT INTO codes_sent AS sending (number_digest, sent_at) VALUES ($1, ARRAY[$2::timestamptz])"
                " ON CONFLICT (number_digest) DO UPDATE SET sent_at = ($2::timestamptz || sending.sent_at)[:$3]"
                f" WHERE {_SEND_AGAIN_AT} <= $2 RETURNING number_digest",
                self._digests.digest(mobile),
                now,
                SENDINGS_KEPT,
            )
            if counted:
                return
            found = await rows(
                f"SELECT {_SEND_AGAIN_AT} AS again_at FROM codes_sent sending WHERE number_digest = $1",
                self._digests.digest(mobile),
            )
            if found and found[0]["again_at"] > now:
                raise CodesSentTooOften(retry_after=(found[0]["again_at"] - now).total_seconds())

    async def purge(self, *, now: datetime) -> None:
        await rows("DELETE FROM codes_sent WHERE sent_at[1] < $1", now - SENDINGS_KEPT_FOR)
