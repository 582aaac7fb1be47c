"""The OpenAPI document is good enough to generate a typed client from: one is, and used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx

from tests.support.http_client import new_mobile
from tests.support.patience import PROCESS_HANG

USE = """
import sys
from client import AuthenticatedClient, Client
from client.api.accounts import get_profile, send_otp, sign_up, verify_otp
from client.api.chat import create_chatroom, get_message, list_chatrooms, open_chatroom, send_message
from client.models import CreateChatroomBody, MessageStatus, MobileBody, Problem, SendMessageBody, SignUpBody, Tier
from client.models import VerifyOtpBody

_, url, mobile = sys.argv
anybody = Client(base_url=url)
user = sign_up.sync(client=anybody, body=SignUpBody(mobile=mobile, name="Asha")).user
otp = send_otp.sync(client=anybody, body=MobileBody(mobile=mobile)).otp
signed_in = verify_otp.sync(client=anybody, body=VerifyOtpBody(mobile=mobile, otp=otp))
asha = AuthenticatedClient(base_url=url, token=signed_in.token)

profile = get_profile.sync(client=asha).data
assert (profile.id, profile.subscription_tier) == (user.id, Tier.BASIC)
room = create_chatroom.sync(client=asha, body=CreateChatroomBody(name="Physics"), idempotency_key="once").data
assert [listed.id for listed in list_chatrooms.sync(client=asha, limit=1).data] == [room.id]
sent = send_message.sync(room.id, client=asha, body=SendMessageBody(input_="Why?"), prefer="wait=0")
assert sent.data.status is MessageStatus.QUEUED
assert sent.remaining_messages == sent.daily_limit_info.total - 1
assert get_message.sync(room.id, sent.data.id, client=asha).data.created_at == sent.data.created_at
assert open_chatroom.sync(room.id, client=asha).data.messages[0].input_ == "Why?"
refused = get_message.sync(room.id, room.id, client=asha)
assert isinstance(refused, Problem) and refused.code == "message_not_found"
"""


async def test_openapi_python_client_makes_one_without_a_warning(http: httpx.AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text((await http.get("/openapi.json")).text)
    (tmp_path / "config.json").write_text(json.dumps({"post_hooks": []}))
    generator = "from openapi_python_client.cli import app; app()"
    options = ["--path", "openapi.json", "--config", "config.json", "--meta", "none", "--output-path", "client"]
    made = _python(tmp_path, "-c", generator, "generate", "--fail-on-warning", *options)
    assert made.returncode == 0, made.stdout + made.stderr
    assert made.stdout.splitlines() == ["Generating client"]

    used = _python(tmp_path, "-c", USE, str(http.base_url), new_mobile())
    assert used.returncode == 0, used.stderr


def _python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=PROCESS_HANG, check=False
    )
