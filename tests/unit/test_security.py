"""Access tokens that have been tampered with, and the product's own parameters for hashes."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest

from adapters.memory.runtime import MemoryClock
from adapters.security import ALGORITHM, ISSUER, JwtAccessTokens
from domain.accounts import Session
from domain.errors import TokenExpired, TokenInvalid
from domain.ids import SessionId, UserId
from tests.unit.conftest import World

SECRET = "0123456789abcdef0123456789abcdef"
USER, SESSION = UserId(UUID(int=1)), SessionId(UUID(int=2))
CLOCK = MemoryClock()
NOW = int(CLOCK.now().timestamp())
CLAIMS: dict[str, Any] = {
    "iss": ISSUER, "aud": ISSUER, "sub": str(USER), "sid": str(SESSION), "jti": "x", "iat": NOW, "exp": NOW + 3600,
}  # fmt: skip


def tokens(clock: MemoryClock = CLOCK) -> JwtAccessTokens:
    return JwtAccessTokens(secrets=[SECRET], lifetime_seconds=3600, clock=clock)


def issued(clock: MemoryClock = CLOCK) -> str:
    return tokens(clock).issue(Session(id=SESSION, user_id=USER, created_at=clock.now())).token


def encoded(part: object) -> str:
    text = part if isinstance(part, str) else json.dumps(part)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def signed(header: object, claims: object = CLAIMS, *, digest: str = "sha256", secret: str = SECRET) -> str:
    """Signed by hand: what no library would sign."""
    content = f"{encoded(header)}.{encoded(claims)}"
    signature = hmac.digest(secret.encode(), content.encode(), digest)
    return f"{content}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def but(**claims: object) -> str:
    """Rightly signed, with other claims; None leaves one out."""
    changed = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    return signed({"alg": ALGORITHM, "typ": "JWT"}, changed)


HEADER, BODY, SIGNATURE = issued().split(".")
JWK = {"kty": "oct", "k": encoded("an attacker's own key, long enough for HS256")}

TAMPERED = {
    "empty": "",
    "garbage": "garbage",
    "dots": "..",
    "many dots": "." * 1000,
    "not ascii": "ünï.cödé.🌻",
    "half a surrogate pair": "\ud83d.\ud83d.\ud83d",
    "nul": f"{HEADER}.{BODY}\0.{SIGNATURE}",
    "huge": "a" * 100_000,
    "no signature": f"{HEADER}.{BODY}.",
    "two parts": f"{HEADER}.{BODY}",
    "four parts": f"{HEADER}.{BODY}.{SIGNATURE}.{SIGNATURE}",
    "truncated": issued()[:-5],
    "other signature": f"{HEADER}.{BODY}.{SIGNATURE[::-1]}",
    "other body": f"{HEADER}.{encoded({**CLAIMS, 'sub': str(UUID(int=9))})}.{SIGNATURE}",
    "with the scheme": f"Bearer {issued()}",
    "wrong key": jwt.encode(CLAIMS, SECRET[::-1], algorithm=ALGORITHM),
    "alg none": f"{encoded({'alg': 'none', 'typ': 'JWT'})}.{encoded(CLAIMS)}.",
    "alg None, signed": signed({"alg": "None", "typ": "JWT"}),
    "alg missing": signed({"typ": "JWT"}),
    "alg null": signed({"alg": None}),
    "alg lower case": signed({"alg": "hs256"}),
    "HS384": signed({"alg": "HS384"}, digest="sha384"),
    "HS512": signed({"alg": "HS512"}, digest="sha512"),
    "RS256 signed with the secret": signed({"alg": "RS256"}),
    "embedded jwk": signed({"alg": ALGORITHM, "jwk": JWK}, secret="an attacker's own key, long enough for HS256"),
    "kid of a file": signed({"alg": ALGORITHM, "kid": "../../dev/null"}, secret=""),
    "crit": signed({"alg": ALGORITHM, "crit": ["b64"], "b64": False}),
    "header is a list": signed(["HS256"]),
    "header is no JSON": signed("{"),
    "claims are a list": signed({"alg": ALGORITHM}, [CLAIMS]),
    "claims are no JSON": signed({"alg": ALGORITHM}, "{"),
    "other issuer": but(iss="somebody"),
    "other audience": but(aud="somebody"),
    "no issuer": but(iss=None),
    "no audience": but(aud=None),
    "no subject": but(sub=None),
    "no session": but(sid=None),
    "no expiry": but(exp=None),
    "no issue time": but(iat=None),
    "no id": but(jti=None),
    "subject is no id": but(sub="ann"),
    "subject is a number": but(sub=1),
    "session is no id": but(sid="mine"),
    "session is a list": but(sid=[str(SESSION)]),
    "expiry is a word": but(exp="never"),
    "expiry is endless": signed({"alg": ALGORITHM}, json.dumps(CLAIMS).replace(str(NOW + 3600), "1e999")),
    "issued in the future": but(iat=NOW + 10**9),
    "not valid yet": but(nbf=NOW + 10**9),
}


def test_a_token_speaks_for_its_session() -> None:
    assert tokens().read(issued()) == (USER, SESSION)
    assert tokens().read(but()) == (USER, SESSION)


@pytest.mark.parametrize("token", TAMPERED.values(), ids=TAMPERED.keys())
def test_a_tampered_token_speaks_for_nobody(token: str) -> None:
    reader = tokens()
    for _ in range(2):
        with pytest.raises(TokenInvalid):
            reader.read(token)


def test_every_changed_character_of_the_signature_counts() -> None:
    token, reader = issued(), tokens()
    start = token.rindex(".") + 1
    for position in range(start, len(token) - 1):  # the last one carries two bits that mean nothing
        other = "A" if token[position] != "A" else "B"
        with pytest.raises(TokenInvalid):
            reader.read(token[:position] + other + token[position + 1 :])


def test_an_expired_token_is_told_apart_also_when_it_was_seen_before() -> None:
    clock = MemoryClock()
    token, reader = issued(clock), tokens(clock)
    reader.read(token)
    clock.move(timedelta(seconds=3605))
    assert reader.read(token) == (USER, SESSION), "five seconds of leeway"
    clock.move(timedelta(seconds=1))
    for anybody in (reader, tokens(clock)):
        with pytest.raises(TokenExpired):
            anybody.read(token)


def test_two_tokens_of_a_session_differ() -> None:
    assert issued() != issued()


async def test_passwords_are_hashed_as_asvs_asks() -> None:
    world = World()
    world.container.password_hasher.reset_override()
    hasher = world.container.password_hasher()
    hashed = await hasher.hash("correct horse")
    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=1$")
    assert await hasher.matches("correct horse", hashed)
    assert not await hasher.matches("wrong horse", hashed)
