"""Sessions: opening, refreshing, authenticating, listing and ending them."""

from __future__ import annotations

from dataclasses import dataclass

from application.ports.accounts import (
    AccessToken,
    AccessTokens,
    GuessLimits,
    MobileNumbers,
    RefreshTokens,
    SecretHasher,
    Sessions,
    Users,
)
from application.ports.runtime import Clock, Ids
from domain.accounts import Device, GuessKind, Session, User
from domain.errors import CredentialsInvalid, RefreshTokenInvalid, TokenInvalid
from domain.ids import SessionId


@dataclass(frozen=True, slots=True)
class SignedIn:
    user: User
    access: AccessToken
    refresh_token: str


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
    refresh_tokens: RefreshTokens
    clock: Clock
    ids: Ids

    async def __call__(self, *, user: User, device: Device, password_hash: str | None = None) -> SignedIn:
        """`password_hash` is what the password was checked against. Raises CredentialsInvalid if it changed since."""
        session = Session.begin(SessionId(self.ids.new()), user.id, device, self.clock.now())
        refresh_token = self.refresh_tokens.first()
        refresh_hash = self.refresh_tokens.hash(refresh_token)
        if password_hash is None:
            await self.sessions.add(session, refresh_hash)
        elif not await self.sessions.add_by_password(session, refresh_hash, password_hash):
            raise CredentialsInvalid
        return SignedIn(user, self.access_tokens.issue(session), refresh_token)


@dataclass(frozen=True, slots=True)
class RefreshSession:
    """Spend a refresh token for a new access token and a new refresh token.

    Spent again it gives the same refresh token, in case the first reply was lost, until that token is spent. After
    that it is in the wrong hands, and its session ends at once.
    """

    sessions: Sessions
    access_tokens: AccessTokens
    refresh_tokens: RefreshTokens
    clock: Clock

    async def __call__(self, *, refresh_token: str) -> SignedIn:
        next_token = self.refresh_tokens.next(refresh_token)
        session = await self.sessions.rotate(
            self.refresh_tokens.hash(refresh_token), self.refresh_tokens.hash(next_token), now=self.clock.now()
        )
        user = await self.sessions.find_user(session.id)
        if user is None:  # ended concurrently
            raise RefreshTokenInvalid
        return SignedIn(user, self.access_tokens.issue(session), next_token)


@dataclass(frozen=True, slots=True)
class ListSessions:
    """The devices that are signed in, most recently seen first."""

    sessions: Sessions
    clock: Clock

    async def __call__(self, *, caller: Caller) -> list[Session]:
        return await self.sessions.alive(caller.user.id, now=self.clock.now())


@dataclass(frozen=True, slots=True)
class EndSession:
    """Sign out a device: this one, or another by its id. Its tokens are refused from then on."""

    sessions: Sessions
    clock: Clock

    async def __call__(self, *, caller: Caller, session_id: SessionId | None = None) -> None:
        await self.sessions.end(session_id or caller.session_id, caller.user.id, now=self.clock.now())


@dataclass(frozen=True, slots=True)
class EndOtherSessions:
    """Sign out every device but this one."""

    sessions: Sessions
    clock: Clock

    async def __call__(self, *, caller: Caller) -> None:
        await self.sessions.end_all(caller.user.id, now=self.clock.now(), keep=caller.session_id)


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Whom an access token speaks for. The session is looked up each time, so ending it has an effect at once."""

    sessions: Sessions
    access_tokens: AccessTokens

    async def __call__(self, *, token: str) -> Caller:
        claims = self.access_tokens.read(token)
        user = await self.sessions.find_user(claims.session_id)
        if user is None or user.id != claims.user_id:
            raise TokenInvalid
        return Caller(user, claims.session_id)


@dataclass(frozen=True, slots=True)
class LogIn:
    """Log in with the mobile number and the password. Accounts without a password use a code.

    A guess is counted as wrong before it is checked, also for unknown numbers.
    """

    users: Users
    guess_limits: GuessLimits
    password_hasher: SecretHasher
    open_session: OpenSession
    mobile_numbers: MobileNumbers
    clock: Clock

    async def __call__(self, *, mobile: str, password: str, device: Device) -> SignedIn:
        number = self.mobile_numbers.parse(mobile)
        await self.guess_limits.record_wrong(number, GuessKind.PASSWORD, now=self.clock.now())
        user = await self.users.find_by_mobile(number)
        password_hash = user.password_hash if user else None
        if not await self.password_hasher.matches(password, password_hash) or user is None:
            raise CredentialsInvalid
        await self.guess_limits.clear(number, GuessKind.PASSWORD)
        return await self.open_session(user=user, device=device, password_hash=password_hash)
