"""Sessions: opening, refreshing, authenticating, listing and ending them."""

from __future__ import annotations

from collections.abc import Sequence
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
from application.watching import EndWatch
from domain.accounts import Device, GuessKind, MobileNumber, Session, Standing, User
from domain.errors import CredentialsInvalid, RefreshTokenInvalid, TokenInvalid
from domain.ids import SessionId
from domain.text import opaque_string


@dataclass(frozen=True, slots=True)
class SignedIn:
    user: User
    access: AccessToken
    refresh_token: str
    #: By which the device is known at its next login; None at a refresh.
    device_token: str | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, through which session."""

    user: User
    session_id: SessionId


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Open a session for a user who has just proved who they are. From now on the device is known."""

    sessions: Sessions
    access_tokens: AccessTokens
    refresh_tokens: RefreshTokens
    clock: Clock
    ids: Ids

    async def __call__(
        self, *, user: User, device: Device, is_known: bool, password_hash: str | None = None
    ) -> SignedIn:
        """`password_hash` is what the password was checked against. Raises CredentialsInvalid if it changed since."""
        session = Session.begin(SessionId(self.ids.new()), user.id, device, self.clock.now())
        refresh_token = self.refresh_tokens.first()
        # The token of a device that is not known yet is not adopted: somebody else may have planted it.
        device_token = device.token if is_known else self.refresh_tokens.first()
        hashes = (self.refresh_tokens.hash(refresh_token), self.refresh_tokens.hash(device_token))
        if password_hash is None:
            await self.sessions.add(session, *hashes)
        elif not await self.sessions.add_by_password(session, *hashes, password_hash):
            raise CredentialsInvalid
        return SignedIn(user, self.access_tokens.issue(session), refresh_token, device_token)


@dataclass(frozen=True, slots=True)
class RecogniseDevice:
    """What a number's account knows of the device that a request comes from."""

    sessions: Sessions
    refresh_tokens: RefreshTokens
    clock: Clock

    async def __call__(self, mobile: MobileNumber, device: Device) -> Standing:
        return await self.sessions.standing(mobile, self._hash(device), now=self.clock.now())

    async def known(self, mobile: MobileNumber, device: Device) -> bytes:
        """What its guesses are counted under; empty for a strange one."""
        if not device.token or await self(mobile, device) is not Standing.KNOWN:
            return b""
        return self._hash(device) or b""

    def _hash(self, device: Device) -> bytes | None:
        return self.refresh_tokens.hash(device.token) if device.token else None


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

    async def __call__(self, *, refresh_token: str, alternatives: Sequence[str] = ()) -> SignedIn:
        """`alternatives`: a browser may send several cookies of one name; the one that is not spent counts."""
        if alternatives:
            tokens = {self.refresh_tokens.hash(token): token for token in (refresh_token, *alternatives)}
            unspent = await self.sessions.unspent(list(tokens))
            refresh_token = tokens[unspent] if unspent is not None else refresh_token
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
        ended = session_id or caller.session_id
        is_other = ended != caller.session_id
        await self.sessions.end(ended, caller.user.id, now=self.clock.now(), forget_device=is_other)


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


class SessionWatch(EndWatch[SessionId]):
    """Ends what a session has open, such as streams, when the session ends, at whichever process that happens."""

    def __init__(self, sessions: Sessions, *, seconds: float = 1.0) -> None:
        super().__init__(sessions.ended, seconds=seconds)


@dataclass(frozen=True, slots=True)
class MatchPassword:
    """Whether it is the user's password, as RFC 8265 prepares it; an older hash may be of what was typed.

    Returns the hash that the user has afterwards; None if it does not match, or there is no user or no password.
    """

    users: Users
    password_hasher: SecretHasher

    async def __call__(self, password: str, user: User | None, *, caller: str) -> str | None:
        hashed = user.password_hash if user else None
        prepared = opaque_string(password)
        if await self.password_hasher.matches(prepared, hashed, caller=caller):
            return hashed
        if prepared == password or not await self.password_hasher.matches(password, hashed, caller=caller):
            return None
        assert user is not None, "nobody's password matches nothing"
        assert hashed is not None, "no password matches nothing"
        renewed = await self.password_hasher.hash(prepared, caller=caller)
        await self.users.rehash_password(user.id, hashed, renewed)
        found = await self.users.find_by_mobile(user.mobile)
        # Another login may have been faster, or the password was changed meanwhile.
        current = found.password_hash if found and found.id == user.id else None
        if current == renewed or await self.password_hasher.matches(prepared, current, caller=caller):
            return current
        return None


@dataclass(frozen=True, slots=True)
class LogIn:
    """Log in with the mobile number and the password. Accounts without a password use a code.

    A guess is counted as wrong before it is checked, also for unknown numbers.
    """

    users: Users
    guess_limits: GuessLimits
    match_password: MatchPassword
    recognise: RecogniseDevice
    open_session: OpenSession
    mobile_numbers: MobileNumbers
    clock: Clock

    async def __call__(self, *, mobile: str, password: str, device: Device) -> SignedIn:
        number = self.mobile_numbers.parse(mobile)
        with self.match_password.password_hasher.admitted(device.network):
            return await self._log_in(number, password, device)

    async def _log_in(self, number: MobileNumber, password: str, device: Device) -> SignedIn:
        known = await self.recognise.known(number, device)
        await self.guess_limits.record_wrong(number, GuessKind.PASSWORD, now=self.clock.now(), device=known)
        user = await self.users.find_by_mobile(number)
        password_hash = await self.match_password(password, user, caller=device.network)
        if password_hash is None or user is None:
            raise CredentialsInvalid
        await self.guess_limits.clear(number, GuessKind.PASSWORD, device=known)
        return await self.open_session(user=user, device=device, is_known=bool(known), password_hash=password_hash)
