"""Where the scenarios run: two API processes and a worker on new servers, and people with accounts there.

Rate limits are off except in the scenarios about them, which start separate processes. Logs are at debug level, and at
the end they are searched for everything that was registered here as a secret.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.chaos.world import World, world
from tests.support.patience import PROCESS_HANG
from tests.support.ports import free_port
from tests.support.processes import ProductProcess, wait_for_api

_numbers = itertools.count()


@dataclass
class Account:
    """A user who has signed up and logged in, over HTTP."""

    id: str
    mobile: str
    token: str
    refresh_token: str
    password: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass
class Stage:
    world: World
    secrets: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        return self.world.urls[0]

    def keep(self, *values: str) -> None:
        """Register secrets that must not turn up anywhere they do not belong."""
        self.secrets.update(values)

    def new_mobile(self) -> str:
        """An unused number in E.164 form."""
        mobile = f"+9197{secrets.randbelow(1000):03d}{next(_numbers):05d}"
        self.keep(mobile, mobile.removeprefix("+91"))
        return mobile

    async def code(self, http: httpx.AsyncClient, path: str, mobile: str) -> str:
        """The one-time code in the reply."""
        code = str((await _ask(http, "POST", path, {"mobile": mobile}))["otp"])
        self.keep(code)
        return code

    async def sign_up(self, http: httpx.AsyncClient, *, password: str = "") -> Account:
        mobile = self.new_mobile()
        user = (await _ask(http, "POST", "/auth/signup", {"mobile": mobile, "name": "Asha"}))["user"]
        account = Account(user["id"], mobile, "", "")
        await self.sign_in(http, account)
        if password:
            body = {"otp": await self.code(http, "/auth/forgot-password", mobile), "newPassword": password}
            await _ask(http, "POST", "/auth/change-password", body, account.headers)
            account.password = password
            self.keep(password)
        return account

    async def sign_in(self, http: httpx.AsyncClient, account: Account) -> Account:
        """Log in with a code, in a new session."""
        code = await self.code(http, "/auth/send-otp", account.mobile)
        reply = await _ask(http, "POST", "/auth/verify-otp", {"mobile": account.mobile, "otp": code})
        account.token, account.refresh_token = reply["token"], reply["refreshToken"]
        self.keep(account.token, account.token.rsplit(".", 1)[1], account.refresh_token)
        return account

    async def room(self, http: httpx.AsyncClient, account: Account) -> str:
        return str((await _ask(http, "POST", "/chatroom", {"name": "A room"}, account.headers))["data"]["id"])

    async def message(self, http: httpx.AsyncClient, account: Account, room: str, *, ended: bool = True) -> str:
        """The id of a message that has been answered, or of one that is waiting for its answer."""
        body = {"input": "Hello"}
        path = f"/chatroom/{room}/message"
        message = (await _ask(http, "POST", path, body, account.headers))["data"]["id"]
        while ended:
            found = await _ask(http, "GET", f"{path}/{message}", None, {**account.headers, "Prefer": "wait=20"})
            ended = found["data"]["completedAt"] is None
        return str(message)

    @asynccontextmanager
    async def api(
        self, settings: Mapping[str, str] | None = None, *, quiet: bool = False
    ) -> AsyncIterator[httpx.AsyncClient]:
        """Another API process, with other settings. With `quiet` its output is thrown away."""
        port = free_port()
        url, log = f"http://127.0.0.1:{port}", None if quiet else self.world.folder / f"api-{port}.log"
        process = ProductProcess("serve", {**self.world.environment, **(settings or {})}, "--port", str(port), log=log)
        try:
            await asyncio.to_thread(wait_for_api, url, process.process, seconds=60)
            async with http_client(url) as http:
                http.headers["x-test-pid"] = str(process.process.pid)
                yield http
        finally:
            process.kill()


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    settings = {"FREE_DAILY_MESSAGES": "1000000", "LOG_LEVEL": "debug", "STREAM_SECONDS": "5"}
    async with world(apis=2, workers=1, **settings) as made:
        yield Stage(made)


def http_client(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
    return httpx.AsyncClient(base_url=url, timeout=PROCESS_HANG, trust_env=False, limits=limits)


async def _ask(
    http: httpx.AsyncClient, method: str, path: str, body: object, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    response = await http.request(method, path, json=body, headers=headers)
    assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
    reply: dict[str, Any] = response.json()
    return reply
