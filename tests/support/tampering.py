"""Access tokens that were tampered with. None of them may authenticate anyone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

ANOTHER_SECRET = "an attacker's own key, long enough for HS256"
_JWK = {"kty": "oct", "alg": "HS256", "use": "sig"}
_FAR = 10**9  # seconds


def encoded(part: object) -> str:
    """A segment of a token: JSON, or text as it is."""
    text = part if isinstance(part, str) else json.dumps(part)
    return _base64(text.encode())


def signed(header: object, claims: object, secret: str, *, digest: str = "sha256") -> str:
    """Signed by hand, because no library would sign this."""
    content = f"{encoded(header)}.{encoded(claims)}"
    return f"{content}.{_base64(hmac.digest(secret.encode(), content.encode(), digest))}"


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header and the claims of a good token."""
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2])
    return header, claims


def is_header_value(token: str) -> bool:
    """Whether it can be sent in a header and arrives unchanged."""
    return token.isascii() and token.isprintable() and token == token.strip() and token != ""


def tampered(token: str, secret: str) -> Iterator[tuple[str, str]]:
    """(name, token) of all variants of `token`, which is valid and signed with `secret`."""
    header, claims = parts(token)
    yield from _broken(token)
    yield from _respelled(token)
    yield from _other_algorithms(token, header, claims, secret)
    yield from _other_keys(header, claims, secret)
    yield from _other_headers(header, claims, secret)
    yield from _other_claims(header, claims, secret)


def _broken(token: str) -> Iterator[tuple[str, str]]:
    head, body, signature = token.split(".")
    yield "empty", ""
    yield "a word", "garbage"
    yield "null", "null"
    yield "two dots", ".."
    yield "many dots", "." * 1000
    yield "not ascii", "ünï.cödé.🌻"
    yield "half a surrogate pair", "\ud83d.\ud83d.\ud83d"
    yield "a NUL", f"{head}.{body}\0.{signature}"
    yield "oversize", "a" * 100_000
    yield "oversize claims", f"{head}.{body}{'A' * 4_000}.{signature}"
    yield "no signature", f"{head}.{body}."
    yield "no signature and no dot", f"{head}.{body}"
    yield "no claims", f"{head}..{signature}"
    yield "no header", f".{body}.{signature}"
    yield "four parts", f"{token}.{signature}"
    yield "five parts, as if encrypted", f"{head}.{body}.{body}.{body}.{signature}"
    yield "truncated", token[:-5]
    yield "a signature turned round", f"{head}.{body}.{signature[::-1]}"
    yield "a signature of zeros", f"{head}.{body}.{'A' * 43}"
    yield "two signatures", f"{head}.{body}.{signature}{signature}"
    yield "header and claims exchanged", f"{body}.{head}.{signature}"
    yield "with the scheme", f"Bearer {token}"
    yield "with a comma", f"{token},{token}"
    yield "in quotes", f'"{token}"'
    yield "as JSON serialisation", json.dumps({"protected": head, "payload": body, "signature": signature})
    yield "deep JSON", f"{encoded('[' * 1_200)}.{body}.{signature}"


def _respelled(token: str) -> Iterator[tuple[str, str]]:
    """Spellings that a lenient base64 decoder accepts as the same token."""
    head, body, signature = token.split(".")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    yield "other unused bits", token[:-1] + last[last.index(token[-1]) + 1]
    yield "padding", f"{token}="
    yield "padding everywhere", f"{head}=.{body}==.{signature}="
    yield "a character outside base64", f"{head}.{body}.{signature[:9]}!{signature[9:]}"
    yield "a line break within", f"{head}.{body}.{signature[:9]}\n{signature[9:]}"
    yield "a line break behind", f"{token}\n"
    yield "blanks within", f"{head} . {body} . {signature}"
    yield "percent-encoded", token.replace(".", "%2E")
    yield "full-width digits", token.translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)}) + "０"
    yield "the header re-encoded", f"{encoded(json.dumps(parts(token)[0], indent=1))}.{body}.{signature}"
    yield "the claims re-encoded", f"{head}.{encoded(json.dumps(parts(token)[1], indent=1))}.{signature}"
    yield "lower case", token.lower()
    yield "the other alphabet", f"{head}.{body}.{'+/' + signature[2:]}"


def _other_algorithms(
    token: str, header: dict[str, Any], claims: dict[str, Any], secret: str
) -> Iterator[tuple[str, str]]:
    _, body, signature = token.split(".")
    for none in ("none", "None", "NONE", "nOnE", ""):
        unsigned = f"{encoded({**header, 'alg': none})}.{body}."
        yield f"alg {none!r}, not signed", unsigned
        yield f"alg {none!r}, with a signature", unsigned + signature
    yield "alg none, signed", signed({**header, "alg": "none"}, claims, secret)
    none_last = encoded('{"alg":"HS256",' + json.dumps({**header, "alg": "none"})[1:])
    none_first = encoded('{"alg":"none",' + json.dumps(header)[1:])
    yield "alg none after HS256", f"{none_last}.{body}."
    yield "alg none before HS256", f"{none_first}.{body}.{signature}"
    for bits in (384, 512):
        yield f"HS{bits}", signed({**header, "alg": f"HS{bits}"}, claims, secret, digest=f"sha{bits}")
    for other in ("RS256", "ES256", "PS256", "EdDSA", "hs256", "HS256 ", "dir", "A128KW"):
        yield f"alg {other}, signed with the secret", signed({**header, "alg": other}, claims, secret)
    for odd in (None, 1, True, ["HS256"], {"HS256": 1}):
        yield f"alg {odd}", signed({**header, "alg": odd}, claims, secret)
    yield "alg missing", signed({name: value for name, value in header.items() if name != "alg"}, claims, secret)


def _other_keys(header: dict[str, Any], claims: dict[str, Any], secret: str) -> Iterator[tuple[str, str]]:
    yield "another key", signed(header, claims, ANOTHER_SECRET)
    yield "no key", signed(header, claims, "")
    yield "the key reversed", signed(header, claims, secret[::-1])
    yield "the key's name as the key", signed(header, claims, header["kid"])
    yield "the key's hash as the key", signed(header, claims, hashlib.sha256(secret.encode()).hexdigest())
    known = {
        "unknown": "000000000000",
        "empty": "",
        "with a blank": f"{header['kid']} ",
        "a path": "../../../../dev/null",
        "a file": "file:///dev/null",
        "a URL": "https://attacker.example/key",
        "SQL": "' UNION SELECT 'key' --",
        "a command": "$(cat /etc/passwd)",
        "a template": "{{secret}}",
        "a NUL": f"{header['kid']}\0",
        "long": "0" * 1_000,
    }
    for name, kid in known.items():
        yield f"kid {name}, signed with an empty key", signed({**header, "kid": kid}, claims, "")
        yield f"kid {name}, rightly signed", signed({**header, "kid": kid}, claims, secret)
    for odd in (None, 0, True, [header["kid"]], {"kid": header["kid"]}):
        yield f"kid {odd}", signed({**header, "kid": odd}, claims, secret)
    yield "kid missing", signed({name: value for name, value in header.items() if name != "kid"}, claims, secret)
    yield "kid unknown beside the known", signed('{"kid":"x",' + json.dumps(header)[1:], claims, ANOTHER_SECRET)
    embedded = {
        "jwk": {**_JWK, "k": _base64(ANOTHER_SECRET.encode())},
        "jku": "https://attacker.example/jwks.json",
        "x5u": "https://attacker.example/cert.pem",
        "x5c": [_base64(b"a certificate")],
        "x5t": _base64(b"a thumbprint"),
        "key": ANOTHER_SECRET,
    }
    for name, value in embedded.items():
        yield f"embedded {name}", signed({**header, name: value}, claims, ANOTHER_SECRET)
        without_kid = {"alg": header["alg"], "typ": header["typ"], name: value}
        yield f"embedded {name} in place of kid", signed(without_kid, claims, ANOTHER_SECRET)
        yield f"embedded {name}, rightly signed", signed({**header, name: value}, claims, secret)


def _other_headers(header: dict[str, Any], claims: dict[str, Any], secret: str) -> Iterator[tuple[str, str]]:
    """All correctly signed: another kind of token signed with our key may not pass for an access token."""
    for typ in ("JWT", "jwt", "at+JWT ", "rt+jwt", "", None, ["at+jwt"]):
        yield f"typ {typ}", signed({**header, "typ": typ}, claims, secret)
    yield "typ missing", signed({name: value for name, value in header.items() if name != "typ"}, claims, secret)
    yield "crit", signed({**header, "crit": ["b64"], "b64": False}, claims, secret)
    yield "crit that names alg", signed({**header, "crit": ["alg"]}, claims, secret)
    yield "cty", signed({**header, "cty": "JWT"}, claims, secret)
    yield "zip", signed({**header, "zip": "DEF"}, claims, secret)
    yield "a header that is a list", signed([header], claims, secret)
    yield "a header that is a number", signed(1, claims, secret)
    yield "a header that is not JSON", signed("{", claims, secret)
    yield "a header that is empty", signed({}, claims, secret)


def _other_claims(header: dict[str, Any], claims: dict[str, Any], secret: str) -> Iterator[tuple[str, str]]:
    """All correctly signed."""

    def but(**changes: object) -> str:
        return signed(header, {**claims, **changes}, secret)

    issued = int(claims["iat"])
    for name in ("iss", "aud", "sub", "sid", "jti", "iat", "exp"):
        yield f"{name} missing", signed(header, {key: claims[key] for key in claims if key != name}, secret)
        yield f"{name} null", but(**{name: None})
    yield "expired", but(iat=issued - 7_200, exp=issued - 3_600)
    yield "expired long ago", but(exp=0)
    yield "expired before all time", but(exp=-_FAR)
    yield "not valid yet", but(nbf=issued + _FAR)
    yield "not valid before a word", but(nbf="never")
    words: list[object] = ["never", [], {}, True]
    for odd in words:
        yield f"exp {odd!r}", but(exp=odd)
    for number in ("1e999", "-1e999", "NaN", "Infinity"):
        yield f"exp {number}", signed(header, json.dumps({**claims, "exp": "@"}).replace('"@"', number), secret)
    yield "iat a word", but(iat="now")
    for issuer in ("somebody", "", claims["iss"] + "/", claims["iss"].upper(), [claims["iss"]], 1):
        yield f"iss {issuer!r}", but(iss=issuer)
    for audience in ("somebody", "", [], ["somebody"], claims["aud"] + " ", {"a": 1}, 1):
        yield f"aud {audience!r}", but(aud=audience)
    for subject in ("ann", "", 1, [claims["sub"]], {"id": claims["sub"]}, f"{claims['sub']}'--", "0" * 33):
        yield f"sub {subject!r}"[:40], but(sub=subject)
    for session in ("mine", "", 1, [claims["sid"]], True, "../sessions"):
        yield f"sid {session!r}", but(sid=session)
    yield "a session that is none", but(sid=str(UUID(int=0)))
    yield "a user that is none", but(sub=str(UUID(int=0)))
    yield "user and session exchanged", but(sub=claims["sid"], sid=claims["sub"])
    yield "claims that are a list", signed(header, [claims], secret)
    yield "claims that are a word", signed(header, '"claims"', secret)
    yield "claims that are not JSON", signed(header, "{", secret)
    yield "claims that are empty", signed(header, {}, secret)


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
