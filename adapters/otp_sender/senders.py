"""What sends no SMS, and what sends after the reply."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

import structlog

from application.ports.accounts import OtpSender
from application.ports.runtime import Described, Fact
from domain.accounts import MobileNumber, OtpPurpose

log = structlog.get_logger(__name__)

_LONGEST_SECONDS = 20.0
#: Where the code goes in OTP_MESSAGE.
PLACE_OF_CODE = "{code}"


def sms_text(code: str, purpose: OtpPurpose, message: str = "") -> str:
    """`message` is sent to the letter, for all purposes: carriers compare it with a registered template."""
    if message:
        return message.replace(PLACE_OF_CODE, code)
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
        print(f"To {mobile}: {sms_text(code, purpose)}", file=sys.stderr, flush=True)  # noqa: T201 - its purpose


class InBackground(OtpSender, Described):
    """Sends after the reply, so that neither the time it takes nor a failure reveals whether the number is known.

    Closing waits for pending messages. If the process dies, the user requests another code.
    """

    in_reply = False

    def __init__(self, sender: OtpSender) -> None:
        self._sender = sender
        self._sending: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await self._sender.start()

    async def describe(self) -> Sequence[Fact]:
        return await self._sender.describe() if isinstance(self._sender, Described) else ()

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
