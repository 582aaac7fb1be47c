"""A user's story with an API process, a worker process and the model's stand-in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from tests.support.gemini_standin import GeminiStandIn
from tests.support.http_client import Person, log_in, new_mobile, sign_up
from tests.support.patience import HANG
from tests.support.processes import ProductProcess, worker_process

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture(scope="module")
def worker(product: dict[str, str]) -> Iterator[ProductProcess]:
    """One for all of the story."""
    with worker_process(product) as process:
        yield process


async def test_from_signing_up_to_a_conversation(http: httpx.AsyncClient, gemini_standin: GeminiStandIn) -> None:
    mobile = new_mobile()
    signed_up = await http.post("/auth/signup", json={"mobile": mobile, "name": "Asha"})
    assert signed_up.status_code == 201
    asha = await log_in(http, mobile, signed_up.json()["user"]["id"])
    assert (await asha.get("/user/me"))["data"]["name"] == "Asha"
    room = await asha.room("The sky")

    gemini_standin.reply("Because of Rayleigh scattering.", match="sky blue")
    first = await asha.reply(room, await asha.send(room, "Why is the sky blue?"))
    assert first["status"] == "completed"
    assert first["response"] == "Because of Rayleigh scattering."
    assert first["finishReason"] == "STOP"
    assert first["usage"]["inputTokens"] > 0
    assert first["usage"]["outputTokens"] > 0
    assert first["attempts"] == 1
    assert first["error"] is None
    assert first["completedAt"] >= first["createdAt"]

    gemini_standin.reply("Then the path is longer.", match="sunset")
    await asha.reply(room, await asha.send(room, "And at sunset?"))
    turns = [(content["role"], content["parts"][0]["text"]) for content in gemini_standin.log()["lastBody"]["contents"]]
    assert turns == [
        ("user", "Why is the sky blue?"),
        ("model", "Because of Rayleigh scattering."),
        ("user", "And at sunset?"),
    ]

    other_room = await asha.room("Something else")
    await asha.reply(other_room, await asha.send(other_room, "What did I ask?"))
    assert gemini_standin.calls()[-1]["turns"] == 1, "a room knows nothing of another"
    messages = (await asha.get(f"/chatroom/{room}"))["data"]["messages"]
    assert [message["response"] for message in messages] == [
        "Because of Rayleigh scattering.",
        "Then the path is longer.",
    ]
    assert messages[0] == first


async def test_a_password_is_set_used_forgotten_and_reset(http: httpx.AsyncClient) -> None:
    asha = await sign_up(http)

    async def post(path: str, **body: str) -> httpx.Response:
        return await http.post(path, json={"mobile": asha.mobile, **body})

    code = (await post("/auth/forgot-password")).json()["otp"]
    chosen = await asha.ask("POST", "/auth/change-password", {"otp": code, "newPassword": "correct horse"})
    assert chosen.status_code == 200
    logged_in = await post("/auth/login", password="correct horse")
    assert logged_in.status_code == 200
    with_password = Person(http, asha.id, asha.mobile, logged_in.json()["token"])
    room = await with_password.room()

    code = (await post("/auth/forgot-password")).json()["otp"]
    assert (await post("/auth/reset-password", otp=code, newPassword="battery staple")).status_code == 200
    assert (await with_password.ask("GET", "/chatroom")).status_code == 401
    assert (await post("/auth/login", password="correct horse")).status_code == 401
    token = (await post("/auth/login", password="battery staple")).json()["token"]
    back = Person(http, asha.id, asha.mobile, token)
    assert [listed["id"] for listed in (await back.get("/chatroom"))["data"]] == [room]


async def test_five_messages_a_day(http: httpx.AsyncClient, gemini_standin: GeminiStandIn) -> None:
    asha = await sign_up(http)
    room = await asha.room()
    for number in range(5):  # three may be unanswered at a time
        assert (await asha.reply(room, await asha.send(room, f"Question {number}")))["status"] == "completed"
    sixth = await asha.ask("POST", f"/chatroom/{room}/message", {"input": "One more"})
    assert sixth.status_code == 403
    assert gemini_standin.log()["total"] == 5
    assert (await asha.ask("POST", f"/chatroom/{room}/message", {"input": "One more"})).status_code == 403


@pytest.mark.parametrize(
    ("kind", "status", "code", "remaining", "calls"),
    [
        ("bad_key", "failed", "model_not_configured", 5, 1),
        ("daily_quota", "failed", "model_quota_exhausted", 5, 1),
        ("empty", "failed", "reply_empty", 5, 3),  # asked again, it usually answers
        ("blocked", "blocked", "reply_blocked", 4, 1),
    ],
)
async def test_a_message_that_fails_costs_nothing(
    http: httpx.AsyncClient,
    gemini_standin: GeminiStandIn,
    kind: str,
    status: str,
    code: str,
    remaining: int,
    calls: int,
) -> None:
    asha = await sign_up(http)
    room = await asha.room()
    gemini_standin.fault(kind, times=None)
    message = await asha.reply(room, await asha.send(room, "Why?"))
    assert message["status"] == status
    assert message["response"] is None
    assert message["error"]["code"] == code
    assert "API key" not in message["error"]["detail"], "the vendor's words stay with us"
    assert gemini_standin.log()["total"] == calls
    assert await asha.remaining() == remaining


async def test_a_worker_whose_key_is_refused_says_so_until_one_comes_whose_is_not(
    http: httpx.AsyncClient, product: dict[str, str]
) -> None:
    async def is_ready(status: str) -> dict[str, str]:
        async with asyncio.timeout(HANG):
            while (ready := (await http.get("/ready")).json())["status"] != status:  # noqa: ASYNC110 - nobody tells us
                await asyncio.sleep(0.1)
        return dict(ready["dependencies"])

    with worker_process({**product, "GEMINI_API_KEY": "invalid"}):
        assert (await is_ready("degraded"))["model"] == "not configured (API_KEY_INVALID)"
    with worker_process(product):
        assert (await is_ready("ready")).keys() == {"postgres", "redis"}


async def test_an_overloaded_model_is_asked_again(http: httpx.AsyncClient, gemini_standin: GeminiStandIn) -> None:
    asha = await sign_up(http)
    room = await asha.room()
    gemini_standin.fault("unavailable")
    gemini_standin.fault("cut", after=2)
    gemini_standin.reply("At last.")
    message = await asha.reply(room, await asha.send(room, "Why?"))
    assert message["response"] == "At last."
    assert message["attempts"] == 3
    assert await asha.remaining() == 4


async def test_failed_questions_are_not_remembered(http: httpx.AsyncClient, gemini_standin: GeminiStandIn) -> None:
    asha = await sign_up(http)
    room = await asha.room()
    gemini_standin.fault("bad_request", times=None, match="A question that fails")
    await asha.reply(room, await asha.send(room, "A question that fails"))
    await asha.reply(room, await asha.send(room, "Another"))
    assert gemini_standin.calls()[-1]["turns"] == 1
