"""Ways for a one-time code to reach its owner."""

from __future__ import annotations

from application.ports.accounts import OtpSender
from domain.accounts import MobileNumber, OtpPurpose


class ReplyOtpSender(OtpSender):
    """The contract's mocked SMS: the code goes back in the reply, and nowhere else."""

    in_reply = True

    async def send(self, mobile: MobileNumber, code: str, purpose: OtpPurpose) -> None:
        return None
