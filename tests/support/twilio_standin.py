"""Twilio as its client sees it: an account and its messages, with Twilio's checks and error bodies."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from aiohttp import web

ACCOUNT, TOKEN = "AC0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
SENDER, SERVICE = "+15005550006", "MG0123456789abcdef0123456789abcdef"
CONTENT = "HX0123456789abcdef0123456789abcdef"
_BASIC = "Basic " + b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()
_INVALID_TO = 21211


@dataclass
class TwilioStandIn:
    """What was received, and what goes wrong: `fault` is a status, or "hang", or "cut".

    `body` replaces the body of a fault, `location` is where a redirect points.
    """

    url: str = ""
    fault: int | str | None = None
    body: str | None = None
    location: str = ""
    status: str = "active"
    sent: list[dict[str, str]] = field(default_factory=list)
    asked: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def read_account(self, request: web.Request) -> web.Response:
        if refusal := await self._refusal(request):
            return refusal
        return web.json_response({"sid": ACCOUNT, "status": self.status, "type": "Full"})

    async def _refusal(self, request: web.Request) -> web.Response | None:
        self.asked += 1
        if self.fault == "hang":
            await self.released.wait()
        if self.fault == "cut":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if request.headers.get("authorization") != _BASIC:
            return _error(401, 20003, "Authenticate")
        if request.match_info["account"] != ACCOUNT:
            return _error(404, 20404, "The requested resource was not found")
        if isinstance(self.fault, int):
            if self.body is not None:
                return web.Response(status=self.fault, text=self.body)
            if self.location:
                return web.Response(status=self.fault, headers={"location": self.location})
            return _error(self.fault, {429: 20429, 500: 20500, 503: 20503}.get(self.fault, self.fault), "As configured")
        return None

    async def create_message(self, request: web.Request) -> web.Response:
        if refusal := await self._refusal(request):
            return refusal
        form = {name: str(value) for name, value in (await request.post()).items()}
        if not form.get("To"):
            return _error(400, 21604, "A 'To' is required.")
        by_whatsapp = form["To"].startswith("whatsapp:")
        if not form.get("ContentSid" if by_whatsapp else "Body"):
            return _error(400, 63016 if by_whatsapp else 21602, "A 'Body' or a template is required.")
        number = form["To"].removeprefix("whatsapp:")
        if not number.startswith("+") or number == "+15005550001":  # Twilio's own number for this
            return _error(400, _INVALID_TO, f"Invalid 'To' Phone Number: {form['To']}")
        sender = f"whatsapp:{SENDER}" if by_whatsapp else SENDER
        if form.get("From") != sender and form.get("MessagingServiceSid") != SERVICE:
            return _error(400, 21603, "A 'From' or 'MessagingServiceSid' parameter is required.")
        self.sent.append(form)
        message: dict[str, object] = {
            "sid": f"SM{uuid4().hex}",
            "account_sid": ACCOUNT,
            "to": form["To"],
            "from": form.get("From"),
            "messaging_service_sid": form.get("MessagingServiceSid"),
            "body": form.get("Body", ""),
            "status": "queued",
            "direction": "outbound-api",
            "num_segments": "1",
            "num_media": "0",
            "price": None,
            "price_unit": "USD",
            "error_code": None,
            "error_message": None,
            "api_version": "2010-04-01",
            "date_created": "Sat, 31 Jan 2026 09:30:00 +0000",
            "date_updated": "Sat, 31 Jan 2026 09:30:00 +0000",
            "date_sent": None,
            "uri": f"/2010-04-01/Accounts/{ACCOUNT}/Messages/SM.json",
            "subresource_uris": {},
        }
        return web.json_response(message, status=201)


def _error(status: int, code: int, message: str) -> web.Response:
    more_info = f"https://www.twilio.com/docs/errors/{code}"
    body = {"code": code, "message": message, "more_info": more_info, "status": status}
    return web.json_response(body, status=status)


@asynccontextmanager
async def twilio_standin() -> AsyncIterator[TwilioStandIn]:
    standin = TwilioStandIn()
    app = web.Application()
    app.router.add_post("/2010-04-01/Accounts/{account}/Messages.json", standin.create_message)
    app.router.add_get("/2010-04-01/Accounts/{account}.json", standin.read_account)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    standin.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield standin
    finally:
        standin.released.set()
        await runner.cleanup()
