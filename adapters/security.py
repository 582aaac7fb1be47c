"""Hashes, tokens and passwords: argon2, PyJWT and zxcvbn's list."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar
from uuid import UUID

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from application.ports.accounts import (
    AccessToken,
    AccessTokens,
    CommonPasswords,
    NumberDigests,
    RefreshTokens,
    SecretHasher,
)
from application.ports.runtime import Clock
from domain.accounts import MIN_PASSWORD_CHARACTERS, MobileNumber, Session
from domain.errors import TokenExpired, TokenInvalid
from domain.ids import SessionId, UserId

ISSUER = "gemini-backend"
ALGORITHM = "HS256"
TYPE = "at+jwt"  # RFC 9068; no other JWT of anybody's is an access token
LEEWAY_SECONDS = 5
MAX_TOKEN_CHARACTERS = 2_048
# The library skips what is no base64, and bits that mean nothing: without this a token would have many spellings.
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]{42}[AEIMQUYcgkosw048]", re.ASCII)

T = TypeVar("T")


def derived_key(secret: str, purpose: str) -> bytes:
    """A key for one purpose from the one secret there is. Keys of different purposes tell nothing of each other."""
    return hmac.digest(secret.encode(), purpose.encode(), "sha256")


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


def key_id(secret: str) -> str:
    """A name for the key that says nothing of it."""
    return hashlib.sha256(b"key id\0" + secret.encode()).hexdigest()[:12]


class JwtAccessTokens(AccessTokens):
    """Signs with the first key; holds valid what any of the ring has signed, each by its own name and algorithm."""

    def __init__(self, *, secrets: Sequence[str], lifetime_seconds: int, clock: Clock) -> None:
        self._keys = {key_id(secret): secret for secret in reversed(secrets)}
        self._key_id = key_id(secrets[0])
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
        token = jwt.encode(
            claims, self._keys[self._key_id], algorithm=ALGORITHM, headers={"typ": TYPE, "kid": self._key_id}
        )
        return AccessToken(token, self._lifetime)

    def read(self, token: str) -> tuple[UserId, SessionId]:
        if len(token) > MAX_TOKEN_CHARACTERS or not _COMPACT.fullmatch(token):
            raise TokenInvalid
        user_id, session_id, expires_at = self._signed_claims(token)
        if self._clock.now().timestamp() > expires_at + LEEWAY_SECONDS:
            raise TokenExpired
        return user_id, session_id

    def _check_signature(self, token: str) -> tuple[UserId, SessionId, int]:
        try:
            header = jwt.get_unverified_header(token)
            if header.keys() != {"alg", "typ", "kid"} or header["typ"] != TYPE:  # no keys or places of keys in it
                raise TokenInvalid
            claims = jwt.decode(
                token,
                self._keys[header["kid"]],
                algorithms=[ALGORITHM],
                audience=ISSUER,
                issuer=ISSUER,
                leeway=LEEWAY_SECONDS,
                options={"require": ["iss", "aud", "exp", "iat", "sub", "sid", "jti"], "verify_exp": False},
            )
            return UserId(UUID(claims["sub"])), SessionId(UUID(claims["sid"])), int(claims["exp"])
        except (jwt.PyJWTError, KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            raise TokenInvalid from None


class HmacRefreshTokens(RefreshTokens):
    def __init__(self, *, key: bytes) -> None:
        self._key = key

    def first(self) -> str:
        return secrets.token_urlsafe(32)

    def next(self, token: str) -> str:
        return urlsafe_b64encode(hmac.digest(self._key, _bytes(token), "sha256")).rstrip(b"=").decode()

    def hash(self, token: str) -> bytes:
        # No slow hash: of 256 random bits there is nothing to guess.
        return hashlib.sha256(_bytes(token)).digest()


def _bytes(token: str) -> bytes:
    """A cookie may hold any bytes; those that are no UTF-8 come as lone surrogates."""
    return token.encode(errors="surrogatepass")


class HmacNumberDigests(NumberDigests):
    def __init__(self, *, key: bytes) -> None:
        self._key = key

    def digest(self, number: MobileNumber) -> str:
        return urlsafe_b64encode(hmac.digest(self._key, number.encode(), "sha256")[:16]).rstrip(b"=").decode()


class ZxcvbnCommonPasswords(CommonPasswords):
    """The most common ones that are long enough for us at all."""

    def __init__(self, *, most: int = 3_000) -> None:
        # Imported here: the lists take 12 MB, and workers know no passwords.
        from zxcvbn.frequency_lists import FREQUENCY_LISTS

        ranked = FREQUENCY_LISTS["passwords"]
        self._common = frozenset([word for word in ranked if len(word) >= MIN_PASSWORD_CHARACTERS][:most])

    def contain(self, password: str) -> bool:
        return password.lower() in self._common
