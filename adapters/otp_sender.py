"""Delivery of one-time codes."""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import b64encode
from http import HTTPStatus
from urllib.parse import quote

import structlog
from aiohttp import ClientResponse, ClientSession, ClientTimeout, DummyCookieJar

from application.ports.accounts import OtpSender
from domain.accounts import MobileNumber, OtpPurpose

log = structlog.get_logger(__name__)

_LONGEST_SECONDS = 20.0
_ERROR_BYTES = 65_536


def _sms_text(code: str, purpose: OtpPurpose) -> str:
    use = "log in" if purpose is OtpPurpose.LOGIN else "set a new password"
    return f"{code} is your code to {use}. It is valid for 5 minutes. Do not share it."


class ReplyOtpSender(OtpSender):
    """Sends nothing: the code is returned in the reply."""

    in_reply = True

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, mobile: MobileNumber, code: str, purpose: OtpPurpose) -> None:
        return None


class ConsoleOtpSender(OtpSender):
    """For development: the code is written to the terminal, not to the log."""

    in_reply = False

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, mobile: MobileNumber, code: str, purpose: OtpPurpose) -> None:
        print(f"To {mobile}: {_sms_text(code, purpose)}", file=sys.stderr, flush=True)  # noqa: T201 - its purpose


class SmsRefused(Exception):
    """Twilio refused the message. `reason` is Twilio's error number, if it gave one."""

    def __init__(self, status: int, reason: int | None) -> None:
        super().__init__(f"Twilio answered {status}, error {reason}")
        self.status = status
        self.reason = reason


class TwilioOtpSender(OtpSender):
    """By SMS, through Twilio's HTTP API. `sender` is one of the account's numbers, or a messaging service (MG…).

    There are no retries: after a timeout the message may be on its way, and each one costs money.
    """

    in_reply = False

    def __init__(self, *, account: str, token: str, sender: str, api_base: str = "", seconds: float = 10) -> None:
        base = (api_base or "https://api.twilio.com").rstrip("/")
        self._url = f"{base}/2010-04-01/Accounts/{quote(account, safe='')}/Messages.json"
        self._headers = {"authorization": f"Basic {b64encode(f'{account}:{token}'.encode()).decode()}"}
        self._from = {"MessagingServiceSid" if sender.startswith("MG") else "From": sender}
        self._seconds = seconds
        self._session: ClientSession | None = None

    async def start(self) -> None:
        # By default the session ignores the environment's proxy settings.
        self._session = ClientSession(
            headers=self._headers, timeout=ClientTimeout(total=self._seconds), cookie_jar=DummyCookieJar()
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, mobile: MobileNumber, code: str, purpose: OtpPurpose) -> None:
        assert self._session is not None, "start() comes first"
        form = {"To": mobile, **self._from, "Body": _sms_text(code, purpose)}
        # A redirect would carry number and code to another host.
        async with self._session.post(self._url, data=form, allow_redirects=False) as response:
            if response.status != HTTPStatus.CREATED:
                raise SmsRefused(response.status, await _reason(response))


async def _reason(response: ClientResponse) -> int | None:
    """Twilio's error number. Its text is ignored, because it may contain the phone number."""
    try:
        code = json.loads(await response.content.read(_ERROR_BYTES))["code"]
    except (ValueError, TypeError, LookupError):
        return None
    return code if isinstance(code, int) else None


class InBackground(OtpSender):
    """Sends after the reply, so that neither the time it takes nor a failure reveals whether the number is known.

    Closing waits for pending messages. If the process dies, the user requests another code.
    """

    in_reply = False

    def __init__(self, sender: OtpSender) -> None:
        self._sender = sender
        self._sending: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await self._sender.start()

    async def close(self) -> None:
        if self._sending:
            await asyncio.wait(self._sending, timeout=5)
        await self._sender.close()

    async def send(self, mobile: MobileNumber, code: str, purpose: OtpPurpose) -> None:
        task = asyncio.create_task(self._send(mobile, code, purpose))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, mobile: MobileNumber, code: str, purpose: OtpPurpose) -> None:
        try:
            async with asyncio.timeout(_LONGEST_SECONDS):
                await self._sender.send(mobile, code, purpose)
        except Exception as error:  # noqa: BLE001 - of any kind; it is logged without its text
            status, reason = getattr(error, "status", None), getattr(error, "reason", None)
            reason = reason if isinstance(reason, int) else None  # other errors' texts may contain the phone number
            log.error("code_not_sent", error=type(error).__name__, status=status, reason=reason)
