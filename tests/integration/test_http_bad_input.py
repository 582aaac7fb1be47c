"""Whatever is sent, the answer is a problem in our words with the right status, and the service goes on."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest

from tests.support.http_client import Person, new_mobile
from tests.support.patience import HANG

LIMIT = 65_536
#: The id of nothing; the same each time, because it is in the names of tests.
NOTHING = "0191e7c1-4b2a-7c3d-8e4f-5a6b7c8d9e0f"
ROOM = f"/chatroom/{NOTHING}"
#: What a library, a stack trace or an HTML error page would give away.
FOREIGN = re.compile(
    r"<html|<!doctype|traceback|pydantic|sanic|tortoise|asyncpg|jiter|input should|line \d", re.IGNORECASE
)


@pytest.fixture(autouse=True)
async def _goes_on(http: httpx.AsyncClient) -> AsyncIterator[None]:
    yield
    assert (await http.get("/health")).json() == {"status": "ok"}


def assert_problem(
    response: httpx.Response, status: int, code: str, pointers: list[str] | None = None, *, instance: str | None = None
) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert not FOREIGN.search(response.text), response.text
    problem = response.json()
    assert problem.keys() >= {"type", "title", "status", "detail", "instance", "code", "requestId"}
    assert (problem["status"], problem["code"]) == (status, code), response.text
    assert problem["requestId"] == response.headers["x-request-id"]
    assert problem["instance"] == (
        response.request.url.raw_path.decode().split("?")[0] if instance is None else instance
    )
    assert problem["title"]
    assert problem["detail"].endswith(".")
    assert [error["pointer"] for error in problem.get("errors", ())] == (pointers or [])
    assert all(error["detail"] for error in problem.get("errors", ()))
    assert ("www-authenticate" in response.headers) == (status == 401)
    assert ("allow" in response.headers) == (status == 405)


# --- bodies ---

NO_OBJECT: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \r\n",
    "an array": b'[{"mobile": "9876543210", "name": "Asha"}]',
    "a string": b'"mobile"',
    "a number": b"1",
    "null": b"null",
    "a form": b"mobile=9876543210&name=Asha",
    "cut off": b'{"mobile": "9876543210", "name": "As',
    "two objects": b'{"mobile": "9876543210"} {"name": "Asha"}',
    "single quotes": b"{'mobile': '9876543210'}",
    "UTF-16": '{"mobile": "9876543210", "name": "Asha"}'.encode("utf-16"),
    "Latin-1": '{"mobile": "9876543210", "name": "Ashá"}'.encode("latin-1"),
    "two byte order marks": b'\xef\xbb\xbf\xef\xbb\xbf{"mobile": "9876543210", "name": "Asha"}',
    "bad UTF-8": b'{"mobile": "\xc3\x28", "name": "\xf0\x28\x8c\x28"}',
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xabV*.)",
    "arrays 60,000 deep": b'{"mobile": ' + b"[" * 60_000,
    "closed arrays 30,000 deep": b'{"mobile": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "objects 10,000 deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "a number of 60,000 digits": b'{"mobile": "9876543210", "name": ' + b"9" * 60_000 + b"}",
}


@pytest.mark.parametrize("body", NO_OBJECT.values(), ids=NO_OBJECT.keys())
async def test_a_body_that_is_not_a_json_object(http: httpx.AsyncClient, body: bytes) -> None:
    response = await http.post("/auth/signup", content=body, headers={"Content-Type": "application/json"})
    assert_problem(response, 400, "malformed_body", [""])


NAMES: dict[str, Any] = {
    "null": None,
    "a number": 7,
    "true": True,
    "a list": ["Asha"],
    "an object": {"first": "Asha"},
    "empty": "",
    "blank": " \t\n　",
    "too long": "a" * 101,
    "NUL": "As\0ha",
    "a lone surrogate": "\ud800",
    "surrogates the wrong way round": "Asha \udc00\ud800",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
async def test_an_invalid_name(http: httpx.AsyncClient, stranger: Person, name: Any) -> None:
    # Written with escapes, as a surrogate can only be sent.
    content, json_type = json.dumps({"mobile": new_mobile(), "name": name}), {"Content-Type": "application/json"}
    assert_problem(
        await http.post("/auth/signup", content=content, headers=json_type), 422, "validation_failed", ["/name"]
    )
    token = {"Authorization": f"Bearer {stranger.token}"}
    response = await http.post("/chatroom", content=json.dumps({"name": name}), headers={**json_type, **token})
    assert_problem(response, 422, "validation_failed", ["/name"])
    response = await http.patch(ROOM, content=json.dumps({"name": name}), headers={**json_type, **token})
    assert_problem(response, 422, "validation_failed", ["/name"])


@pytest.mark.parametrize(
    "mobile",
    [
        "12345", "not a number", "+", "--", "+999 123 456 789", "98765432101234567", "00000000000", "0x7f",
        "+1 800 555 0199", "011 2345 6789", "911", "+91987654321", "'; DROP TABLE users; --", "９", "+9१",
    ],
)  # fmt: skip
async def test_a_number_that_is_not_a_mobile_number(http: httpx.AsyncClient, mobile: str) -> None:
    for path, body in (
        ("/auth/signup", {"name": "Asha"}),
        ("/auth/send-otp", {}),
        ("/auth/verify-otp", {"otp": "123456"}),
        ("/auth/login", {"password": "a password"}),
        ("/auth/forgot-password", {}),
        ("/auth/reset-password", {"otp": "123456", "newPassword": "a password"}),
    ):
        assert_problem(await http.post(path, json={"mobile": mobile, **body}), 422, "mobile_invalid", ["/mobile"])


FIELDS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "nothing": ("/auth/signup", {}, ["/mobile", "/name"]),
    "other words": ("/auth/signup", {"phone": "9876543210", "Name": "Asha"}, ["/mobile", "/name"]),
    "a mobile as a number": ("/auth/send-otp", {"mobile": 9876543210}, ["/mobile"]),
    "a mobile too long": ("/auth/send-otp", {"mobile": "9" * 65}, ["/mobile"]),
    "a mobile with NUL": ("/auth/send-otp", {"mobile": "987654\0003210"}, ["/mobile"]),
    "a code as a number": ("/auth/verify-otp", {"mobile": "9876543210", "otp": 123456}, ["/otp"]),
    "a code too long": ("/auth/verify-otp", {"mobile": "9876543210", "otp": "1" * 65}, ["/otp"]),
    "a code of five digits": ("/auth/verify-otp", {"mobile": "9876543210", "otp": "12345"}, ["/otp"]),
    "a code of seven digits": (
        "/auth/reset-password",
        {"mobile": "9876543210", "otp": "1234567", "newPassword": "seven blue herons"},
        ["/otp"],
    ),
    "a code with a letter": ("/auth/change-password", {"otp": "12345a", "newPassword": "seven blue herons"}, ["/otp"]),
    "a code that shows nothing": ("/auth/verify-otp", {"mobile": "9876543210", "otp": "\u200b"}, ["/otp"]),
    "a name that shows nothing": ("/auth/signup", {"mobile": "9876543210", "name": "\u200b"}, ["/name"]),
    "a room's name that shows nothing": ("/chatroom", {"name": "\u2060\u3164 "}, ["/name"]),
    "no code": ("/auth/verify-otp", {"mobile": "9876543210"}, ["/otp"]),
    "no password": ("/auth/login", {"mobile": "9876543210"}, ["/password"]),
    "a password too long": ("/auth/login", {"mobile": "9876543210", "password": "p" * 513}, ["/password"]),
    "a surrogate password": ("/auth/login", {"mobile": "9876543210", "password": "\ud800"}, ["/password"]),
    "a new password too short": (
        "/auth/reset-password",
        {"mobile": "9876543210", "otp": "123456", "newPassword": "seven77"},
        ["/newPassword"],
    ),
    "three at once": ("/auth/reset-password", {"mobile": " ", "otp": None}, ["/mobile", "/otp", "/newPassword"]),
    "no proof": ("/auth/change-password", {"newPassword": "long enough"}, [""]),
    "a new password of blanks": ("/auth/change-password", {"otp": "123456", "newPassword": " " * 9}, ["/newPassword"]),
    "instructions as a number": ("/chatroom", {"name": "a", "instructions": 7}, ["/instructions"]),
    "instructions too long": ("/chatroom", {"name": "a", "instructions": "a" * 4_001}, ["/instructions"]),
    "blank instructions too long": ("/chatroom", {"name": "a", "instructions": " " * 4_001}, ["/instructions"]),
    "instructions with NUL": ("/chatroom", {"name": "a", "instructions": "a\0b"}, ["/instructions"]),
    "surrogate instructions": ("/chatroom", {"name": "a", "instructions": "\ud800"}, ["/instructions"]),
    "a title in words": ("/chatroom", {"name": "a", "autoTitle": "yes"}, ["/autoTitle"]),
    "a title as a number": ("/chatroom", {"name": "a", "autoTitle": 1}, ["/autoTitle"]),
    "a title of null": ("/chatroom", {"name": "a", "autoTitle": None}, ["/autoTitle"]),
    "no input": (f"{ROOM}/message", {}, ["/input"]),
    "blank input": (f"{ROOM}/message", {"input": " \n"}, ["/input"]),
    "input with NUL": (f"{ROOM}/message", {"input": "a\0b"}, ["/input"]),
    "a surrogate input": (f"{ROOM}/message", {"input": "a \udfff b"}, ["/input"]),
    "input too long": (f"{ROOM}/message", {"input": "a" * 8_001}, ["/input"]),
    "input as a list": (f"{ROOM}/message", {"input": ["a"]}, ["/input"]),
}


@pytest.mark.parametrize(("path", "body", "pointers"), FIELDS.values(), ids=FIELDS.keys())
async def test_invalid_fields(stranger: Person, path: str, body: dict[str, Any], pointers: list[str]) -> None:
    response = await stranger.ask("POST", path, content=json.dumps(body))
    assert_problem(response, 422, "validation_failed", pointers)


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, [""]),
        ({"autoTitle": True}, [""]),
        ({"name": "fits", "instructions": ["Rhyme."]}, ["/instructions"]),
        ({"name": "fits", "instructions": "a" * 4_001}, ["/instructions"]),
        ({"instructions": "a\0b"}, ["/instructions"]),
        ({"name": "", "instructions": "\0"}, ["/name", "/instructions"]),
    ],
)
async def test_an_invalid_change(stranger: Person, body: dict[str, Any], pointers: list[str]) -> None:
    response = await stranger.ask("PATCH", ROOM, content=json.dumps(body))
    assert_problem(response, 422, "validation_failed", pointers)


@pytest.mark.parametrize("verb", ["cancel", "regenerate", "continue"])
async def test_an_unneeded_body_is_ignored(stranger: Person, verb: str) -> None:
    path = f"{ROOM}/message/{NOTHING}/{verb}"
    for content in (b"", b"garbage", b"{}"):
        assert_problem(await stranger.ask("POST", path, content=content), 404, "message_not_found")


async def test_the_longest_allowed_text_is_accepted(person: Person) -> None:
    room = await person.room("🙂" * 100)
    changed = await person.ask("PATCH", f"/chatroom/{room}", {"instructions": "🙂" * 4_000})
    assert changed.json()["data"]["instructions"] == "🙂" * 4_000
    longest = "🙂" * 8_000
    message = await person.send(room, longest)
    assert (await person.message(room, message))["input"] == longest


async def test_a_body_needs_no_content_type(http: httpx.AsyncClient) -> None:
    body = json.dumps({"mobile": new_mobile(), "name": "Asha"}).encode()
    request = http.build_request("POST", "/auth/signup", content=body)
    assert "content-type" not in request.headers
    assert (await http.send(request)).status_code == 201


@pytest.mark.parametrize("size", [LIMIT + 1, LIMIT + 2, 100_000, 2_000_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit(http: httpx.AsyncClient, size: int, chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size, 50_000):
            yield b"[" * min(50_000, size - start)

    content = pieces() if chunked else b"[" * size
    assert_problem(await http.post("/auth/signup", content=content), 413, "body_too_large")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_at_the_limit(http: httpx.AsyncClient, chunked: bool) -> None:
    body = json.dumps({"mobile": new_mobile(), "name": "Asha"}).encode().ljust(LIMIT)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, LIMIT, 8_192):
            yield body[start : start + 8_192]

    response = await http.post("/auth/signup", content=pieces() if chunked else body)
    assert response.status_code == 201, response.text


# --- queries and paths ---


@pytest.mark.parametrize(
    "value", ["0", "-1", "101", "1e2", "1.5", "abc", "true", "%00", "%FF", "9" * 25, "9" * 6_000, "0x10", "%D9%A1"]
)
async def test_a_wrong_limit(stranger: Person, value: str) -> None:
    for path in ("/chatroom", ROOM, f"{ROOM}/message"):
        response = await stranger.ask("GET", f"{path}?limit={value}")
        assert_problem(response, 422, "validation_failed", ["?limit"])


@pytest.mark.parametrize("value", ["1", "abc", "%00", "null", f"{NOTHING}0", "' OR 1=1 --"])
async def test_a_wrong_cursor(stranger: Person, value: str) -> None:
    assert_problem(await stranger.ask("GET", f"/chatroom?cursor={value}"), 422, "validation_failed", ["?cursor"])
    assert_problem(await stranger.ask("GET", f"{ROOM}?before={value}"), 422, "validation_failed", ["?before"])


@pytest.mark.parametrize(
    "identifier",
    ["1", "abc", "%00", "%2e%2e%2f", "%ff%fe", "'", "null", "0" * 36, "0" * 5_000, f"{NOTHING}0", f"{{{NOTHING}}}"],
)
async def test_a_malformed_id_is_not_found(stranger: Person, identifier: str) -> None:
    assert_problem(await stranger.ask("GET", f"/chatroom/{identifier}"), 404, "chatroom_not_found")
    assert_problem(await stranger.ask("GET", f"/chatroom/{identifier}/message"), 404, "chatroom_not_found")
    body = {"input": "Hello"}
    assert_problem(await stranger.ask("POST", f"/chatroom/{identifier}/message", body), 404, "chatroom_not_found")
    assert_problem(await stranger.ask("PATCH", f"/chatroom/{identifier}", {"name": "a"}), 404, "chatroom_not_found")
    assert_problem(await stranger.ask("DELETE", f"/chatroom/{identifier}"), 404, "chatroom_not_found")
    message = f"{ROOM}/message/{identifier}"
    assert_problem(await stranger.ask("GET", message), 404, "message_not_found")
    assert_problem(await stranger.ask("POST", f"{message}/cancel"), 404, "message_not_found")
    assert_problem(await stranger.ask("POST", f"{message}/regenerate"), 404, "message_not_found")
    assert_problem(await stranger.ask("POST", f"{message}/continue"), 404, "message_not_found")


@pytest.mark.parametrize(
    "path",
    ["/nowhere", "/auth", "/auth/signup/more", "/%00", "/%ff", "/%61uth/signup", "//health", "/..%2fhealth",
     "/.env", "/chatroom/a/b/c/d", "/" + "a" * 8_000, "/user", "/<script>"],
)  # fmt: skip
async def test_an_unknown_path(http: httpx.AsyncClient, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        # httpx would fix the path
        request = httpx.Request(method, http.base_url.copy_with(raw_path=path.encode()))
        assert_problem(await http.send(request), 404, "route_not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/auth/signup", {"POST"}),
        ("HEAD", "/auth/signup", {"POST"}),
        ("OPTIONS", "/auth/signup", {"POST"}),
        ("TRACE", "/auth/login/", {"POST"}),
        ("BREW", "/auth/login", {"POST"}),
        ("POST", "/health", {"GET", "HEAD"}),
        ("DELETE", "/chatroom", {"GET", "HEAD", "POST"}),
        ("PUT", f"{ROOM}/message", {"GET", "HEAD", "POST"}),
        ("PUT", ROOM, {"GET", "HEAD", "PATCH", "DELETE"}),
        ("GET", f"{ROOM}/message/{NOTHING}/cancel", {"POST"}),
        ("DELETE", f"{ROOM}/message/{NOTHING}/regenerate", {"POST"}),
        ("POST", "/docs", {"GET", "HEAD"}),
        ("POST", "/", {"GET", "HEAD"}),
    ],
)
async def test_a_method_that_the_path_does_not_allow(
    http: httpx.AsyncClient, method: str, path: str, allowed: set[str]
) -> None:
    response = await http.request(method, path)
    assert set(response.headers["allow"].split(", ")) == allowed
    if method == "HEAD":
        assert response.status_code == 405
    else:
        assert_problem(response, 405, "method_not_allowed")


# --- tokens ---


def claims_of(person: Person) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(person.token, options={"verify_signature": False})
    return claims


def forged(person: Person, secret: str, **claims: Any) -> str:
    """Their token with other claims; None leaves one out."""
    wanted = {**claims_of(person), **claims}
    given = {name: value for name, value in wanted.items() if value is not None}
    return jwt.encode(given, secret, headers=jwt.get_unverified_header(person.token))


async def test_invalid_tokens(
    http: httpx.AsyncClient, stranger: Person, person: Person, api_environment: dict[str, str]
) -> None:
    secret = api_environment["ACCESS_TOKEN_SECRET"]
    header, payload, signature = stranger.token.split(".")
    now = int(time.time())
    invalid = {
        "no token at all": "abc",
        "dots": "..",
        "no signature": f"{header}.{payload}.",
        "a changed signature": f"{header}.{payload}.{signature[:-4]}AAAA",
        "another payload": f"{header}.{person.token.split('.')[1]}.{signature}",
        "alg none": jwt.encode(claims_of(stranger), "", algorithm="none"),
        "another algorithm": jwt.encode(claims_of(stranger), secret * 2, algorithm="HS512"),
        "another key": forged(stranger, "another key that is long enough for it"),
        "another key, expired": forged(stranger, "another key that is long enough for it", exp=now - 60),
        "another issuer": forged(stranger, secret, iss="somebody"),
        "another audience": forged(stranger, secret, aud="somebody"),
        "somebody else's session": forged(stranger, secret, sid=claims_of(person)["sid"]),
        "no such session": forged(stranger, secret, sid=str(uuid4())),
        "no session": forged(stranger, secret, sid=None),
        "no expiry": forged(stranger, secret, exp=None),
        "no UUID": forged(stranger, secret, sub="1"),
        "10,000 characters": "a." * 5_000,
    }  # fmt: skip
    assert forged(stranger, secret, jti="x") not in invalid.values()
    assert (await http.get("/user/me", headers={"Authorization": f"Bearer {forged(stranger, secret)}"})).is_success
    for name, token in invalid.items():
        response = await http.get("/user/me", headers={"Authorization": f"Bearer {token}"})
        assert response.status_code == 401, name
        assert_problem(response, 401, "token_invalid")
    expired = {"Authorization": f"Bearer {forged(stranger, secret, exp=now - 60)}"}
    assert_problem(await http.get("/user/me", headers=expired), 401, "token_expired")


@pytest.mark.parametrize(
    ("value", "code"),
    [(None, "token_missing"), ("", "token_invalid"), ("Bearer", "token_invalid"),
     ("Basic YTpi", "token_invalid"), ("{token}", "token_invalid"), ("Token {token}", "token_invalid"),
     ("Bearer {token} more", "token_invalid"), ("Bearer \xff\xfe", "token_invalid")],
)  # fmt: skip
async def test_a_malformed_authorization_header(
    http: httpx.AsyncClient, stranger: Person, value: str | None, code: str
) -> None:
    given = [] if value is None else [(b"Authorization", value.format(token=stranger.token).encode("latin-1"))]
    for method, path in (("GET", "/user/me"), ("POST", "/auth/change-password"), ("GET", "/chatroom"), ("GET", ROOM)):
        assert_problem(await http.request(method, path, headers=given), 401, code)


async def test_two_authorization_headers_are_refused(http: httpx.AsyncClient, stranger: Person) -> None:
    twice = [("Authorization", f"Bearer {stranger.token}")] * 2
    assert_problem(await http.get("/user/me", headers=twice), 401, "token_invalid")


@pytest.mark.parametrize(
    "given", [b"", b"a b", b"a" * 65, b'"><script>', "ü".encode(), b"\xff", b"a\tb", b"%0d%0aX: y"]
)
async def test_a_strange_request_id_is_replaced(http: httpx.AsyncClient, given: bytes) -> None:
    response = await http.get("/nowhere", headers=[(b"X-Request-ID", given)])
    assert_problem(response, 404, "route_not_found")
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])


# --- below what a client library would send ---


async def raw(http: httpx.AsyncClient, *pieces: bytes) -> httpx.Response:
    """The first answer to these bytes."""
    reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
    try:
        for piece in pieces:
            writer.write(piece)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HANG)
        status, *lines = head.decode().splitlines()
        headers = dict(line.split(": ", 1) for line in lines if line)
        body = await asyncio.wait_for(reader.readexactly(int(headers["content-length"])), HANG)
    finally:
        writer.close()
    return httpx.Response(int(status.split()[1]), headers=headers, content=body)


_SIGN_UP = b"POST /auth/signup HTTP/1.1\r\nHost: a\r\n"
RAW: dict[str, tuple[bytes, int, str, str]] = {
    "headers over 16 KiB": (b"GET / HTTP/1.1\r\nX-Big: " + b"a" * 17_000 + b"\r\n\r\n", 431, "headers_too_large", "*"),
    "headers without end": (b"GET /health HTTP/1.1\r\nX-Big: " + b"a" * 20_000, 431, "headers_too_large", "*"),
    "a long path": (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431, "headers_too_large", "*"),
    "no HTTP": (b"hello there\r\n\r\n", 400, "malformed_request", "*"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "malformed_request", "*"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "malformed_request", "*"),
    "a header without a colon": (b"GET /health HTTP/1.1\r\nHost\r\n\r\n", 400, "malformed_request", "/health"),
    "a non-ASCII path": ("GET /ü HTTP/1.1\r\nHost: a\r\n\r\n".encode(), 400, "malformed_request", "/\\xc3\\xbc"),
    "two lengths": (
        _SIGN_UP + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        400, "malformed_request", "/auth/signup",
    ),
    "length and chunks": (
        _SIGN_UP + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        400, "malformed_request", "/auth/signup",
    ),
    "a length in words": (
        _SIGN_UP + b"Content-Length: two\r\n\r\n{}", 400, "malformed_request", "/auth/signup",
    ),
    "a negative length": (
        _SIGN_UP + b"Content-Length: -2\r\n\r\n{}", 400, "malformed_request", "/auth/signup",
    ),
    "a huge length": (
        _SIGN_UP + b"Content-Length: 99999999999999999999\r\n\r\n{}",
        413, "body_too_large", "/auth/signup",
    ),
    "a huge chunk": (
        _SIGN_UP + b"Transfer-Encoding: chunked\r\n\r\nffffffffff\r\n{}",
        413, "body_too_large", "/auth/signup",
    ),
    "chunks that are none": (
        _SIGN_UP + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        400, "malformed_request", "/auth/signup",
    ),
    "an expectation": (
        _SIGN_UP + b"Expect: a miracle\r\nContent-Length: 2\r\n\r\n{}",
        417, "expectation_failed", "/auth/signup",
    ),
    "no body": (b"POST /auth/signup HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_body", "/auth/signup"),
    "no host": (b"GET /nowhere HTTP/1.1\r\n\r\n", 400, "malformed_request", "/nowhere"),
    "a whole address": (
        b"GET http://elsewhere/nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 404, "route_not_found", "/nowhere",
    ),
    "HTTP/1.0": (b"GET /nowhere HTTP/1.0\r\n\r\n", 404, "route_not_found", "/nowhere"),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "status", "code", "instance"), RAW.values(), ids=RAW.keys())
async def test_malformed_http(http: httpx.AsyncClient, sent: bytes, status: int, code: str, instance: str) -> None:
    response = await raw(http, sent)
    assert_problem(response, status, code, [""] if code == "malformed_body" else None, instance=instance)


async def test_a_request_that_does_not_arrive_in_time(second_http: httpx.AsyncClient) -> None:
    response = await raw(second_http, b"GET /health HTTP/1.1\r\nHost: he")
    assert_problem(response, 408, "request_timeout", instance="*")
    response = await raw(second_http, _SIGN_UP + b"Content-Length: 20\r\n\r\n{")
    assert_problem(response, 408, "request_timeout", instance="/auth/signup")


async def test_a_client_that_disconnects_does_no_harm(http: httpx.AsyncClient) -> None:
    for sent in (b"", b"GET", _SIGN_UP + b"Content-Length: 20\r\n\r\n{"):
        _, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
        writer.write(sent)
        writer.close()
        await writer.wait_closed()
