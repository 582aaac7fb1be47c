"""Redis drops all idle connections; the next message is answered without the help of a sweep."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from local.valkey import EmbeddedValkey
from tests.support.gemini_standin import GeminiStandIn
from tests.support.http_client import http_client, sign_up
from tests.support.processes import api_process, worker_process


@pytest.fixture(scope="module")
def valkey() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="gemini-test-") as folder, EmbeddedValkey(Path(folder) / "valkey") as url:
        yield url


async def test_each_next_message_is_answered_by_its_notification(
    valkey: str, product: dict[str, str], gemini_standin: GeminiStandIn
) -> None:
    environment = {
        **product,
        "REDIS_URL": valkey,
        "REDIS_NAMESPACE": f"test-{secrets.token_hex(6)}",
        "SWEEP_SECONDS": "3600",  # so only a notification brings the worker
        "FREE_DAILY_MESSAGES": "10",
    }
    with api_process(environment) as (url, _), worker_process(environment):
        async with http_client(url) as http, Redis.from_url(valkey) as admin:
            asha = await sign_up(http)
            room = await asha.room()
            for _ in range(10):
                await admin.client_kill_filter(_type="normal", skipme=True)
                message = await asha.send(room, "Why?")
                assert (await asha.reply(room, message))["attempts"] == 1
    assert gemini_standin.log()["total"] == 10
