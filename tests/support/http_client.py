"""People who use the API: each has signed up with a new number and is logged in."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.openapi_check import Document
from tests.support.patience import HANG

FINAL = ("completed", "failed", "cancelled", "blocked")

_numbers = itertools.count()


def new_mobile() -> str:
    """A valid Indian mobile number that is unused in this run, without its country code."""
    return f"9876{next(_numbers):06d}"


@asynccontextmanager
async def http_client(url: str, *, verify: ssl.SSLContext | bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """A client that checks every JSON reply against the service's OpenAPI document."""
    async with httpx.AsyncClient(base_url=url, timeout=HANG, trust_env=False, verify=verify) as client:
        document = Document((await client.get("/openapi.json")).json())

        async def check(response: httpx.Response) -> None:
            await response.aread()
            document.check(response)

        client.event_hooks["response"].append(check)
        yield client


@dataclass(frozen=True)
class Person:
    http: httpx.AsyncClient
    id: str
    mobile: str
    token: str

    def at(self, http: httpx.AsyncClient) -> Person:
        """The same person, talking to another server."""
        return Person(http, self.id, self.mobile, self.token)

    async def ask(self, method: str, path: str, json: Any = None, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}", **more.pop("headers", {})}
        return await self.http.request(method, path, json=json, headers=headers, **more)

    async def get(self, path: str) -> dict[str, Any]:
        """The body of the reply, which must be a 200."""
        response = await self.ask("GET", path)
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    async def room(self, name: str = "A room") -> str:
        """The id of a new room."""
        response = await self.ask("POST", "/chatroom/", {"name": name})
        assert response.status_code == 201, response.text
        return str(response.json()["data"]["id"])

    async def send(self, room: str, input: str) -> str:
        """The id of the accepted message."""
        response = await self.ask("POST", f"/chatroom/{room}/message", {"input": input})
        assert response.status_code == 202, response.text
        return str(response.json()["data"]["id"])

    async def message(self, room: str, message: str) -> dict[str, Any]:
        data: dict[str, Any] = (await self.get(f"/chatroom/{room}/message/{message}"))["data"]
        return data

    async def reply(self, room: str, message: str, *, seconds: float = HANG) -> dict[str, Any]:
        """The message once it has ended, with any status; `seconds` bounds a hang."""
        return await self.until(room, message, FINAL, seconds=seconds)

    async def until(self, room: str, message: str, states: tuple[str, ...], *, seconds: float = HANG) -> dict[str, Any]:
        give_up = time.monotonic() + seconds
        while (found := await self.message(room, message))["status"] not in states:
            assert time.monotonic() < give_up, f"still {found['status']} after {seconds} s"
            await asyncio.sleep(0.02)
        return found

    async def delete_account(self, **more: Any) -> httpx.Response:
        """With a code as the proof."""
        sent = await self.http.post("/auth/send-otp", json={"mobile": self.mobile})
        return await self.ask("DELETE", "/user/me", {"otp": sent.json().get("otp", "000000")}, **more)

    async def remaining(self) -> int:
        remaining = (await self.get("/user/me"))["data"]["usage"]["remaining"]
        assert isinstance(remaining, int)
        return remaining


async def sign_up(http: httpx.AsyncClient, name: str = "Asha") -> Person:
    """A new user, logged in with a code."""
    mobile = new_mobile()
    user = await _post(http, "/auth/signup", {"mobile": mobile, "name": name}, 201)
    return await log_in(http, mobile, user["user"]["id"])


async def log_in(http: httpx.AsyncClient, mobile: str, user_id: str) -> Person:
    code = await _post(http, "/auth/send-otp", {"mobile": mobile}, 200)
    signed_in = await _post(http, "/auth/verify-otp", {"mobile": mobile, "otp": code["otp"]}, 200)
    return Person(http, user_id, mobile, signed_in["token"])


async def _post(http: httpx.AsyncClient, path: str, body: dict[str, str], status: int) -> dict[str, Any]:
    response = await http.post(path, json=body)
    assert response.status_code == status, response.text
    reply: dict[str, Any] = response.json()
    return reply
