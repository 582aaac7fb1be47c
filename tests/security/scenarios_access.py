"""Access: every route against everyone who must not get in."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt

from adapters.memory.runtime import MemoryClock
from adapters.security import JwtAccessTokens
from domain.accounts import Device, Session
from domain.ids import SessionId, UserId
from entrypoints.http.server.app import create_app
from entrypoints.settings import Settings
from tests.security import raw
from tests.security.stage import Account, Stage, http_client
from tests.support.scenarios import Row, Scale
from tests.support.tampering import tampered

Route = tuple[str, str]

#: Routes that need no authentication.
OPEN: set[Route] = {
    ("GET", "/"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/assets/{name}"),
    ("POST", "/webhook/stripe"),
    ("POST", "/auth/signup"),
    ("POST", "/auth/send-otp"),
    ("POST", "/auth/verify-otp"),
    ("POST", "/auth/login"),
    ("POST", "/auth/refresh"),
    ("POST", "/auth/forgot-password"),
    ("POST", "/auth/reset-password"),
}


@dataclass(frozen=True)
class Call:
    """A request to a protected route, and the statuses that its owner may get."""

    body: dict[str, Any] | None = None
    succeeds: tuple[int, ...] = (200,)


ROOM, MESSAGE = "/chatroom/{chatroom_id}", "/chatroom/{chatroom_id}/message/{message_id}"
PROTECTED: dict[Route, Call] = {
    ("POST", "/auth/logout"): Call(),
    ("GET", "/auth/sessions"): Call(),
    ("DELETE", "/auth/sessions"): Call(),
    ("DELETE", "/auth/sessions/{session_id}"): Call(),
    ("POST", "/auth/change-password"): Call({"currentPassword": "a wrong one", "newPassword": "another one"}, (400,)),
    ("GET", "/user/me"): Call(),
    ("PATCH", "/user/me"): Call({"name": "Ann"}),
    ("DELETE", "/user/me"): Call(None, (403,)),  # without a proof
    ("POST", "/chatroom"): Call({"name": "Another"}, (201,)),
    ("GET", "/chatroom"): Call(),
    ("GET", ROOM): Call(),
    ("PATCH", ROOM): Call({"name": "Mine"}),
    ("DELETE", ROOM): Call(),
    ("POST", f"{ROOM}/message"): Call({"input": "Hello"}, (202,)),
    ("GET", f"{ROOM}/message"): Call(),
    ("GET", MESSAGE): Call(),
    ("GET", f"{MESSAGE}/stream"): Call(),
    ("POST", f"{MESSAGE}/cancel"): Call(None, (409,)),  # it has ended
    ("POST", f"{MESSAGE}/continue"): Call(None, (409,)),  # it was not cut
    ("POST", f"{MESSAGE}/regenerate"): Call(None, (202,)),
    ("POST", "/subscribe/pro"): Call({}, (503,)),  # payments are not configured here
    ("POST", "/subscription/portal"): Call(None, (409, 503)),
    ("GET", "/subscription/status"): Call(),
}
#: They end what other calls need, so they come last.
_LAST = [
    ("POST", "/auth/logout"),
    ("DELETE", "/auth/sessions"),
    ("DELETE", "/auth/sessions/{session_id}"),
    ("DELETE", ROOM),
    ("DELETE", "/user/me"),
]


def routes(environment: dict[str, str]) -> set[Route]:
    """All routes of the application, without HEAD."""
    app = create_app(Settings.from_environment(environment), name=f"routes-{uuid4().hex}")
    return {
        (method, "/" + re.sub(r"<(\w+)(?::\w+)?>", r"{\1}", route.path))
        for route in app.router.routes
        for method in route.methods
        if method != "HEAD"
    }


def seen(response: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    """All that a caller can see of an answer, except what differs by nature."""
    request_id = response.headers.get("x-request-id", "")
    headers = {name: value for name, value in response.headers.items() if name != "x-request-id"}
    body = response.content.replace(request_id.encode(), b"")
    return response.status_code, headers, re.sub(rb'"instance":"[^"]*"', b"", body)


async def authorisation(stage: Stage, scale: Scale, seed: int) -> Row:
    """Every protected route as its owner, another user, nobody, with an expired token, and as a deleted user."""
    served = routes(stage.world.environment)
    missing = served - OPEN - PROTECTED.keys()
    gone = PROTECTED.keys() - served
    wrong = [f"not in the matrix: {route}" for route in sorted(missing)] + [f"no route: {route}" for route in gone]
    checks = 0
    async with http_client(stage.url) as http:
        for route in sorted(PROTECTED, key=lambda route: (route in _LAST, _LAST.index(route) if route in _LAST else 0)):
            found, count = await _try_route(stage, http, route)
            wrong += found
            checks += count
    measured = f"{len(PROTECTED)} protected routes, {checks} checks, wrong: {wrong or 'none'}"
    return Row("authorisation matrix", "every route is in it; another's is absent, to the byte", measured, not wrong)


async def _try_route(stage: Stage, http: httpx.AsyncClient, route: Route) -> tuple[list[str], int]:
    method, path = route
    call, wrong, checks = PROTECTED[route], [], 0
    owner, other, deleted = [await stage.sign_up(http) for _ in range(3)]
    mine, theirs = await _ids(stage, http, owner), await _ids(stage, http, other)
    proof = {"otp": await stage.code(http, "/auth/send-otp", deleted.mobile)}
    assert (await http.request("DELETE", "/user/me", json=proof, headers=deleted.headers)).status_code == 200

    async def ask(ids: dict[str, str], headers: dict[str, str], method: str = method) -> httpx.Response:
        return await http.request(method, path.format(**ids), json=call.body, headers=headers)

    def check(who: str, ok: bool, response: httpx.Response) -> None:
        nonlocal checks
        checks += 1
        if not ok:
            wrong.append(f"{method} {path}, {who}: {response.status_code} {response.text[:200]}")

    before = await _picture(http, owner, mine)
    strangers = {
        "nobody": ({}, "token_missing"),
        "an expired token": ({"Authorization": f"Bearer {expired(stage, owner)}"}, "token_expired"),
        "a deleted user": (deleted.headers, "token_invalid"),
    }
    for who, (headers, code) in strangers.items():
        response = await ask(mine, headers)
        check(who, response.status_code == 401 and response.json()["code"] == code, response)
        if method == "GET":
            response = await ask(mine, headers, "HEAD")
            check(f"{who}, HEAD", (response.status_code, response.content) == (401, b""), response)
    named = re.findall(r"\{(\w+)\}", path)
    if named:
        absent = {name: str(uuid4()) for name in mine}
        expected = seen(await ask(absent, other.headers))
        attempts = {"another's": mine}
        if len(named) == 2:
            attempts["another's message in one's own room"] = {**theirs, "message_id": mine["message_id"]}
            attempts["one's own message in another's room"] = {**mine, "message_id": theirs["message_id"]}
            attempts["no message in one's own room"] = {**theirs, "message_id": str(uuid4())}
        for what, ids in attempts.items():
            response = await ask(ids, other.headers)
            check(what, response.status_code == 404 and seen(response) == expected, response)
    after = await _picture(http, owner, mine)
    checks += 1
    if before != after:
        wrong.append(f"{method} {path}: strangers changed what the owner has")
    response = await ask(mine, owner.headers)
    check("the owner", response.status_code in call.succeeds, response)
    return wrong, checks


async def _ids(stage: Stage, http: httpx.AsyncClient, account: Account) -> dict[str, str]:
    """The ids of a user's objects, by their names in paths."""
    room = await stage.room(http, account)
    message = await stage.message(http, account, room)
    sessions = (await http.get("/auth/sessions", headers=account.headers)).json()["data"]
    return {"chatroom_id": room, "message_id": message, "session_id": sessions[0]["id"]}


async def _picture(http: httpx.AsyncClient, owner: Account, ids: dict[str, str]) -> list[Any]:
    """Everything that the owner has."""
    paths = ["/user/me", "/auth/sessions", "/chatroom", ROOM.format(**ids), MESSAGE.format(**ids)]
    return [(await http.get(path, headers=owner.headers)).json() for path in paths]


def expired(stage: Stage, account: Account) -> str:
    """A token that the service issued, expired an hour ago."""
    claims = jwt.decode(account.token, options={"verify_signature": False})
    clock = MemoryClock(datetime.now(UTC) - timedelta(hours=3))
    tokens = JwtAccessTokens(secrets=[stage.world.environment["ACCESS_TOKEN_SECRET"]], lifetime_seconds=60, clock=clock)
    ids = SessionId(UUID(claims["sid"])), UserId(UUID(claims["sub"]))
    return tokens.issue(Session.begin(*ids, Device(), clock.now())).token


async def tampering(stage: Stage, scale: Scale, seed: int) -> Row:
    """Every forged token at every protected route; in the small run each token at two, and each route with ten."""
    rng = random.Random(seed)
    accepted, failed, asked = [], [], 0
    async with http_client(stage.url) as http:
        owner = await stage.sign_up(http)
        ids = await _ids(stage, http, owner)
        # Sent as bytes, because no library would send some of them.
        tokens = {
            name: token.encode(errors="surrogatepass")
            for name, token in tampered(owner.token, stage.world.environment["ACCESS_TOKEN_SECRET"])
        }
        pairs = [(route, name) for route in PROTECTED for name in tokens]
        if not scale.long:
            pairs = [(route, name) for name in tokens for route in rng.sample(list(PROTECTED), 2)]
            pairs += [(route, name) for route in PROTECTED for name in rng.sample(list(tokens), 10)]

        async def attack(route: Route, name: str) -> None:
            nonlocal asked
            method, path = route
            body = json.dumps(PROTECTED[route].body).encode() if PROTECTED[route].body is not None else b""
            headers = [("Authorization", b"Bearer " + tokens[name])]
            answer = await raw.send(stage.url, raw.request(method, path.format(**ids), headers, body))
            asked += 1
            if answer.status >= 500:
                failed.append(f"{method} {path}, {name}: {answer.status}")
            elif answer.status not in (400, 401, 431) or answer.problem is None:
                accepted.append(f"{method} {path}, {name}: {answer.status}")

        await _at_once(16, [lambda route=route, name=name: attack(route, name) for route, name in pairs])  # type: ignore[misc]
        still_good = (await http.get("/user/me", headers=owner.headers)).status_code == 200
    measured = (
        f"{len(tokens)} tokens, {asked} requests, accepted: {accepted[:5] or 0}, 5xx: {failed[:5] or 0},"
        f" the untouched token {'is still good' if still_good else 'is refused too'}"
    )
    held = not accepted and not failed and still_good and len(tokens) >= 60
    return Row("token tampering", "≥ 60 cases at every protected route: 0 accepted, 0 5xx", measured, held)


async def _at_once(most: int, jobs: list[Callable[[], Awaitable[None]]]) -> None:
    turns = iter(jobs)

    async def work() -> None:
        for job in turns:
            await job()

    async with asyncio.TaskGroup() as group:
        for _ in range(most):
            group.create_task(work())


async def revocation(stage: Stage, scale: Scale, seed: int) -> Row:
    """What ends a session ends it at every process at once, without Redis."""
    first, second = [http_client(url) for url in stage.world.urls]
    slowest, wrong = 0.0, []
    async with first, second:
        people = [await stage.sign_up(first, password=f"correct horse {n} battery") for n in range(4)]
        old = {account.id: account.headers for account in people}
        for account in people[1:3]:  # the change ends their other sessions, not this one
            await stage.sign_in(second, account)
        reset_code = await stage.code(first, "/auth/forgot-password", people[2].mobile)
        await asyncio.to_thread(stage.world.valkey.kill)
        try:
            endings: list[tuple[Account, str, str, Any]] = [
                (people[0], "POST", "/auth/logout", None),
                (
                    people[1],
                    "POST",
                    "/auth/change-password",
                    {"currentPassword": people[1].password, "newPassword": "staple staple staple"},
                ),
                (
                    people[2],
                    "POST",
                    "/auth/reset-password",
                    {"mobile": people[2].mobile, "otp": reset_code, "newPassword": "staple staple staple"},
                ),
                (people[3], "DELETE", "/user/me", {"currentPassword": people[3].password}),
            ]
            for account, method, path, body in endings:
                for http in (first, second):  # so that each may have cached something
                    assert (await http.get("/user/me", headers=old[account.id])).status_code == 200
                ended = await first.request(method, path, json=body, headers=account.headers)
                if not ended.is_success:
                    wrong.append(f"{path}: {ended.status_code} {ended.text}")
                began = time.monotonic()
                for http in (first, second):
                    while (await http.get("/user/me", headers=old[account.id])).status_code != 401:
                        if time.monotonic() - began > scale.bound(5):
                            wrong.append(f"{path}: the old token is still good")
                            break
                slowest = max(slowest, time.monotonic() - began)
        finally:
            await asyncio.to_thread(stage.world.valkey.start)
    measured = f"at both processes after {slowest * 1000:.0f} ms at most, wrong: {wrong or 'none'}"
    return Row(
        "logout, password change and reset, deletion; Redis dead",
        "the old access token is refused at both processes within 1 s",
        measured,
        not wrong and slowest < scale.bound(1),
    )
