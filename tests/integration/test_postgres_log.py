"""Postgres writes what violates a constraint into its log, values included: no ordinary request may violate one.

The embedded server is set to log tersely. An operator's may not be, so these tests use the default verbosity.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from adapters.postgres.migrate import migrate
from local.postgres import EmbeddedPostgres
from tests.support.database import execute
from tests.support.http_client import Person, http_client, log_in, new_mobile
from tests.support.processes import api_process

PROMPT = "what-nobody-but-the-model-may-read"
NAME = "a-name-that-is-nobodys-business"


@pytest.fixture(scope="module")
def postgres(data_dir: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(data_dir / "postgres-that-talks")
    with server as url:
        for setting in ("log_error_verbosity = 'default'", "log_min_error_statement = 'error'"):
            asyncio.run(execute(url, f"ALTER DATABASE gemini SET {setting}"))
        yield server


async def twice(person: Person, path: str, body: dict[str, object], key: str) -> None:
    """At once and one after the other, with a key and without."""
    headers = {"Idempotency-Key": key}
    await asyncio.gather(*(person.ask("POST", path, body, headers=headers) for _ in range(4)))
    for kept in (headers, {}):
        await person.ask("POST", path, body, headers=kept)


async def test_no_request_puts_what_people_wrote_into_it(
    postgres: EmbeddedPostgres, redis_url: str, tmp_path: Path
) -> None:
    await migrate(postgres.url)
    environment = {
        "DATABASE_URL": postgres.url,
        "REDIS_URL": redis_url,
        "REDIS_NAMESPACE": f"test-{secrets.token_hex(6)}",
        "ACCESS_TOKEN_SECRET": secrets.token_hex(32),
        "RATE_LIMITS": "off",
    }
    mobile = new_mobile()
    with api_process(environment) as (url, _):
        async with http_client(url) as http:
            body = {"mobile": mobile, "name": NAME}
            replies = await asyncio.gather(*(http.post("/auth/signup", json=body) for _ in range(10)))
            assert sorted(reply.status_code for reply in replies) == [201, *[409] * 9]
            user_id = next(reply.json()["user"]["id"] for reply in replies if reply.status_code == 201)
            person = await log_in(http, mobile, user_id)
            await twice(person, "/auth/signup", dict(body), "again")
            for _ in range(3):
                await person.ask("POST", "/auth/verify-otp", {"mobile": mobile, "otp": "000000"})
                await person.ask("POST", "/auth/login", {"mobile": mobile, "password": "not the password"})
            await twice(person, "/chatroom", {"name": NAME, "instructions": PROMPT}, "room")
            room = await person.room()
            await twice(person, f"/chatroom/{room}/message", {"input": PROMPT}, "message")
            await asyncio.gather(
                *(person.ask("POST", f"/chatroom/{room}/message", {"input": PROMPT}) for _ in range(3)),
                person.ask("DELETE", f"/chatroom/{room}"),
                *(person.ask("PATCH", f"/chatroom/{room}", {"name": NAME}) for _ in range(3)),
            )
            await asyncio.gather(
                *(person.ask("POST", "/chatroom", {"name": NAME}) for _ in range(5)),
                person.delete_account(),
                *(person.ask("PATCH", "/user/me", {"name": NAME}) for _ in range(5)),
                *(http.post("/auth/signup", json=body) for _ in range(5)),
            )
    written = postgres.log.read_text()
    assert not [secret for secret in (mobile, PROMPT, NAME) if secret in written]
    assert "duplicate key value" not in written


async def test_a_violation_would_be_seen(postgres: EmbeddedPostgres) -> None:
    """Else the other test could not fail."""
    await execute(postgres.url, "CREATE TABLE numbers (mobile text PRIMARY KEY)")
    with pytest.raises(asyncpg.UniqueViolationError):
        await execute(postgres.url, "INSERT INTO numbers VALUES ('+915550000001'), ('+915550000001')")
    assert "+915550000001" in postgres.log.read_text()
