"""What every answer carries: security headers, and CORS for the origins that the settings name and no other."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.support.http_client import Person, http_client
from tests.support.patience import HANG
from tests.support.processes import api_process

ORIGIN, OTHER = "https://app.example.com", "https://app.example.com.evil.example"
SENT = {"authorization", "content-type", "idempotency-key", "last-event-id", "prefer", "x-request-id"}
SEEN = {
    "x-request-id",
    "location",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "idempotency-replayed",
    "preference-applied",
}


@pytest.fixture(scope="module")
async def with_cors(api_environment: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    settings = {"CORS_ORIGINS": f"{ORIGIN}, http://localhost:5173"}
    with api_process({**api_environment, **settings}) as (url, _):
        async with http_client(url) as client:
            yield client


def words(header: str) -> set[str]:
    return {word.strip().lower() for word in header.split(",")}


ANSWERS = [
    ("GET", "/health", 200),
    ("GET", "/nowhere", 404),
    ("GET", "/user/me", 401),
    ("PUT", "/user/me", 405),
    ("POST", "/auth/signup", 400),
    ("GET", "/openapi.json", 200),
    ("GET", "/metrics", 200),
    ("GET", "/", 200),
    ("GET", "/docs", 200),
    ("HEAD", "/health", 200),
]


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
async def test_security_headers_are_on_every_answer(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    response = await http.request(method, path)
    assert response.status_code == status
    headers = response.headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-request-id"]
    assert "server" not in headers
    assert "strict-transport-security" not in headers
    assert not [name for name in headers if name.startswith("access-control")]


async def test_production_requires_https(api_environment: dict[str, str]) -> None:
    settings = {"APP_ENV": "production", "RATE_LIMITS": "on", "OTP_IN_RESPONSE": "yes-this-is-a-demo"}
    with api_process({**api_environment, **settings}) as (url, _):
        async with http_client(url) as client:
            for path in ("/health", "/nowhere"):
                assert (await client.get(path)).headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
async def test_a_known_origin_may_read_every_answer(
    with_cors: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    response = await with_cors.request(method, path, headers={"Origin": ORIGIN})
    assert response.status_code == status
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert words(response.headers["access-control-expose-headers"]) == SEEN
    assert "access-control-allow-credentials" not in response.headers
    assert "origin" in words(response.headers["vary"])


@pytest.mark.parametrize(
    "origin", [None, OTHER, "null", "*", "http://app.example.com", f"{ORIGIN}:8443", f"{ORIGIN}/", ORIGIN.upper()]
)
async def test_no_other_origin_may(with_cors: httpx.AsyncClient, origin: str | None) -> None:
    given = {} if origin is None else {"Origin": origin}
    asked = {"Access-Control-Request-Method": "GET"}
    for response in (
        await with_cors.get("/user/me", headers=given),
        await with_cors.options("/user/me", headers={**given, **asked}),
    ):
        assert not [name for name in response.headers if name.startswith("access-control")]
        assert "origin" in words(response.headers["vary"])
    assert response.status_code == 405


async def test_a_preflight_request_gets_the_allowed_headers(with_cors: httpx.AsyncClient) -> None:
    given = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-a"}
    response = await with_cors.options("/chatroom", headers=given)
    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert words(response.headers["access-control-allow-methods"]) == {"get", "head", "post"}
    assert words(response.headers["access-control-allow-headers"]) == SENT
    assert response.headers["access-control-max-age"] == "600"
    assert "access-control-allow-credentials" not in response.headers
    assert (await with_cors.options("/nowhere", headers=given)).status_code == 404
    assert (await with_cors.options("/chatroom", headers={"Origin": ORIGIN})).status_code == 405


async def test_streams_may_be_read_too(with_cors: httpx.AsyncClient, person: Person) -> None:
    message = await person.send(room := await person.room(), "Hello")
    path = f"/chatroom/{room}/message/{message}/stream"
    headers = {"Authorization": f"Bearer {person.token}", "Origin": ORIGIN}
    async with (
        httpx.AsyncClient(base_url=with_cors.base_url, timeout=HANG) as client,
        client.stream("GET", path, headers=headers) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.headers["content-security-policy"]
