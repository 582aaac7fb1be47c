"""Codes by Twilio's HTTP API. Only a deployment that uses it loads its client."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal
from urllib.parse import quote

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar

from adapters.otp_sender.senders import sms_text
from application.ports.accounts import OtpSender
from application.ports.runtime import Described, Fact
from domain.accounts import MobileNumber, OtpPurpose
from domain.errors import DomainError, Unavailable

_ERROR_BYTES = 65_536


class SmsRefused(Exception):
    """Twilio refused the message. `reason` is Twilio's error number, if it gave one."""

    def __init__(self, status: int, reason: int | None) -> None:
        super().__init__(f"Twilio answered {status}, error {reason}")
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class TwilioAccount:
    """`sender` is one of the account's numbers, or a messaging service (MG…)."""

    sid: str
    token: str = field(repr=False)
    sender: str
    channel: Literal["sms", "whatsapp"] = "sms"
    content: str = ""
    """A content template (HX…), which WhatsApp requires. Its variable 1 is the code."""
    message: str = ""
    api_base: str = ""


class TwilioOtpSender(OtpSender, Described):
    """By SMS or WhatsApp, through Twilio's HTTP API.

    There are no retries: after a timeout the message may be on its way, and each one costs money.
    """

    in_reply = False

    def __init__(self, account: TwilioAccount, *, seconds: float = 10) -> None:
        base = (account.api_base or "https://api.twilio.com").rstrip("/")
        self._account = account
        self._url = f"{base}/2010-04-01/Accounts/{quote(account.sid, safe='')}"
        self._headers = {"authorization": f"Basic {b64encode(f'{account.sid}:{account.token}'.encode()).decode()}"}
        self._prefix = "whatsapp:" if account.channel == "whatsapp" else ""
        self._from = (
            {"MessagingServiceSid": account.sender}
            if account.sender.startswith("MG")
            else {"From": f"{self._prefix}{account.sender}"}
        )
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
        form = {"To": f"{self._prefix}{mobile}", **self._from, **self._text(code, purpose)}
        # A redirect would carry number and code to another host.
        async with self._session.post(f"{self._url}/Messages.json", data=form, allow_redirects=False) as response:
            if response.status != HTTPStatus.CREATED:
                raise SmsRefused(response.status, await _reason(response))

    def _text(self, code: str, purpose: OtpPurpose) -> dict[str, str]:
        if self._account.content:
            return {"ContentSid": self._account.content, "ContentVariables": json.dumps({"1": code})}
        return {"Body": sms_text(code, purpose, self._account.message)}

    async def describe(self) -> list[Fact]:
        """Reads the account, which costs nothing."""
        assert self._session is not None, "start() comes first"
        try:
            async with self._session.get(f"{self._url}.json", allow_redirects=False) as response:
                if response.status != HTTPStatus.OK:
                    raise await _account_refused(response)
                status = json.loads(await response.content.read(_ERROR_BYTES)).get("status")
        except (ClientError, TimeoutError, ValueError, AttributeError):
            raise Unavailable("Twilio does not answer.") from None
        is_active = status == "active"
        return [
            Fact(
                "account", str(status), "" if is_active else "Twilio sends nothing for an account that is not active."
            ),
            Fact("channel", self._account.channel),
        ]


async def _account_refused(response: ClientResponse) -> DomainError:
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR or response.status == HTTPStatus.TOO_MANY_REQUESTS:
        return Unavailable(f"Twilio answered {response.status}.")
    reason = await _reason(response)
    return DomainError(
        f"Twilio does not accept TWILIO_ACCOUNT_SID with TWILIO_AUTH_TOKEN ({reason or response.status})."
    )


async def _reason(response: ClientResponse) -> int | None:
    """Twilio's error number. Its text is ignored, because it may contain the phone number."""
    try:
        code = json.loads(await response.content.read(_ERROR_BYTES))["code"]
    except (ValueError, TypeError, LookupError):
        return None
    return code if isinstance(code, int) else None
