"""The calls that clients of the old service do not know: refreshing, devices, one's own name and end."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import httpx
import pytest

from tests.support.database import execute
from tests.support.http_client import Person, log_in, new_mobile, sign_up

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
TOKEN = re.compile(r"[\w-]{43}")


async def signed_in(http: httpx.AsyncClient, mobile: str, device: bytes | None = None) -> dict[str, Any]:
    """Another login of somebody who has signed up: the whole reply."""
    code = (await http.post("/auth/send-otp", json={"mobile": mobile})).json()["otp"]
    headers = {} if device is None else {b"User-Agent": device}
    reply = await http.post("/auth/verify-otp", json={"mobile": mobile, "otp": code}, headers=headers)
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    return body


async def refresh(http: httpx.AsyncClient, token: str, status: int = 200) -> dict[str, Any]:
    reply = await http.post("/auth/refresh", json={"refreshToken": token})
    assert reply.status_code == status, reply.text
    body: dict[str, Any] = reply.json()
    return body


def at(http: httpx.AsyncClient, person: Person, reply: dict[str, Any]) -> Person:
    return Person(http, person.id, person.mobile, reply["token"])


async def devices(person: Person) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await person.get("/auth/sessions"))["data"]
    return found


async def test_deleting_and_signing_up_again_does_not_renew_the_allowance(http: httpx.AsyncClient) -> None:
    """However often in a day, and however the number is spelled."""
    mobile, sent = new_mobile(), 0
    spellings = [
        mobile,
        f"+91{mobile}",
        f"0{mobile}",
        f"+91 {mobile[:5]} {mobile[5:]}",
        f"+91-{mobile[:5]}-{mobile[5:]}",
    ]
    for number in range(20):
        spelled = spellings[number % len(spellings)]
        signed_up = await http.post("/auth/signup", json={"mobile": spelled, "name": "Ann"})
        assert signed_up.status_code == 201
        person = await log_in(http, spelled, signed_up.json()["user"]["id"])
        assert await person.remaining() == 5 - sent
        room = await person.room()
        replies = [await person.ask("POST", f"/chatroom/{room}/message", {"input": "Why?"}) for _ in range(2)]
        sent += sum(reply.status_code == 202 for reply in replies)
        assert {reply.status_code for reply in replies} <= {202, 403}
        assert (await person.delete_account()).status_code == 200
    assert sent == 5


SCRIPTS = {
    "devanagari": "०१२३४५६७८९", "arabic": "٠١٢٣٤٥٦٧٨٩", "persian": "۰۱۲۳۴۵۶۷۸۹", "bengali": "০১২৩৪৫৬৭৮৯",
    "full width": "０１２３４５６７８９",
}  # fmt: skip


class TestCodesAsPeopleTypeThem:
    @pytest.mark.parametrize("digits", SCRIPTS.values(), ids=SCRIPTS)
    async def test_in_any_script(self, http: httpx.AsyncClient, person: Person, digits: str) -> None:
        code = (await http.post("/auth/send-otp", json={"mobile": person.mobile})).json()["otp"]
        script = str.maketrans("0123456789", digits)
        body = {"mobile": person.mobile.translate(script), "otp": code.translate(script)}
        reply = await http.post("/auth/verify-otp", json=body)
        assert reply.status_code == 200, reply.text

    @pytest.mark.parametrize(
        "form", ["{} {}", " {}{}\n", "{}-{}", "{}\u00a0{}", "\u202a{}{}\u202c", "{}\u200b{}", "\ufeff{}{}"]
    )
    async def test_with_what_was_copied_along(self, http: httpx.AsyncClient, person: Person, form: str) -> None:
        code = (await http.post("/auth/send-otp", json={"mobile": person.mobile})).json()["otp"]
        body = {"mobile": form.format(person.mobile[:5], person.mobile[5:]), "otp": form.format(code[:3], code[3:])}
        reply = await http.post("/auth/verify-otp", json=body)
        assert reply.status_code == 200, reply.text
        await self.resets(http, person, form)

    async def resets(self, http: httpx.AsyncClient, person: Person, form: str) -> None:
        for path in ("/auth/reset-password", "/auth/change-password"):
            sent = await code(http, person)
            body = {"otp": form.format(sent[:3], sent[3:]), "newPassword": "seven blue herons"}
            if path == "/auth/reset-password":
                reply = await http.post(path, json={**body, "mobile": person.mobile})
            else:
                again = at(http, person, await signed_in(http, person.mobile))
                reply = await again.ask("POST", path, body)
            assert reply.status_code == 200, reply.text

    async def test_a_malformed_code_does_not_count_as_a_guess(
        self, http: httpx.AsyncClient, person: Person, api_environment: dict[str, str]
    ) -> None:
        right = (await http.post("/auth/send-otp", json={"mobile": person.mobile})).json()["otp"]
        wrong = ["", "12345", "1234567", f"{right}0", right[:5], "abcdef", "²³⁴⁵⁶⁷", f"{right}\0", " ", "\u200b" * 6]
        for text in wrong * 2:
            reply = await http.post("/auth/verify-otp", json={"mobile": person.mobile, "otp": text})
            assert (reply.status_code, reply.json()["code"]) == (422, "validation_failed")
            assert [error["pointer"] for error in reply.json()["errors"]] == ["/otp"]
        found = await execute(
            api_environment["DATABASE_URL"],
            f"SELECT guesses_left + unbound_left AS n FROM one_time_codes WHERE mobile = '+91{person.mobile}'",  # noqa: S608
        )
        assert [row["n"] for row in found] == [10]
        reply = await http.post("/auth/verify-otp", json={"mobile": person.mobile, "otp": right})
        assert reply.status_code == 200


async def test_a_byte_order_mark_before_json_is_accepted(http: httpx.AsyncClient, person: Person) -> None:
    """PowerShell's."""
    content = b"\xef\xbb\xbf" + json.dumps({"name": "Physics"}).encode()
    headers = {"Authorization": f"Bearer {person.token}", "Content-Type": "application/json"}
    reply = await http.post("/chatroom", content=content, headers=headers)
    assert reply.status_code == 201, reply.text
    twice = await http.post("/chatroom", content=b"\xef\xbb\xbf" + content, headers=headers)
    assert twice.json()["code"] == "malformed_body"


class TestRefresh:
    async def test_every_login_returns_tokens_and_a_refresh_the_next_ones(
        self, http: httpx.AsyncClient, person: Person
    ) -> None:
        first = await signed_in(http, person.mobile)
        assert first.keys() == {"message", "token", "expiresIn", "refreshToken", "deviceToken", "user"}
        assert TOKEN.fullmatch(first["refreshToken"])
        assert first["expiresIn"] == 3600
        second = await refresh(http, first["refreshToken"])
        assert second.keys() == first.keys() - {"deviceToken"}
        assert second["user"] == first["user"] == {"id": person.id, "mobile": f"+91{person.mobile}", "name": "Asha"}
        assert len({first["token"], second["token"], first["refreshToken"], second["refreshToken"]}) == 4
        for reply in (first, second):
            assert (await at(http, person, reply).ask("GET", "/user/me")).status_code == 200

        await person.ask("POST", "/auth/change-password", {"otp": await code(http, person), "newPassword": "a new one"})
        by_password = await http.post("/auth/login", json={"mobile": person.mobile, "password": "a new one"})
        assert by_password.json().keys() == first.keys()

    async def test_concurrent_refreshes_at_two_processes_get_the_same_pair(
        self, http: httpx.AsyncClient, second_http: httpx.AsyncClient, person: Person
    ) -> None:
        first = await signed_in(http, person.mobile)
        calls = [refresh(client, first["refreshToken"]) for client in (http, second_http) for _ in range(20)]
        replies = await asyncio.gather(*calls)
        assert len({reply["refreshToken"] for reply in replies}) == 1
        await refresh(http, replies[0]["refreshToken"])

    async def test_a_used_token_ends_the_session(self, http: httpx.AsyncClient, person: Person) -> None:
        line = [await signed_in(http, person.mobile)]
        for _ in range(2):
            line.append(await refresh(http, line[-1]["refreshToken"]))
        refused = await refresh(http, line[0]["refreshToken"], 401)
        assert refused["code"] == "refresh_token_invalid"
        for reply in line:
            assert (await refresh(http, reply["refreshToken"], 401))["code"] == "refresh_token_invalid"
            assert (await at(http, person, reply).ask("GET", "/user/me")).status_code == 401
        assert (await person.ask("GET", "/user/me")).status_code == 200, "another device goes on"

    @pytest.mark.parametrize("token", ["never given", "x" * 43, "🌻", "x" * 128])
    async def test_an_unknown_token_is_refused(self, http: httpx.AsyncClient, token: str) -> None:
        assert (await refresh(http, token, 401))["code"] == "refresh_token_invalid"

    @pytest.mark.parametrize(("body", "status"), [({}, 422), ({"refreshToken": ""}, 422), ({"refreshToken": 1}, 422),
                                                  ({"refreshToken": "x" * 129}, 422), ([], 400)])  # fmt: skip
    async def test_a_malformed_token_is_refused(self, http: httpx.AsyncClient, body: object, status: int) -> None:
        assert (await http.post("/auth/refresh", json=body)).status_code == status

    @pytest.mark.parametrize("cookie", [b"", b'" "', b"\xff\xfe", b"never", b"x" * 500, b"a\x01b"])
    async def test_a_malformed_cookie_is_refused(self, http: httpx.AsyncClient, cookie: bytes) -> None:
        headers = {b"X-Refresh-Token": b"cookie", b"Cookie": b"refresh_token=" + cookie}
        reply = await http.post("/auth/refresh", headers=headers)
        assert reply.status_code in (400, 401)
        assert reply.json()["code"] in ("refresh_token_invalid", "malformed_request")


async def code(http: httpx.AsyncClient, person: Person) -> str:
    return str((await http.post("/auth/forgot-password", json={"mobile": person.mobile})).json()["otp"])


class TestDevices:
    async def test_are_listed_without_their_address(self, http: httpx.AsyncClient, person: Person) -> None:
        phone = at(http, person, await signed_in(http, person.mobile, b"A phone/1.0"))
        found = await devices(phone)
        assert found[0]["device"] == "A phone/1.0"
        assert [one["current"] for one in found] == [True, False]
        for one in found:
            assert one.keys() == {"id", "device", "network", "createdAt", "lastSeenAt", "current"}
            assert one["network"] == "127.0.0.0/24"
            assert TIME.fullmatch(one["createdAt"])
            assert TIME.fullmatch(one["lastSeenAt"])
        assert [one["current"] for one in await devices(person)] == [False, True]

    @pytest.mark.parametrize(
        ("given", "shown"),
        [
            (b"", ""),
            (b"caf\xc3\xa9", "café"),
            (b"\xff\xfebroken", "broken"),
            (b"x" * 9_000, "x" * 200),
            (b"a\tb", "ab"),
        ],
    )
    async def test_may_send_any_user_agent(
        self, http: httpx.AsyncClient, person: Person, given: bytes, shown: str
    ) -> None:
        reply = await signed_in(http, person.mobile, given)
        current = next(one for one in await devices(at(http, person, reply)) if one["current"])
        assert current["device"] == shown

    async def test_one_session_is_ended(self, http: httpx.AsyncClient, person: Person) -> None:
        reply = await signed_in(http, person.mobile)
        phone = at(http, person, reply)
        [theirs] = [one["id"] for one in await devices(phone) if one["current"]]
        ended = await person.ask("DELETE", f"/auth/sessions/{theirs}")
        assert ended.status_code == 200
        assert ended.json()["message"]
        assert (await phone.ask("GET", "/user/me")).json()["code"] == "token_invalid"
        await refresh(http, reply["refreshToken"], 401)
        assert len(await devices(person)) == 1
        again = await person.ask("DELETE", f"/auth/sessions/{theirs}")
        assert (again.status_code, again.json()["code"]) == (404, "session_not_found")

    async def test_somebody_elses_is_as_if_it_were_not_there(self, person: Person, stranger: Person) -> None:
        [theirs] = [one["id"] for one in await devices(stranger) if one["current"]]
        answers = []
        for session in (theirs, "01900000-0000-7000-8000-000000000000", "not-an-id"):
            path = f"/auth/sessions/{session}"
            reply = await person.ask("DELETE", path, headers={"X-Request-ID": "same"})
            answers.append((reply.status_code, reply.text.replace(session, "")))
        assert answers == [answers[0]] * 3
        assert answers[0][0] == 404
        assert (await stranger.ask("GET", "/user/me")).status_code == 200

    async def test_all_others_are_signed_out(self, http: httpx.AsyncClient, person: Person) -> None:
        others = [at(http, person, await signed_in(http, person.mobile)) for _ in range(3)]
        assert (await person.ask("DELETE", "/auth/sessions")).status_code == 200
        assert [one["current"] for one in await devices(person)] == [True]
        for other in others:
            assert (await other.ask("GET", "/user/me")).status_code == 401

    async def test_logging_out_holds_at_every_process(
        self, http: httpx.AsyncClient, second_http: httpx.AsyncClient, person: Person
    ) -> None:
        reply = await signed_in(http, person.mobile)
        phone = at(http, person, reply)
        assert (await phone.at(second_http).ask("GET", "/user/me")).status_code == 200
        out = await phone.ask("POST", "/auth/logout")
        assert out.status_code == 200
        assert out.json()["message"]
        for client in (http, second_http):
            assert (await phone.at(client).ask("GET", "/user/me")).status_code == 401
            await refresh(client, reply["refreshToken"], 401)
        assert (await phone.ask("POST", "/auth/logout")).status_code == 401
        assert (await person.ask("GET", "/user/me")).status_code == 200


class TestProfile:
    async def test_is_renamed(self, person: Person) -> None:
        before = (await person.get("/user/me"))["data"]
        renamed = await person.ask("PATCH", "/user/me", {"name": "Zoë 🌻"})
        assert renamed.status_code == 200
        assert renamed.json()["message"]
        assert renamed.json()["data"] == {**before, "name": "Zoë 🌻"} == (await person.get("/user/me"))["data"]
        for name in ("", "  ", "x" * 101, None):
            assert (await person.ask("PATCH", "/user/me", {"name": name})).status_code == 422

    async def test_is_deleted_with_all_that_belongs_to_it(self, http: httpx.AsyncClient, stranger: Person) -> None:
        mobile = new_mobile()
        key = {"Idempotency-Key": f"of-{mobile}"}
        body = {"mobile": mobile, "name": "Asha"}
        signed_up = await http.post("/auth/signup", json=body, headers=key)
        reply = await signed_in(http, mobile)
        person = Person(http, signed_up.json()["user"]["id"], mobile, reply["token"])
        room = await person.room()
        message = await person.send(room, "Why?")

        deleted = await person.delete_account()
        assert deleted.status_code == 200
        assert deleted.json()["message"]
        for method, path in (
            ("GET", "/user/me"),
            ("DELETE", "/user/me"),
            ("GET", "/chatroom"),
            ("GET", f"/chatroom/{room}/message/{message}"),
            ("POST", "/auth/logout"),
        ):
            assert (await person.ask(method, path)).status_code == 401
        await refresh(http, reply["refreshToken"], 401)
        assert (await http.post("/auth/send-otp", json={"mobile": mobile})).json()["code"] == "user_not_found"
        assert (await stranger.ask("GET", f"/chatroom/{room}")).status_code == 404

        again = await http.post("/auth/signup", json=body, headers=key)
        assert again.status_code == 201
        assert "idempotency-replayed" not in again.headers, "nothing that was kept tells of the first"
        assert again.json()["user"]["id"] != person.id

    async def test_is_deleted_while_it_is_used(self, http: httpx.AsyncClient) -> None:
        person = await sign_up(http)
        room = await person.room()
        busy = [
            person.ask(*call)
            for _ in range(10)
            for call in (
                ("POST", "/chatroom", {"name": "Another"}),
                ("POST", f"/chatroom/{room}/message", {"input": "Why?"}),
                ("GET", "/user/me"),
                ("PATCH", "/user/me", {"name": "Another"}),
                ("DELETE", "/auth/sessions"),
            )
        ]
        busy.insert(20, person.delete_account())
        replies = await asyncio.gather(*busy)
        assert {reply.status_code for reply in replies} <= {200, 201, 202, 401, 403, 404}
        assert (await person.ask("GET", "/user/me")).status_code == 401
