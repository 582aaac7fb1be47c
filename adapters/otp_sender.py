"""Ways for a one-time code to reach its owner."""

from __future__ import annotations

import asyncio
import sys
from base64 import b64encode
from typing import Any

import structlog

from application.ports.accounts import OtpSender
from domain.accounts import MobileNumber, OtpPurpose

log = structlog.get_logger(__name__)

_LONGEST_SECONDS = 20.0


def _words(code: str, purpose: OtpPurpose) -> str:
    use = "log in" if purpose is OtpPurpose.LOGIN else "set a new password"
    return f"{code} is your code to {use}. It is valid for 5 minutes. Give it to nobody."


class ReplyOtpSender(OtpSender):
    """The contract's mocked SMS: the code goes back in the reply, and nowhere else."""

    in_reply = True

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, mobile: MobileNumber, code: str, purpose: OtpPurpose) -> None:
        return None


class ConsoleOtpSender(OtpSender):
    """For development: the code is written to the terminal, past the log."""

    in_reply = False

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, mobile: MobileNumber, code: str, purpose: OtpPurpose) -> None:
        print(f"To {mobile}: {_words(code, purpose)}", file=sys.stderr, flush=True)  # noqa: T201 - its very purpose


class _BasicAuth:
    """Where the client asks for its Authorization header. The way it makes one itself is deprecated in aiohttp."""

    def __init__(self, account: str, token: str) -> None:
        self._header = f"Basic {b64encode(f'{account}:{token}'.encode()).decode()}"

    def to_auth_strategy(self) -> _BasicAuth:
        return self

    def get_auth_string(self) -> str:
        return self._header


class TwilioOtpSender(OtpSender):
    """By SMS. `sender` is a number of the account's, or a messaging service (MG…)."""

    in_reply = False

    def __init__(self, *, account: str, token: str, sender: str, api_base: str = "", seconds: float = 10) -> None:
        self._account = account
        self._token = token
        self._sender = sender
        self._api_base = api_base
        self._seconds = seconds
        self._client: Any = None

    async def start(self) -> None:
        # Imported here: it is an optional part.
        from twilio.http.async_http_client import AsyncTwilioHttpClient
        from twilio.rest import Client

        self._client = Client(
            self._account,
            self._token,
            http_client=AsyncTwilioHttpClient(),
            credential_provider=_BasicAuth(self._account, self._token),
            environment={"TWILIO_ACCOUNT_SID": self._account},  # else it looks for settings of its own in ours
        )
        if self._api_base:
            self._client.api.base_url = self._api_base

    async def close(self) -> None:
        if self._client is not None:
            await self._client.http_client.close()

    async def send(self, mobile: MobileNumber, code: str, purpose: OtpPurpose) -> None:
        by = "messaging_service_sid" if self._sender.startswith("MG") else "from_"
        async with asyncio.timeout(self._seconds):  # the client forgets the one that it can be given
            await self._client.messages.create_async(to=mobile, body=_words(code, purpose), **{by: self._sender})


class InBackground(OtpSender):
    """Sends after the reply: how long it takes, or that it fails, tells nobody whether the number is known.

    What is on its way is waited for at the end. A code that is lost with the process is asked for again.
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
        except Exception as error:  # noqa: BLE001 - whatever it is, and its text may name the number
            log.error("code_not_sent", error=type(error).__name__, status=getattr(error, "status", None))
