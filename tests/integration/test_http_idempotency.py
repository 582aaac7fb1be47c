"""Idempotency-Key over HTTP: whatever is repeated, and however many do it at once, takes effect once."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import pytest

from tests.database import execute
from tests.http_client import Person, new_mobile, sign_up

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


async def test_keys_are_each_users_and_each_calls_own(person: Person, stranger: Person) -> None:
    headers = {KEY: "shared"}
    rooms = [await sender.ask("POST", "/chatroom", {"name": "Mine"}, headers=headers) for sender in (person, stranger)]
    assert [room.status_code for room in rooms] == [201, 201]
    room = rooms[0].json()["data"]["id"]
    assert (await person.ask("POST", f"/chatroom/{room}/message", {"input": "A"}, headers=headers)).status_code == 202


async def test_a_refusal_is_kept_but_what_may_be_tried_again_is_not(person: Person) -> None:
    room = await person.room()
    for _ in range(5):
        await person.send(room, "Why?")
    refused = [
        await person.ask("POST", f"/chatroom/{room}/message", {"input": "6"}, headers={KEY: "sixth"}) for _ in range(2)
    ]
    assert refused[0].status_code == 403
    assert as_sent(refused[1]) == as_sent(refused[0])
    assert refused[1].headers["idempotency-replayed"] == "true"
    taken = {"mobile": person.mobile, "name": "Ann"}
    for _ in range(2):
        conflict = await person.ask("POST", "/auth/signup", taken, headers={KEY: f"taken-{person.id}"})
        assert conflict.status_code == 409
        assert "idempotency-replayed" not in conflict.headers


async def test_an_invalid_request_does_not_use_up_its_key(person: Person) -> None:
    headers = {KEY: "mended"}
    assert (await person.ask("POST", "/chatroom", {"name": " "}, headers=headers)).status_code == 422
    assert (await person.ask("POST", "/chatroom", {"name": "Good"}, headers=headers)).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "with space"])
async def test_a_bad_key_is_refused(person: Person, key: str) -> None:
    refused = await person.ask("POST", "/chatroom", {"name": "Physics"}, headers={KEY: key})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == KEY


async def test_a_process_that_died_after_the_effect_is_no_second_effect(
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
async def test_what_was_answered_by_503_after_its_effect_is_no_second_effect(
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


async def test_what_may_be_tried_again_keeps_its_key_to_itself(person: Person) -> None:
    headers = {KEY: f"busy-{person.id}"}
    for _ in range(2):
        taken = await person.ask("POST", "/auth/signup", {"mobile": person.mobile, "name": "Ann"}, headers=headers)
        assert taken.json()["code"] == "mobile_taken"
    other = await person.ask("POST", "/auth/signup", {"mobile": new_mobile(), "name": "Ann"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_too_many_unanswered_messages_must_wait(limited_http: httpx.AsyncClient) -> None:
    person = await sign_up(limited_http)
    room = await person.room()
    for _ in range(3):
        assert (await person.ask("POST", f"/chatroom/{room}/message", {"input": "Why?"})).status_code == 202
    refused = await person.ask("POST", f"/chatroom/{room}/message", {"input": "Why?"})
    assert refused.status_code == 429
    assert refused.json()["code"] == "too_many_in_flight"
    assert int(refused.headers["retry-after"]) > 0
