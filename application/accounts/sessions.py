"""Sessions: opening one, and knowing who is asking."""

from __future__ import annotations

from dataclasses import dataclass

from application.ports.accounts import AccessToken, AccessTokens, MobileNumbers, SecretHasher, Sessions, Users
from application.ports.runtime import Clock, Ids
from domain.accounts import Session, User
from domain.errors import CredentialsInvalid, TokenInvalid
from domain.ids import SessionId


@dataclass(frozen=True, slots=True)
class SignedIn:
    user: User
    access: AccessToken


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, through which session."""

    user: User
    session_id: SessionId


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Open a session for a user who has just proved who they are."""

    sessions: Sessions
    access_tokens: AccessTokens
    clock: Clock
    ids: Ids

    async def __call__(self, *, user: User, password_hash: str | None = None) -> SignedIn:
        """`password_hash`: what the password was checked against. Raises CredentialsInvalid if it changed since."""
        session = Session(id=SessionId(self.ids.new()), user_id=user.id, created_at=self.clock.now())
        if password_hash is None:
            await self.sessions.add(session)
        elif not await self.sessions.add_by_password(session, password_hash):
            raise CredentialsInvalid
        return SignedIn(user, self.access_tokens.issue(session))


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Who an access token speaks for. The session is looked up each time, so its end bites at once."""

    sessions: Sessions
    access_tokens: AccessTokens

    async def __call__(self, *, token: str) -> Caller:
        user_id, session_id = self.access_tokens.read(token)
        user = await self.sessions.find_user(session_id)
        if user is None or user.id != user_id:
            raise TokenInvalid
        return Caller(user, session_id)


@dataclass(frozen=True, slots=True)
class LogIn:
    """Log in with the mobile number and the password. Accounts without a password use a code."""

    users: Users
    password_hasher: SecretHasher
    open_session: OpenSession
    mobile_numbers: MobileNumbers

    async def __call__(self, *, mobile: str, password: str) -> SignedIn:
        user = await self.users.find_by_mobile(self.mobile_numbers.parse(mobile))
        password_hash = user.password_hash if user else None
        if not await self.password_hasher.matches(password, password_hash) or user is None:
            raise CredentialsInvalid
        return await self.open_session(user=user, password_hash=password_hash)
