"""A visitor of the page: what they do, and what must never happen meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Request, Response, expect

from tests.support.gemini_standin import GeminiStandIn
from tests.support.patience import HANG
from tests.support.stripe_standin import StripeStandIn

_numbers = itertools.count()
_SECONDS = 15_000.0  # milliseconds; bounds a hang


@dataclass(frozen=True)
class Site:
    url: str
    gemini: GeminiStandIn
    stripe: StripeStandIn
    data: Path

    def kill_api(self) -> None:
        """Kills only the API's process; its supervisor starts it again."""
        ours = f"DATA_DIR={self.data}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (process / "cmdline").read_bytes().split(b"\0")
                if b"serve" in command and ours in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)


@dataclass(frozen=True)
class Screen:
    name: str
    width: int
    height: int
    is_phone: bool
    is_dark: bool


DESKTOP = Screen("desktop-light", 1280, 800, is_phone=False, is_dark=False)
DESKTOP_DARK = Screen("desktop-dark", 1280, 800, is_phone=False, is_dark=True)
PHONE = Screen("phone-light", 390, 844, is_phone=True, is_dark=False)
PHONE_DARK = Screen("phone-dark", 390, 844, is_phone=True, is_dark=True)


class Visitor:
    def __init__(self, site: Site, context: BrowserContext, page: Page, screen: Screen, axe: str) -> None:
        self.site = site
        self.context = context
        self.page = page
        self.screen = screen
        self.mobile = f"98765{next(_numbers):05d}"
        self._axe = axe
        self._wrong: list[str] = []
        self._allowed: list[re.Pattern[str]] = []
        self.hosts: set[str] = set()
        """The hosts that the browser has contacted."""

    @classmethod
    async def come(cls, site: Site, browser: Browser, screen: Screen, axe: str) -> Visitor:
        context = await browser.new_context(
            viewport={"width": screen.width, "height": screen.height},
            has_touch=screen.is_phone,
            is_mobile=screen.is_phone,
            color_scheme="dark" if screen.is_dark else "light",
            locale="en-GB",
            timezone_id="Asia/Kolkata",
        )
        context.set_default_timeout(_SECONDS)
        expect.set_options(timeout=_SECONDS)
        visitor = cls(site, context, await context.new_page(), screen, axe)
        context.on("page", visitor._watch)
        visitor._watch(visitor.page)
        await visitor.page.goto(site.url)
        return visitor

    async def another_tab(self) -> Visitor:
        """Another tab of the same browser, which shares the cookies."""
        page = await self.context.new_page()
        tab = Visitor(self.site, self.context, page, self.screen, self._axe)
        tab._wrong, tab._allowed, tab.mobile = self._wrong, self._allowed, self.mobile
        await page.goto(self.page.url)
        return tab

    async def leave(self) -> None:
        await self.context.close()
        assert not self._wrong, "\n".join(self._wrong)

    # --- what must not happen

    def _watch(self, page: Page) -> None:
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self._note(f"error: {error.message}\n{error.stack}"))
        page.on("requestfailed", self._on_failure)
        page.on("response", self._on_response)
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2] if "//" in request.url else ""))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.location["url"].startswith(self.site.stripe.url):
            self._note(f"console: {message.text} at {message.location['url']}")

    def _on_failure(self, request: Request) -> None:
        # The browser reports these on a reload and, in Chromium, for each stream that was read to its end.
        if request.failure == "net::ERR_ABORTED":
            return
        self._note(f"failed: {request.method} {request.url} {request.failure}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 400 and response.url.startswith(self.site.url):
            self._note(f"status: {response.status} {response.request.method} {response.url}")

    def _note(self, text: str) -> None:
        if not any(pattern.search(text) for pattern in self._allowed):
            self._wrong.append(text)

    @asynccontextmanager
    async def allowing(self, *patterns: str) -> AsyncIterator[None]:
        """Inside the block, errors that match one of these are expected."""
        added = [re.compile(pattern) for pattern in patterns]
        self._allowed += added
        try:
            yield
            await self.page.wait_for_timeout(50)  # the browser reports it a moment later
        finally:
            for pattern in added:
                self._allowed.remove(pattern)

    async def accessible(self) -> None:
        """Asserts that axe finds no accessibility errors on the page."""
        await self.page.evaluate(
            "Promise.all(document.getAnimations().filter(one =>"
            " one.effect.getTiming().iterations !== Infinity).map(one => one.finished.catch(() => null)))"
        )
        if not await self.page.evaluate("'axe' in window"):
            await self.page.evaluate(self._axe)
        found: list[dict[str, Any]] = (await self.page.evaluate("axe.run(document)"))["violations"]
        assert not found, "\n".join(
            f"{one['id']}: {one['help']}\n" + "\n".join(f"    {node['html']}" for node in one["nodes"]) for one in found
        )

    # --- what they do

    def button(self, name: str, *, exact: bool = False) -> Locator:
        return self.page.get_by_role("button", name=name, exact=exact)

    def text(self, text: str) -> Locator:
        return self.page.get_by_text(text).first

    async def sees(self, text: str) -> None:
        await expect(self.text(text)).to_be_visible()

    async def sign_up(self, name: str = "Asha Rao", *, checking: bool = False) -> None:
        await self.button("Create an account").click()
        await self.page.get_by_label("Your name").fill(name)
        await self.page.get_by_label("Mobile number").fill(self.mobile)
        if checking:
            await self.accessible()
        await self.button("Create account").click()
        await self._enter_code(checking=checking)

    async def sign_in(self) -> None:
        await self.page.get_by_label("Mobile number").fill(self.mobile)
        await self.button("Send me a code").click()
        await self._enter_code()

    async def _enter_code(self, *, checking: bool = False) -> None:
        await self.button("Fill in").click()
        if checking:
            await self.accessible()
        await self.button("Sign in", exact=True).click()
        await expect(self.page.get_by_label("Your message")).to_be_visible()

    async def write(self, text: str) -> None:
        await self.page.get_by_label("Your message").fill(text)
        await self.button("Send", exact=True).click()

    async def ask(self, text: str) -> str:
        """The reply, after it has ended."""
        await self.write(text)
        return await self.reply_to(text)

    def entry(self, text: str) -> Locator:
        """The entry of a message; the newest if there are several."""
        return self.page.locator(".entry", has=self.page.locator(".bubble", has_text=text)).last

    async def reply_to(self, text: str) -> str:
        entry = self.entry(text)
        await expect(entry).to_have_attribute("data-status", re.compile("completed|failed|cancelled|blocked"))
        markdown = entry.locator(".markdown")
        return await markdown.inner_text() if await markdown.count() else ""

    async def token(self) -> str:
        """An access token of another session of the same user."""
        code = (await self.api("POST", "/auth/send-otp", body={"mobile": self.mobile}))["otp"]
        signed_in = await self.api("POST", "/auth/verify-otp", body={"mobile": self.mobile, "otp": code})
        return str(signed_in["token"])

    async def api(
        self, method: str, path: str, token: str = "", body: Any = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """A request from another device of the same user."""
        headers = {**(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        async with httpx.AsyncClient(base_url=self.site.url, timeout=HANG, trust_env=False) as client:
            response = await client.request(method, path, json=body, headers=headers)
        assert response.status_code < 400, response.text
        reply: dict[str, Any] = response.json()
        return reply

    async def subscribe(self) -> str:
        """The id of the checkout that upgraded the user."""
        token = await self.token()
        url = (await self.api("POST", "/subscribe/pro", token, {}))["url"]
        session = url.rpartition("/")[2]
        self.site.stripe.pay(session)
        give_up = time.monotonic() + 20
        while (await self.api("GET", "/subscription/status", token))["data"]["tier"] != "Pro":
            assert time.monotonic() < give_up, "still Basic"
            await asyncio.sleep(0.05)
        await self.page.reload()
        await expect(self.page.get_by_label("Your message")).to_be_visible()
        return str(session)

    async def open_chats(self) -> None:
        """On a phone a button opens the list of chatrooms."""
        await expect(self.page.get_by_label("Your message")).to_be_visible()
        show = self.button("Show the list of chatrooms")
        if await show.is_visible() and await show.get_attribute("aria-expanded") == "false":
            await show.click()

    async def open_account(self) -> None:
        await self.open_chats()
        await self.button("Account of").click()

    async def close_dialog(self) -> None:
        await self.button("Close", exact=True).click()
        await expect(self.page.get_by_role("dialog")).to_have_count(0)

    async def close_chats(self) -> None:
        close = self.button("Close the list of chatrooms")
        if await close.is_visible():
            await close.click()
