"""How Schemathesis logs in: one account for all calls, except those that would end its session."""

from __future__ import annotations

import os
import secrets
from typing import Any

import httpx
import schemathesis

from tests.support.patience import HANG

#: They invalidate the token, so each gets a new account.
ENDING = {"log_out", "end_other_sessions", "end_session", "change_password", "delete_user"}

_url = os.environ["API_URL"]
_shared: list[str] = []


def sign_up() -> str:
    """The token of a new account."""
    with httpx.Client(base_url=_url, trust_env=False, timeout=HANG) as http:
        mobile = f"+9196{secrets.randbelow(10**8):08d}"
        http.post("/auth/signup", json={"mobile": mobile, "name": "Asha"}).raise_for_status()
        otp = http.post("/auth/send-otp", json={"mobile": mobile}).raise_for_status().json()["otp"]
        reply = http.post("/auth/verify-otp", json={"mobile": mobile, "otp": otp}).raise_for_status()
        return str(reply.json()["token"])


@schemathesis.auth(refresh_interval=None)
class Account:
    def get(self, case: Any, context: Any) -> str:
        operation = context.operation.definition.raw
        if "security" not in operation:
            return ""
        if operation["operationId"] in ENDING:
            return sign_up()
        if not _shared:
            _shared.append(sign_up())
        return _shared[0]

    def set(self, case: Any, token: str, context: Any) -> None:
        if token:
            case.headers["Authorization"] = f"Bearer {token}"
