"""Idempotency-Key over HTTP: whatever is repeated, and however many do it at once, takes effect once."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter

import httpx
import pytest

from entrypoints.http.api import accounts, billing, chat
from entrypoints.http.api.endpoints import Endpoint
from tests.support.database import execute
from tests.support.http_client import Person, new_mobile, sign_up

KEY = "Idempotency-Key"


def as_sent(reply: httpx.Response) -> tuple[int, bytes, str]:
    return reply.status_code, reply.content, reply.headers["content-type"]


@pytest.mark.parametrize("path", ["/chatroom", "/auth/signup"])
async def test_a_repeated_request_gets_the_first_reply_byte_for_byte(person: Person, path: str) -> None:
    body = {"name": "Physics"} if path == "/chatroom" else {"name": "Ann", "mobile": new_mobile()}
    first = await person.ask("POST", path, body, headers={KEY: f"again-{person.id}"})
    again = await person.ask("POST", f"{path}/", body, headers={KEY: f"again-{person.id}"})
    assert first.status_code == 201
    assert as_sent(again) == as_sent(first)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"


async def test_many_at_once_send_one_message(person: Person, second_http: httpx.AsyncClient) -> None:
    room = await person.room()
    other = person.at(second_http)

    async def send(number: int) -> httpx.Response:
        sender = (person, other)[number % 2]
        return await sender.ask("POST", f"/chatroom/{room}/message", {"input": "Once"}, headers={KEY: "one"})

    replies = await asyncio.gather(*(send(number) for number in range(40)))
    codes = Counter(reply.status_code for reply in replies)
    assert codes.keys() <= {202, 409}
    assert len({reply.content for reply in replies if reply.status_code == 202}) == 1
    for reply in replies:
        if reply.status_code == 409:
            assert reply.json()["code"] == "idempotency_key_in_use"
            assert int(reply.headers["retry-after"]) > 0
    opened = (await person.ask("GET", f"/chatroom/{room}")).json()
    assert len(opened["data"]["messages"]) == 1
    assert (await person.ask("GET", "/user/me")).json()["data"]["usage"]["used"] == 1


async def test_another_body_or_another_room_is_refused(person: Person) -> None:
    room, elsewhere = await person.room(), await person.room()
    headers = {KEY: "body"}
    assert (await person.ask("POST", f"/chatroom/{room}/message", {"input": "A"}, headers=headers)).status_code == 202
    for path, text in [(room, "B"), (elsewhere, "A")]:
        refused = await person.ask("POST", f"/chatroom/{path}/message", {"input": text}, headers=headers)
        assert refused.status_code == 422
        assert refused.json()["code"] == "idempotency_key_reused"


async def test_keys_are_separate_per_user_and_call(person: Person, stranger: Person) -> None:
    headers = {KEY: "shared"}
    rooms = [await sender.ask("POST", "/chatroom", {"name": "Mine"}, headers=headers) for sender in (person, stranger)]
    assert [room.status_code for room in rooms] == [201, 201]
    room = rooms[0].json()["data"]["id"]
    assert (await person.ask("POST", f"/chatroom/{room}/message", {"input": "A"}, headers=headers)).status_code == 202


async def test_a_refusal_is_not_kept(person: Person, api_environment: dict[str, str]) -> None:
    """What did nothing may be tried again with its key, as soon as there is no reason to refuse it any more."""
    room = await person.room()
    for _ in range(5):
        await person.send(room, "Why?")
    path, headers = f"/chatroom/{room}/message", {KEY: "sixth"}
    for _ in range(2):
        refused = await person.ask("POST", path, {"input": "6"}, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
        assert "idempotency-replayed" not in refused.headers
    left = await execute(api_environment["DATABASE_URL"], "SELECT FROM idempotency_keys WHERE key = 'sixth'")
    assert left == []
    await execute(api_environment["DATABASE_URL"], "UPDATE allowances SET used = 0")
    accepted = await person.ask("POST", path, {"input": "6, in other words"}, headers=headers)
    assert accepted.status_code == 202
    taken = {"mobile": person.mobile, "name": "Ann"}
    for _ in range(2):
        conflict = await person.ask("POST", "/auth/signup", taken, headers={KEY: f"taken-{person.id}"})
        assert conflict.status_code == 409
        assert "idempotency-replayed" not in conflict.headers


async def test_an_invalid_request_does_not_use_up_its_key(person: Person) -> None:
    headers = {KEY: "fixed"}
    assert (await person.ask("POST", "/chatroom", {"name": " "}, headers=headers)).status_code == 422
    assert (await person.ask("POST", "/chatroom", {"name": "Good"}, headers=headers)).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "with space"])
async def test_a_bad_key_is_refused(person: Person, key: str) -> None:
    refused = await person.ask("POST", "/chatroom", {"name": "Physics"}, headers={KEY: key})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == KEY


async def test_a_process_that_dies_after_the_effect_causes_no_second_one(
    person: Person, api_environment: dict[str, str]
) -> None:
    room = await person.room()
    path, body, headers = f"/chatroom/{room}/message", {"input": "Once"}, {KEY: "died"}
    first = await person.ask("POST", path, body, headers=headers)
    # What a kill between the message and its kept reply leaves behind: a key that is busy, and then no more.
    await execute(
        api_environment["DATABASE_URL"],
        "UPDATE idempotency_keys SET status = NULL, reply = NULL, busy_until = now() - interval '1 s'"
        " WHERE key = 'died'",
    )
    again = await person.ask("POST", path, body, headers=headers)
    assert again.status_code == 202
    assert again.json()["data"]["id"] == first.json()["data"]["id"]
    assert again.json()["remainingMessages"] == first.json()["remainingMessages"]
    assert len((await person.ask("GET", f"/chatroom/{room}")).json()["data"]["messages"]) == 1


@pytest.mark.parametrize("path", ["/chatroom", "/auth/signup"])
async def test_a_503_after_the_effect_causes_no_second_one(
    person: Person, api_environment: dict[str, str], path: str
) -> None:
    body = {"name": "Physics"} if path == "/chatroom" else {"name": "Ann", "mobile": new_mobile()}
    key = f"away-{person.id}"
    first = await person.ask("POST", path, body, headers={KEY: key})
    await execute(
        api_environment["DATABASE_URL"],
        "UPDATE idempotency_keys SET status = NULL, reply = NULL, busy_until = now() WHERE key LIKE 'away-%'",
    )
    again = await person.ask("POST", path, body, headers={KEY: key})
    assert as_sent(again) == as_sent(first), "with the time of the first one"
    assert "idempotency-replayed" not in again.headers


async def test_callers_without_a_login_have_separate_keys(http: httpx.AsyncClient) -> None:
    """Signing up is scoped by the number, however it is spelled: nobody can take or learn of another's key."""
    headers, mobiles = {KEY: "the-same-for-everybody"}, [new_mobile() for _ in range(3)]
    replies = [
        await http.post("/auth/signup", json={"mobile": mobile, "name": "Ann"}, headers=headers) for mobile in mobiles
    ]
    assert [reply.status_code for reply in replies] == [201] * 3
    assert not any("idempotency-replayed" in reply.headers for reply in replies)
    other = {"mobile": f"+91 {mobiles[0]}", "name": "Ann"}
    again = await http.post("/auth/signup", json=other, headers=headers)
    assert again.json()["code"] == "idempotency_key_reused", "the same number with other bytes"


async def test_a_repeated_regeneration_is_charged_once(
    person: Person, second_http: httpx.AsyncClient, api_environment: dict[str, str]
) -> None:
    room = await person.room()
    message = await person.send(room, "Why?")
    path = f"/chatroom/{room}/message/{message}"
    assert (await person.ask("POST", f"{path}/cancel")).status_code == 200
    other, headers = person.at(second_http), {KEY: "once-more"}

    async def again(number: int) -> httpx.Response:
        return await (person, other)[number % 2].ask("POST", f"{path}/regenerate", headers=headers)

    replies = await asyncio.gather(*(again(number) for number in range(50)))
    assert {reply.status_code for reply in replies} <= {202, 409}
    assert {reply.json()["code"] for reply in replies if reply.status_code == 409} <= {"idempotency_key_in_use"}
    assert len({reply.content for reply in replies if reply.status_code == 202}) == 1
    for _ in range(3):
        replayed = await again(0)
        assert replayed.status_code == 202
        assert replayed.headers["idempotency-replayed"] == "true"
    assert await person.remaining() == 4, "what was stopped before the model was asked is not counted"

    # The same if the process dies between the effect and the kept reply, and the message has ended meanwhile.
    await person.ask("POST", f"{path}/cancel")
    await execute(
        api_environment["DATABASE_URL"],
        "UPDATE idempotency_keys SET status = NULL, reply = NULL, busy_until = now() WHERE key = 'once-more'",
    )
    assert (await again(0)).status_code == 202
    assert await person.remaining() == 5
    assert (await person.message(room, message))["status"] == "cancelled"
    without = await person.ask("POST", f"{path}/regenerate")
    assert without.status_code == 202
    assert await person.remaining() == 4, "without a key it is another one, and counts"


async def test_a_repeated_cancel_is_answered_as_the_first(person: Person) -> None:
    room = await person.room()
    path = f"/chatroom/{room}/message/{await person.send(room, 'Why?')}/cancel"
    replies = [await person.ask("POST", path, headers={KEY: "stop"}) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200] * 3
    assert [reply.headers.get("idempotency-replayed") for reply in replies] == [None, "true", "true"]
    assert (await person.ask("POST", path)).json()["code"] == "message_ended"


async def test_a_repeated_change_of_the_password_spends_one_code(person: Person) -> None:
    http, body = person.http, {"mobile": person.mobile}
    code = (await http.post("/auth/forgot-password", json=body)).json()["otp"]
    change = {"otp": code, "newPassword": "seven blue herons"}
    replies = await asyncio.gather(
        *(person.ask("POST", "/auth/change-password", change, headers={KEY: "change"}) for _ in range(10))
    )
    assert {reply.status_code for reply in replies} <= {200, 409}
    assert (await person.ask("POST", "/auth/change-password", change, headers={KEY: "change"})).status_code == 200
    assert (await person.ask("POST", "/auth/change-password", change)).json()["code"] == "otp_invalid"

    code = (await http.post("/auth/forgot-password", json=body)).json()["otp"]
    reset = {**body, "otp": code, "newPassword": "eight blue herons"}
    replies = [await http.post("/auth/reset-password", json=reset, headers={KEY: "reset"}) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [200, 200]
    assert replies[1].headers["idempotency-replayed"] == "true"
    wrong = {**reset, "otp": "000000"}
    assert (await http.post("/auth/reset-password", json=wrong, headers={KEY: "reset"})).status_code == 422
    logged_in = await http.post("/auth/login", json={**body, "password": "eight blue herons"})
    assert logged_in.status_code == 200


async def test_the_stored_hash_of_a_password_cannot_be_searched(
    person: Person, api_environment: dict[str, str]
) -> None:
    code = (await person.http.post("/auth/forgot-password", json={"mobile": person.mobile})).json()["otp"]
    change = {"otp": code, "newPassword": "seven blue herons"}
    await person.ask("POST", "/auth/change-password", change, headers={KEY: "a-secret-one"})
    sql = "SELECT body_hash, reply FROM idempotency_keys WHERE key = 'a-secret-one'"
    [kept] = await execute(api_environment["DATABASE_URL"], sql)
    sent = httpx.Request("POST", "http://test/", json=change).content
    for plain in (sent, b"/auth/change-password\0" + sent):
        assert kept["body_hash"] != hashlib.sha256(plain).digest()
    assert b"herons" not in kept["reply"]


async def test_a_session_ends_once(person: Person) -> None:
    replies = [await person.ask("POST", "/auth/logout", headers={KEY: "out"}) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [200, 401]


POSTS = [endpoint for area in (accounts, billing, chat) for endpoint in area.endpoints if endpoint.method == "POST"]


@pytest.mark.parametrize("endpoint", [e for e in POSTS if not e.takes_key], ids=lambda e: e.name)
async def test_a_key_is_refused_where_it_would_store_a_secret(person: Person, endpoint: Endpoint) -> None:
    """Rather than ignored: who sends a key relies on it."""
    code = (await person.http.post("/auth/send-otp", json={"mobile": person.mobile})).json()["otp"]
    bodies: dict[str, dict[str, str]] = {
        "verify_otp": {"mobile": person.mobile, "otp": code},
        "log_in": {"mobile": person.mobile, "password": "seven blue herons"},
        "refresh": {"refreshToken": "x" * 43},
    }
    body = bodies.get(endpoint.name, {"mobile": person.mobile})
    refused = await person.ask("POST", endpoint.path, body, headers={KEY: "a key"})
    assert (refused.status_code, refused.json()["code"]) == (400, "idempotency_key_unsupported")
    spent = await person.http.post("/auth/verify-otp", json=bodies["verify_otp"])
    assert spent.status_code == 200, "it did nothing: the code is the last one, and not spent"


def test_only_calls_whose_reply_is_a_secret_refuse_a_key() -> None:
    refusing = {endpoint.name for endpoint in POSTS if not endpoint.takes_key}
    assert refusing == {"send_otp", "forgot_password", "verify_otp", "log_in", "refresh"}


async def test_too_many_unanswered_messages_must_wait(limited_http: httpx.AsyncClient) -> None:
    person = await sign_up(limited_http)
    room = await person.room()
    for _ in range(3):
        assert (await person.ask("POST", f"/chatroom/{room}/message", {"input": "Why?"})).status_code == 202
    refused = await person.ask("POST", f"/chatroom/{room}/message", {"input": "Why?"})
    assert refused.status_code == 429
    assert refused.json()["code"] == "too_many_in_flight"
    assert int(refused.headers["retry-after"]) > 0
