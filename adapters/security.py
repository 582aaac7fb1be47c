"""Hashes, tokens and passwords, by argon2, PyJWT and zxcvbn's lists."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from adapters.fair_threads import FairThreads
from application.ports.accounts import (
    AccessClaims,
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
TYPE = "at+jwt"  # RFC 9068; no other JWT is an access token
LEEWAY_SECONDS = 5
MAX_TOKEN_CHARACTERS = 2_048
# PyJWT ignores non-base64 characters and padding bits; reject them so that each token has one encoding.
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]{42}[AEIMQUYcgkosw048]", re.ASCII)


def derived_key(secret: str, purpose: str) -> bytes:
    """A key for one purpose, derived from the secret. Keys for different purposes are independent."""
    return hmac.digest(secret.encode(), purpose.encode(), "sha256")


class Argon2Hasher(SecretHasher):
    """argon2id in its own threads, which bounds its memory and keeps the event loop free."""

    def __init__(self, *, memory_mib: int, iterations: int, key: bytes = b"", threads: int = 2) -> None:
        """With a key, secrets go through HMAC-SHA-256 first, so that a leaked table alone cannot be searched."""
        self._argon2 = PasswordHasher(time_cost=iterations, memory_cost=memory_mib * 1024, parallelism=1)
        self._key = key
        self._turns = FairThreads(threads)
        # Compared with if there is no hash, so that an unknown account takes the same time.
        self._decoy = self._argon2.hash(secrets.token_bytes(16))

    def admitted(self, caller: str) -> AbstractContextManager[None]:
        return self._turns.admitted(caller)

    async def hash(self, secret: str, *, caller: str = "") -> str:
        return await self._turns.run(caller, self._argon2.hash, self._keyed(secret))

    async def matches(self, secret: str, hashed: str | None, *, caller: str = "") -> bool:
        try:
            matched = await self._turns.run(caller, self._argon2.verify, hashed or self._decoy, self._keyed(secret))
        except (VerificationError, InvalidHashError):
            return False
        return bool(matched) and hashed is not None

    def _keyed(self, secret: str) -> bytes:
        return hmac.digest(self._key, secret.encode(), "sha256") if self._key else secret.encode()


def key_id(secret: str) -> str:
    """A name for the key that does not reveal it."""
    return hashlib.sha256(b"key id\0" + secret.encode()).hexdigest()[:12]


class _Signed(NamedTuple):
    claims: AccessClaims
    expires_at: int


class JwtAccessTokens(AccessTokens):
    """Signs with the first secret, and accepts tokens signed with any of them; the header's `kid` names the key."""

    def __init__(self, *, secrets: Sequence[str], lifetime_seconds: int, clock: Clock) -> None:
        self._keys = {key_id(secret): secret for secret in reversed(secrets)}
        self._key_id = key_id(secrets[0])
        self._lifetime = lifetime_seconds
        self._clock = clock
        # Checking a signature costs 27 µs, and the result never changes; the expiry is checked each time.
        self._verified = lru_cache(maxsize=10_000)(self._verify)

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

    def read(self, token: str) -> AccessClaims:
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise TokenInvalid
        signed = self._verified(token)
        if self._clock.now().timestamp() > signed.expires_at + LEEWAY_SECONDS:
            raise TokenExpired
        return signed.claims

    def _verify(self, token: str) -> _Signed:
        if not _COMPACT.fullmatch(token):
            raise TokenInvalid
        try:
            header = jwt.get_unverified_header(token)
            if header.keys() != {"alg", "typ", "kid"} or header["typ"] != TYPE:  # it must not bring its own key
                raise TokenInvalid
            claims = jwt.decode(
                token,
                self._keys[header["kid"]],
                algorithms=[ALGORITHM],
                audience=ISSUER,
                issuer=ISSUER,
                leeway=LEEWAY_SECONDS,
                # The clock of the host that issued it may be ahead: the expiry and the session decide.
                options={
                    "require": ["iss", "aud", "exp", "iat", "sub", "sid", "jti"],
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
            int(claims["iat"])
            return _Signed(
                AccessClaims(UserId(UUID(claims["sub"])), SessionId(UUID(claims["sid"]))), int(claims["exp"])
            )
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
        # A fast hash is enough: 256 random bits cannot be guessed.
        return hashlib.sha256(_bytes(token)).digest()


def _bytes(token: str) -> bytes:
    """A cookie may hold any bytes; those that are not UTF-8 arrive as lone surrogates."""
    return token.encode(errors="surrogatepass")


class HmacNumberDigests(NumberDigests):
    def __init__(self, *, key: bytes) -> None:
        self._key = key

    def digest(self, number: MobileNumber, device: bytes = b"") -> str:
        subject = number.encode() + (b" " + device if device else b"")
        return urlsafe_b64encode(hmac.digest(self._key, subject, "sha256")[:16]).rstrip(b"=").decode()


class ZxcvbnCommonPasswords(CommonPasswords):
    """The most common passwords among those that are long enough to be accepted."""

    def __init__(self, *, most: int = 3_000) -> None:
        # Imported here: the lists take 12 MB, and workers do not need them.
        from zxcvbn.frequency_lists import FREQUENCY_LISTS

        ranked = FREQUENCY_LISTS["passwords"]
        self._common = frozenset([word for word in ranked if len(word) >= MIN_PASSWORD_CHARACTERS][:most])

    def contain(self, password: str) -> bool:
        return password.lower() in self._common
