"""The wire contract of accounts and chat: names, places and status codes as clients have known them for long."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from tests.support.http_client import Person, new_mobile, sign_up

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
CODE = re.compile(r"\d{6}")


def wrong(code: str) -> str:
    """Another code."""
    return f"{(int(code) + 1) % 1_000_000:06d}"


async def post(http: httpx.AsyncClient, path: str, status: int, **body: str) -> dict[str, Any]:
    response = await http.post(path, json=body)
    assert response.status_code == status, response.text
    reply: dict[str, Any] = response.json()
    return reply


# --- accounts ---


async def test_signup(http: httpx.AsyncClient) -> None:
    mobile = new_mobile()
    reply = await post(http, "/auth/signup", 201, mobile=mobile, name="Asha")
    assert reply["message"]
    assert UUID.fullmatch(reply["user"].pop("id"))
    assert reply["user"] == {"mobile": f"+91{mobile}", "name": "Asha"}


async def test_a_number_signs_up_once_in_any_format(http: httpx.AsyncClient) -> None:
    mobile = new_mobile()
    await post(http, "/auth/signup", 201, mobile=mobile, name="Asha")
    for spelling in (
        mobile,
        f"0{mobile}",
        f"+91{mobile}",
        f"0091{mobile}",
        f"+91 {mobile[:5]} {mobile[5:]}",
        f"+91-{mobile[:5]}-{mobile[5:]}",
        f"(+91) {mobile}",
        f" {mobile} ",
        f"+91{mobile}".translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)}),  # full-width digits
    ):
        reply = await post(http, "/auth/signup", 409, mobile=spelling, name="Asha again")
        assert reply["code"] == "mobile_taken"


async def test_login_by_code(http: httpx.AsyncClient) -> None:
    mobile = new_mobile()
    user = (await post(http, "/auth/signup", 201, mobile=mobile, name="Asha"))["user"]

    sent = await post(http, "/auth/send-otp", 200, mobile=mobile)
    assert sent["message"]
    assert CODE.fullmatch(sent["otp"])
    refused = await post(http, "/auth/verify-otp", 400, mobile=mobile, otp=wrong(sent["otp"]))
    assert refused["code"] == "otp_invalid"
    reply = await post(http, "/auth/verify-otp", 200, mobile=f"+91{mobile}", otp=sent["otp"])
    assert reply["message"]
    assert reply["expiresIn"] == 3600
    assert reply["user"] == user
    me = await http.get("/user/me", headers={"Authorization": f"Bearer {reply['token']}"})
    assert me.status_code == 200

    again = await post(http, "/auth/verify-otp", 400, mobile=mobile, otp=sent["otp"])
    assert again["code"] == "otp_invalid"


async def test_a_new_code_replaces_the_old_and_allows_five_guesses(http: httpx.AsyncClient, person: Person) -> None:
    first = (await post(http, "/auth/send-otp", 200, mobile=person.mobile))["otp"]
    second = (await post(http, "/auth/send-otp", 200, mobile=person.mobile))["otp"]
    if first != second:
        await post(http, "/auth/verify-otp", 400, mobile=person.mobile, otp=first)
    for _ in range(4 if first != second else 5):
        await post(http, "/auth/verify-otp", 400, mobile=person.mobile, otp=wrong(second))
    await post(http, "/auth/verify-otp", 400, mobile=person.mobile, otp=second)


async def test_an_unknown_number_is_asked_to_sign_up(http: httpx.AsyncClient) -> None:
    for path in ("/auth/send-otp", "/auth/forgot-password"):
        assert (await post(http, path, 404, mobile=new_mobile()))["code"] == "user_not_found"
    assert (await post(http, "/auth/verify-otp", 400, mobile=new_mobile(), otp="123456"))["code"] == "otp_invalid"


async def test_a_password_is_set_by_code_used_and_changed(http: httpx.AsyncClient, person: Person) -> None:
    unset = await post(http, "/auth/login", 401, mobile=person.mobile, password="none is set")
    assert unset["code"] == "credentials_invalid"
    sent = await post(http, "/auth/forgot-password", 200, mobile=person.mobile)
    assert CODE.fullmatch(sent["otp"])
    set_by_code = await person.ask("POST", "/auth/change-password", {"otp": sent["otp"], "newPassword": "first secret"})
    assert set_by_code.status_code == 200
    assert set_by_code.json()["message"]

    logged_in = await post(http, "/auth/login", 200, mobile=f"0{person.mobile}", password="first secret")
    assert logged_in["token"]
    assert logged_in["user"]["id"] == person.id
    other = Person(http, person.id, person.mobile, logged_in["token"])

    refused = await other.ask(
        "POST", "/auth/change-password", {"currentPassword": "not it", "newPassword": "second secret"}
    )
    assert refused.status_code == 400
    assert refused.json()["code"] == "password_wrong"
    changed = await other.ask(
        "POST", "/auth/change-password", {"currentPassword": "first secret", "newPassword": "second secret"}
    )
    assert changed.status_code == 200
    assert (await other.ask("GET", "/user/me")).status_code == 200
    assert (await person.ask("GET", "/user/me")).status_code == 401, "other sessions end"
    await post(http, "/auth/login", 401, mobile=person.mobile, password="first secret")
    await post(http, "/auth/login", 200, mobile=person.mobile, password="second secret")


async def test_a_forgotten_password_is_reset_without_a_token(http: httpx.AsyncClient, person: Person) -> None:
    login_code = (await post(http, "/auth/send-otp", 200, mobile=person.mobile))["otp"]
    code = (await post(http, "/auth/forgot-password", 200, mobile=person.mobile))["otp"]
    if login_code != code:
        await post(http, "/auth/verify-otp", 400, mobile=person.mobile, otp=code)
    reset = {"mobile": person.mobile, "newPassword": "a new secret"}
    assert (await post(http, "/auth/reset-password", 400, otp=wrong(code), **reset))["code"] == "otp_invalid"
    assert (await post(http, "/auth/reset-password", 200, otp=code, **reset))["message"]
    await post(http, "/auth/reset-password", 400, otp=code, **reset)
    await post(http, "/auth/login", 200, mobile=person.mobile, password="a new secret")
    assert (await person.ask("GET", "/user/me")).status_code == 401


async def test_profile(person: Person) -> None:
    reply = await person.get("/user/me")
    assert reply["message"]
    usage = reply["data"].pop("usage")
    assert reply["data"] == {
        "id": person.id,
        "mobile": f"+91{person.mobile}",
        "name": "Asha",
        "subscriptionTier": "Basic",
    }
    assert usage.pop("resetsAt") == tomorrow()
    assert usage == {"used": 0, "total": 5, "remaining": 5, "inputTokens": 0, "outputTokens": 0}


# --- chat ---


def tomorrow() -> str:
    return f"{datetime.now(UTC).date() + timedelta(days=1)}T00:00:00.000Z"


async def test_a_room_is_created_listed_and_opened(person: Person) -> None:
    created = await person.ask("POST", "/chatroom/", {"name": "  Física 🔭 "})
    assert created.status_code == 201
    assert created.json()["message"]
    room = created.json()["data"]
    assert room.keys() >= {"id", "name", "userId", "createdAt"}
    assert UUID.fullmatch(room["id"])
    assert TIME.fullmatch(room["createdAt"])
    assert room["name"] == "  Física 🔭 "
    assert room["userId"] == person.id

    listed = await person.get("/chatroom/")
    assert listed["message"]
    assert listed["data"] == [room]
    assert listed["nextCursor"] is None
    opened = await person.get(f"/chatroom/{room['id']}")
    assert opened["message"]
    assert opened["data"] == {**room, "messages": []}


async def test_a_room_has_instructions_and_may_wait_for_a_title(person: Person) -> None:
    plain = (await person.ask("POST", "/chatroom", {"name": "Plain", "instructions": None})).json()["data"]
    blank = (await person.ask("POST", "/chatroom", {"name": "Blank", "instructions": " \n"})).json()["data"]
    for room in (plain, blank):
        assert (room["instructions"], room["autoTitle"]) == (None, False)
    longest = "Antworte in Reimen. 🌻" * 190
    instructed = (
        await person.ask("POST", "/chatroom", {"name": "Instructed", "instructions": longest, "autoTitle": True})
    ).json()["data"]
    assert (instructed["name"], instructed["instructions"], instructed["autoTitle"]) == ("Instructed", longest, True)
    assert (await person.get("/chatroom"))["data"] == [instructed, blank, plain]
    assert (await person.get(f"/chatroom/{instructed['id']}"))["data"] == {**instructed, "messages": []}


async def test_a_room_is_changed(person: Person, second_http: httpx.AsyncClient) -> None:
    body = {"name": "Physics", "instructions": "Rhyme.", "autoTitle": True}
    created = (await person.ask("POST", "/chatroom", body)).json()["data"]
    room, expected = created["id"], created
    for change, changes in (
        ({"instructions": "Be brief."}, {"instructions": "Be brief."}),
        ({"name": "  Óptica "}, {"name": "  Óptica ", "autoTitle": False}),
        ({"instructions": None}, {"instructions": None}),
        ({"name": "Optics", "instructions": "Rhyme."}, {"name": "Optics", "instructions": "Rhyme."}),
        ({"instructions": ""}, {"instructions": None}),
    ):
        expected = {**expected, **changes}
        changed = await person.ask("PATCH", f"/chatroom/{room}", change)
        assert changed.status_code == 200, changed.text
        assert changed.json()["message"]
        assert changed.json()["data"] == expected
        assert (await person.get(f"/chatroom/{room}"))["data"] == {**expected, "messages": []}
        for somewhere in (person, person.at(second_http)):
            assert (await somewhere.get("/chatroom"))["data"] == [expected], "the cached list, too"


async def test_a_room_is_deleted(person: Person, second_http: httpx.AsyncClient) -> None:
    kept, room = await person.room("Kept"), await person.room("Gone")
    message = await person.send(room, "Why?")
    elsewhere = person.at(second_http)
    assert len((await elsewhere.get("/chatroom"))["data"]) == 2
    deleted = await person.ask("DELETE", f"/chatroom/{room}/")
    assert deleted.status_code == 200
    assert deleted.json().keys() == {"message"}
    for somewhere in (person, elsewhere):
        assert [listed["id"] for listed in (await somewhere.get("/chatroom"))["data"]] == [kept]
    for method, path, code in (
        ("GET", f"/chatroom/{room}", "chatroom_not_found"),
        ("DELETE", f"/chatroom/{room}", "chatroom_not_found"),
        ("GET", f"/chatroom/{room}/message/{message}", "message_not_found"),
        ("POST", f"/chatroom/{room}/message/{message}/cancel", "message_not_found"),
    ):
        response = await person.ask(method, path)
        assert (response.status_code, response.json()["code"]) == (404, code)
    assert await person.remaining() == 4, "what was sent was sent"


async def test_rooms_come_newest_first(person: Person) -> None:
    rooms = [await person.room(f"Room {number}") for number in range(3)]
    assert [room["id"] for room in (await person.get("/chatroom"))["data"]] == rooms[::-1]


async def test_a_message_is_accepted_and_shown(person: Person) -> None:
    room = await person.room()
    sent = await person.ask("POST", f"/chatroom/{room}/message", {"input": "Why is the sky blue?"})
    assert sent.status_code == 202
    reply = sent.json()
    assert reply["message"]
    assert reply["remainingMessages"] == 4
    assert reply["dailyLimitInfo"] == {"used": 1, "total": 5, "resetsAt": tomorrow()}
    message = reply["data"]
    assert UUID.fullmatch(message["id"])
    assert TIME.fullmatch(message["createdAt"])
    assert message["input"] == "Why is the sky blue?"
    assert message["response"] is None
    assert message["chatroomId"] == room
    assert (message["thoughts"], message["thinkingSeconds"], message["counted"]) == (None, None, True)
    assert message["usage"] == dict.fromkeys(("inputTokens", "cachedTokens", "outputTokens", "thoughtTokens"))
    assert (await person.get(f"/chatroom/{room}"))["data"]["messages"] == [message]
    assert (await person.get(f"/chatroom/{room}/message"))["data"] == [message]
    assert (await person.get(f"/chatroom/{room}/message/{message['id']}"))["data"] == message


async def test_messages_come_oldest_first(person: Person) -> None:
    room = await person.room()
    sent = [await person.send(room, f"Question {number}") for number in range(3)]
    assert [message["id"] for message in (await person.get(f"/chatroom/{room}"))["data"]["messages"]] == sent


async def test_a_queued_message_is_cancelled_at_once(person: Person) -> None:
    room = await person.room()
    message = await person.send(room, "Why?")
    path = f"/chatroom/{room}/message/{message}"
    cancelled = await person.ask("POST", f"{path}/cancel")
    assert cancelled.status_code == 200
    assert cancelled.json()["message"]
    data = cancelled.json()["data"]
    assert (data["id"], data["status"], data["response"], data["error"]) == (message, "cancelled", None, None)
    assert TIME.fullmatch(data["completedAt"])
    assert (await person.get(path))["data"] == data
    again = await person.ask("POST", f"{path}/cancel/")
    assert (again.status_code, again.json()["code"]) == (409, "message_ended")
    assert not data["counted"]
    assert await person.remaining() == 5


async def test_a_running_message_is_cancelled_soon(person: Person, api_environment: dict[str, str]) -> None:
    room = await person.room()
    message = await person.send(room, "Why?")
    path = f"/chatroom/{room}/message/{message}/cancel"
    connection = await asyncpg.connect(api_environment["DATABASE_URL"])
    try:
        await connection.execute(  # as a worker does
            "WITH worker AS ("
            " INSERT INTO workers (id, lease_until) VALUES (gen_random_uuid(), now() + interval '1 h') RETURNING id"
            ") UPDATE queue_entries SET attempt = 1, worker_id = worker.id FROM worker WHERE message_id = $1",
            message,
        )
        waited = await person.ask("POST", path)
        assert waited.status_code == 202, "nobody has stopped the model within two seconds"
        assert waited.json()["data"]["status"] == "generating"
        assert "preference-applied" not in waited.headers
        at_once = await person.ask("POST", path, headers={"Prefer": "wait=0"})
        assert (at_once.status_code, at_once.headers["preference-applied"]) == (202, "wait=0")
        assert await connection.fetchval("SELECT cancel_requested FROM queue_entries WHERE message_id = $1", message)
        waiting = asyncio.create_task(person.ask("POST", path, headers={"Prefer": "wait=30"}))
        await connection.execute(
            "WITH entry AS (DELETE FROM queue_entries WHERE message_id = $1)"
            " UPDATE messages SET status = 'cancelled', response = 'Half a', completed_at = now() WHERE id = $1",
            message,
        )
        ended = await waiting
        assert ended.status_code in (200, 409)
        if ended.status_code == 200:
            assert (ended.json()["data"]["status"], ended.json()["data"]["response"]) == ("cancelled", "Half a")
    finally:
        await connection.close()
    assert (await person.message(room, message))["response"] == "Half a"


async def test_a_message_is_regenerated(person: Person) -> None:
    room = await person.room()
    message = await person.send(room, "Why?")
    path = f"/chatroom/{room}/message/{message}"
    early = await person.ask("POST", f"{path}/regenerate")
    assert (early.status_code, early.json()["code"]) == (409, "message_not_ended")
    for _ in range(7):  # none of them is counted in the end: the model is never asked
        await person.ask("POST", f"{path}/cancel")
        response = await person.ask("POST", f"{path}/regenerate")
        assert response.status_code == 202
        reply = response.json()
        assert reply["remainingMessages"] == 4
        assert reply["dailyLimitInfo"] == {"used": 1, "total": 5, "resetsAt": tomorrow()}
        data = reply["data"]
        assert (data["id"], data["input"], data["status"], data["completedAt"]) == (message, "Why?", "queued", None)
        assert (await person.get(path))["data"] == data
    cancelled = (await person.ask("POST", f"{path}/cancel")).json()["data"]
    for _ in range(5):
        await person.send(room, "Why?")
    refused = await person.ask("POST", f"{path}/regenerate/")
    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
    assert (await person.get(path))["data"] == cancelled


async def test_the_sixth_message_of_a_day_is_refused(person: Person) -> None:
    room = await person.room()
    for remaining in (4, 3, 2, 1, 0):
        sent = await person.ask("POST", f"/chatroom/{room}/message", {"input": "Why?"})
        assert sent.status_code == 202
        assert sent.json()["remainingMessages"] == remaining
    sixth = await person.ask("POST", f"/chatroom/{room}/message", {"input": "Why?"})
    assert sixth.status_code == 403
    assert sixth.json()["code"] == "quota_exceeded"
    assert sixth.json()["resetsAt"] == tomorrow()
    assert len((await person.get(f"/chatroom/{room}"))["data"]["messages"]) == 5
    assert (await person.get("/user/me"))["data"]["usage"]["remaining"] == 0


async def test_the_room_of_someone_else_is_not_found(person: Person, stranger: Person) -> None:
    theirs = await stranger.room("Private")
    message = await stranger.send(theirs, "Between us")
    for method, path, body in (
        ("GET", "/chatroom/{}", None),
        ("GET", "/chatroom/{}/message", None),
        ("GET", f"/chatroom/{{}}/message/{message}", None),
        ("POST", "/chatroom/{}/message", {"input": "Let me in"}),
        ("PATCH", "/chatroom/{}", {"name": "Mine"}),
        ("DELETE", "/chatroom/{}", None),
        ("POST", f"/chatroom/{{}}/message/{message}/cancel", None),
        ("POST", f"/chatroom/{{}}/message/{message}/regenerate", None),
        ("POST", f"/chatroom/{{}}/message/{message}/continue", None),
    ):
        answers = []
        for room in (theirs, str(uuid4()), "not-a-uuid"):
            response = await person.ask(method, path.format(room), body)
            assert response.status_code == 404
            problem = response.json()
            text = response.text.replace(problem["requestId"], "").replace(problem["instance"], "")
            del response.headers["x-request-id"], response.headers["content-length"]
            answers.append((text, dict(response.headers)))
        assert answers[0] == answers[1]
        if "{}/message/" not in path:  # which says that there is no such message, whatever is wrong with the room
            assert answers[0] == answers[2]
    assert (await person.get("/user/me"))["data"]["usage"]["used"] == 0, "a refused message costs nothing"
    assert (await stranger.get(f"/chatroom/{theirs}"))["data"]["name"] == "Private"
    assert (await stranger.message(theirs, message))["status"] == "queued"
    await stranger.ask("DELETE", f"/chatroom/{theirs}")


async def test_a_message_of_another_room_is_not_found(person: Person) -> None:
    room, other = await person.room(), await person.room()
    message = await person.send(room, "Where am I?")
    response = await person.ask("GET", f"/chatroom/{other}/message/{message}")
    assert response.status_code == 404
    assert response.json()["code"] == "message_not_found"


async def test_the_room_list_is_served_from_the_cache(person: Person, api_environment: dict[str, str]) -> None:
    room = await person.room("As it was")
    await person.get("/chatroom")
    connection = await asyncpg.connect(api_environment["DATABASE_URL"])
    try:  # behind the service's back, which a cache cannot know
        await connection.execute("UPDATE chatrooms SET name = 'Changed' WHERE id = $1", room)
    finally:
        await connection.close()
    assert [listed["name"] for listed in (await person.get("/chatroom"))["data"]] == ["As it was"]


async def test_the_cached_list_shows_a_change_at_once_through_every_process(
    person: Person, second_http: httpx.AsyncClient
) -> None:
    elsewhere = person.at(second_http)
    rooms: list[str] = []
    for number in range(6):
        before = [(await one.get("/chatroom"))["data"] for one in (person, elsewhere)]
        assert [[room["id"] for room in rooms] for rooms in before] == [rooms, rooms]
        rooms.insert(0, await (person, elsewhere)[number % 2].room(f"Room {number}"))


async def test_rooms_by_pages_while_rooms_are_added(person: Person) -> None:
    rooms = [await person.room(f"Room {number}") for number in range(5)]
    seen: list[str] = []
    path = "/chatroom?limit=2"
    while True:
        page = await person.get(path)
        seen += [room["id"] for room in page["data"]]
        if page["nextCursor"] is None:
            break
        await person.room("Added meanwhile")
        path = f"/chatroom/?limit=2&cursor={page['nextCursor']}"
    assert seen == rooms[::-1]
    assert len((await person.get("/chatroom?limit=100"))["data"]) == 7


async def test_a_full_last_page_has_no_next_cursor(person: Person) -> None:
    for number in range(2):
        await person.room(f"Room {number}")
    assert (await person.get("/chatroom?limit=2"))["nextCursor"] is None


@pytest.mark.parametrize("path", ["/chatroom/{}", "/chatroom/{}/message"])
async def test_messages_by_pages_while_messages_arrive(person: Person, path: str) -> None:
    def messages(page: dict[str, Any]) -> list[str]:
        found = page["data"] if isinstance(page["data"], list) else page["data"]["messages"]
        return [message["id"] for message in found]

    room = await person.room()
    sent = [await person.send(room, f"Question {number}") for number in range(4)]
    first = await person.get(f"{path.format(room)}?limit=2")
    assert messages(first) == sent[2:]
    await person.send(room, "One more meanwhile")
    second = await person.get(f"{path.format(room)}?limit=2&before={first['nextCursor']}")
    assert messages(second) == sent[:2]
    assert second["nextCursor"] is None


# --- all paths ---


async def test_paths_answer_with_and_without_a_trailing_slash(http: httpx.AsyncClient, stranger: Person) -> None:
    paths = (await http.get("/openapi.json")).json()["paths"]
    some_id = str(uuid4())
    calls = [(method, re.sub(r"\{\w+\}", some_id, path)) for path, methods in paths.items() for method in methods]
    for method, path in [*calls, ("get", "/docs"), ("get", "/openapi.json"), ("get", "/no/such/path")]:
        body: dict[str, str] | None = None if method == "get" else {}
        callers = [stranger, stranger]
        if (method, path) in (("post", "/auth/logout"), ("delete", "/user/me")):  # who makes it, makes it once
            callers = [await sign_up(http), await sign_up(http)]
        plain, slashed = [
            await caller.ask(method.upper(), spelling, body)
            for caller, spelling in zip(callers, (path, f"{path}/"), strict=True)
        ]
        assert plain.status_code == slashed.status_code, path
        assert plain.headers["content-type"] == slashed.headers["content-type"]
        if plain.status_code < 300:
            assert plain.content == slashed.content or path == "/metrics"  # which count themselves
        else:
            assert plain.json()["code"] == slashed.json()["code"]


async def test_the_operators_calls(http: httpx.AsyncClient) -> None:
    assert (await http.get("/health")).json() == {"status": "ok"}
    ready = await http.get("/ready")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ready", "dependencies": {"postgres": "ok", "redis": "ok"}, "warnings": []}
    page = await http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "/chatroom/{chatroomId}/message" in page.text
    assert not re.search(r"""(src|href)=["']?https?:""", page.text), "nothing is fetched from anywhere"
    assert (await http.get("/")).status_code == 200


async def test_a_model_that_refuses_the_key_is_named(http: httpx.AsyncClient, api_environment: dict[str, str]) -> None:
    connection = await asyncpg.connect(api_environment["DATABASE_URL"])
    try:
        await connection.execute("INSERT INTO model_setup VALUES (1, 'API_KEY_INVALID', now())")  # as a worker does
        ready = await http.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["dependencies"]["model"] == "not configured (API_KEY_INVALID)"
    finally:
        await connection.execute("DELETE FROM model_setup")
        await connection.close()
    assert (await http.get("/ready")).json()["status"] == "ready"


async def test_a_reply_is_private_and_names_its_request(http: httpx.AsyncClient, person: Person) -> None:
    for path in ("/", "/docs", "/openapi.json", "/health", "/ready", "/user/me", "/chatroom", "/nowhere"):
        response = await person.ask("GET", path, headers={"X-Request-ID": "my-own.id_7"})
        assert response.headers["x-request-id"] == "my-own.id_7", path
        head = await person.ask("HEAD", path)
        assert head.status_code == response.status_code
        assert head.headers["content-type"] == response.headers["content-type"]
        assert head.content == b""
    assert (await person.ask("GET", "/user/me")).headers["cache-control"] == "no-store"
    assert (await http.get("/user/me")).headers["cache-control"] == "no-store"


async def test_people_share_nothing(http: httpx.AsyncClient, person: Person) -> None:
    await person.room()
    somebody_else = await sign_up(http)
    assert (await somebody_else.get("/chatroom"))["data"] == []
