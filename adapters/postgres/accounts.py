"""Users, sessions and codes in Postgres."""

from __future__ import annotations

from datetime import datetime

from adapters.postgres.connection import rows
from adapters.postgres.mapping import constraint, to_entity, to_row
from adapters.postgres.tables import OtpChallengeRow, SessionRow, UserRow
from application.ports.accounts import OtpChallenges, Sessions, Users
from domain.accounts import MobileNumber, OtpChallenge, OtpPurpose, Session, User
from domain.errors import MobileTaken
from domain.ids import SessionId, UserId


class PostgresUsers(Users):
    async def add(self, user: User) -> None:
        with constraint("users_mobile_key", MobileTaken), constraint("users_pkey", MobileTaken):
            await UserRow.create(**to_row(user))

    async def find_by_mobile(self, mobile: MobileNumber) -> User | None:
        row = await UserRow.get_or_none(mobile=mobile)
        return None if row is None else to_entity(User, row)

    async def set_password(self, user_id: UserId, password_hash: str) -> None:
        await UserRow.filter(id=user_id).update(password_hash=password_hash)


class PostgresSessions(Sessions):
    async def add(self, session: Session) -> None:
        await SessionRow.create(**to_row(session))

    async def add_by_password(self, session: Session, password_hash: str) -> bool:
        return bool(
            await rows(
                # FOR SHARE waits for a change of the password that is being committed.
                "WITH owner AS (SELECT id FROM users WHERE id = $2 AND password_hash = $4 FOR SHARE)"
                " INSERT INTO sessions (id, user_id, created_at) SELECT $1, id, $3 FROM owner RETURNING id",
                session.id,
                session.user_id,
                session.created_at,
                password_hash,
            )
        )

    async def find_user(self, session_id: SessionId) -> User | None:
        # Every authenticated request asks this: below the ORM, which costs more than twice the time.
        found = await rows(
            "SELECT users.* FROM sessions JOIN users ON users.id = sessions.user_id"
            " WHERE sessions.id = $1 AND sessions.ended_at IS NULL",
            session_id,
        )
        return to_entity(User, found[0]) if found else None

    async def end_all(self, user_id: UserId, *, now: datetime, keep: SessionId | None = None) -> None:
        open_sessions = SessionRow.filter(user_id=user_id, ended_at=None)
        await (open_sessions.exclude(id=keep) if keep else open_sessions).update(ended_at=now)

    async def purge(self, *, opened_before: datetime) -> None:
        await SessionRow.filter(created_at__lt=opened_before).delete()


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
