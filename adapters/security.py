"""Hashes and tokens: argon2 and PyJWT."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar
from uuid import UUID

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from application.ports.accounts import AccessToken, AccessTokens, SecretHasher
from application.ports.runtime import Clock
from domain.accounts import Session
from domain.errors import TokenExpired, TokenInvalid
from domain.ids import SessionId, UserId

ISSUER = "gemini-backend"
ALGORITHM = "HS256"
LEEWAY_SECONDS = 5

T = TypeVar("T")


class Argon2Hasher(SecretHasher):
    """argon2id in threads of its own, at most four at once: it takes neither the event loop nor all memory."""

    _threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="argon2")

    def __init__(self, *, memory_mib: int, iterations: int, key: bytes = b"") -> None:
        """With a key the secret is run through HMAC-SHA-256 first: a leaked table alone cannot be searched."""
        self._argon2 = PasswordHasher(time_cost=iterations, memory_cost=memory_mib * 1024, parallelism=1)
        self._key = key
        # Compared with when there is no hash, so that an unknown account answers no faster.
        self._decoy = self._argon2.hash(secrets.token_bytes(16))

    async def hash(self, secret: str) -> str:
        return await self._run(self._argon2.hash, self._keyed(secret))

    async def matches(self, secret: str, hashed: str | None) -> bool:
        try:
            matched = await self._run(self._argon2.verify, hashed or self._decoy, self._keyed(secret))
        except (VerificationError, InvalidHashError):
            return False
        return bool(matched) and hashed is not None

    def _keyed(self, secret: str) -> bytes:
        return hmac.digest(self._key, secret.encode(), "sha256") if self._key else secret.encode()

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


class JwtAccessTokens(AccessTokens):
    def __init__(self, *, secret: str, lifetime_seconds: int, clock: Clock) -> None:
        self._secret = secret
        self._lifetime = lifetime_seconds
        self._clock = clock
        # A signature that held once holds for ever and costs 27 µs to check; the expiry is checked each time.
        self._signed_claims = lru_cache(maxsize=10_000)(self._check_signature)

    def issue(self, session: Session) -> AccessToken:
        now = int(self._clock.now().timestamp())
        claims = {
            "iss": ISSUER,
            "aud": ISSUER,
            "sub": str(session.user_id),
            "sid": str(session.id),
            "jti": secrets.token_urlsafe(12),
            "iat": now,
            "exp": now + self._lifetime,
        }
        return AccessToken(jwt.encode(claims, self._secret, algorithm=ALGORITHM), self._lifetime)

    def read(self, token: str) -> tuple[UserId, SessionId]:
        user_id, session_id, expires_at = self._signed_claims(token)
        if self._clock.now().timestamp() > expires_at + LEEWAY_SECONDS:
            raise TokenExpired
        return user_id, session_id

    def _check_signature(self, token: str) -> tuple[UserId, SessionId, int]:
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=ISSUER,
                issuer=ISSUER,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iat", "sub", "sid", "jti"], "verify_exp": False},
            )
            return UserId(UUID(claims["sub"])), SessionId(UUID(claims["sid"])), int(claims["exp"])
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError, OverflowError):
            raise TokenInvalid from None
