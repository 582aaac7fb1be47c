"""Secrets stay out of logs, Redis and error bodies, and settings out of what is printed."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from collections.abc import Iterable

import httpx
from redis.asyncio import Redis

from tests.security.stage import Stage, http_client
from tests.support.processes import ROOT
from tests.support.scenarios import Row, Scale


async def canaries(stage: Stage, scale: Scale, seed: int) -> Row:
    """A story with every kind of secret, then a search through everything the suite has left behind."""
    prompt = f"prompt-canary-{secrets.token_hex(8)}"
    password = f"password-canary-{secrets.token_hex(8)}"
    stage.keep(prompt, password, *_configured(stage))
    problems: list[str] = []
    async with http_client(stage.url) as http:

        async def note(response: httpx.Response) -> None:
            if response.status_code >= 400:
                await response.aread()
                problems.append(response.text)

        http.event_hooks["response"].append(note)
        commands: list[bytes] = []
        watching = asyncio.create_task(_watch_redis(stage, commands))
        await asyncio.sleep(0.5)
        await _story(stage, http, prompt, password)
        await asyncio.sleep(2)  # for what is written later
        watching.cancel()
    # Also those of Postgres and Valkey, which are in their folders.
    logs = await asyncio.to_thread(lambda: [path.read_bytes() for path in stage.world.folder.rglob("*.log")])
    places = {
        "problem bodies": [problem.encode() for problem in problems],
        "what Redis holds": await _all_of_redis(stage),
        "what it received": commands,
        "logs": logs,
    }
    hits = [
        f"{name}: {secret[:12]}… in …{text[max(0, place - 60) : place + 30]!r}"
        for name, texts in places.items()
        for text in texts
        for secret in stage.secrets
        if (place := _find(text, secret)) >= 0
    ]
    sizes = ", ".join(f"{name} {sum(map(len, texts)) / 1000:.0f} kB" for name, texts in places.items())
    measured = f"{len(stage.secrets)} secrets, searched: {sizes}; hits: {hits[:5] or 0}"
    sure = (
        b"verify_otp",
        b"database system is ready to accept connections",
    )  # in the logs of the API and of Postgres
    searched = all(places.values()) and all(any(line in text for text in logs) for line in sure)
    return Row("canaries at debug level", "0 hits in logs, Redis and error bodies", measured, searched and not hits)


async def _story(stage: Stage, http: httpx.AsyncClient, prompt: str, password: str) -> None:
    """Including ordinary failures, whose errors might quote what was sent."""
    account = await stage.sign_up(http, password=password)
    reset = await stage.code(http, "/auth/forgot-password", account.mobile)
    mobile = {"mobile": account.mobile}
    for path, body in (
        ("/auth/signup", {**mobile, "name": "Asha"}),
        ("/auth/signup", {**mobile, "name": "\0"}),
        ("/auth/verify-otp", {**mobile, "otp": "000000"}),
        ("/auth/login", {**mobile, "password": f"{password}!"}),
        ("/auth/login", {**mobile, "password": [password]}),
        ("/auth/refresh", {"refreshToken": account.refresh_token[::-1]}),
        ("/auth/refresh", {"refreshToken": [account.refresh_token]}),
        ("/auth/reset-password", {**mobile, "otp": reset, "newPassword": "password123"}),
    ):
        assert (await http.post(path, json=body)).status_code >= 400, path
    broken = f'{{"mobile": "{account.mobile}", "password": "{password}"'
    assert (await http.post("/auth/login", content=broken)).status_code == 400
    login = await http.post("/auth/login", json={**mobile, "password": password})
    assert login.status_code == 200, login.text
    again = login.json()
    stage.keep(again["token"], again["refreshToken"])
    renewed = (await http.post("/auth/refresh", json={"refreshToken": again["refreshToken"]})).json()
    stage.keep(renewed["token"], renewed["refreshToken"])
    key = f"key-canary-{secrets.token_hex(8)}"
    stage.keep(key)
    room = await stage.room(http, account)
    path = f"/chatroom/{room}/message"
    headers = {**account.headers, "Idempotency-Key": key}
    # By default the stand-in quotes the prompt in its reply, and replies are in Redis.
    stage.world.gemini.reply("A separate reply.", match=prompt)
    sent = await http.post(path, json={"input": prompt}, headers={**headers, "Prefer": "wait=20"})
    assert sent.status_code == 200, sent.text
    stage.world.gemini.fault("bad_request", match=prompt)
    stage.world.gemini.fault("internal", match=prompt)
    stage.world.gemini.fault("broken_json", match=prompt)
    for _ in range(9):
        stage.world.gemini.reply("A separate reply.", match=prompt)
    for body in ({"input": prompt}, {"input": prompt, "more": prompt}, {"input": [prompt]}, {"input": f"{prompt}\0"}):
        await http.post(path, json=body, headers=headers)
        await http.post(path, json=body, headers={**account.headers, "Prefer": "wait=5"})
    for token in (f"{account.token}x", account.token[:-3], again["token"] + renewed["token"]):
        await http.get("/user/me", headers={"Authorization": f"Bearer {token}"})
        await http.get(f"/chatroom/{room}", headers={"Authorization": f"Basic {token}"})


def _configured(stage: Stage) -> Iterable[str]:
    """The secrets in the settings of the processes."""
    environment = stage.world.environment
    yield environment["ACCESS_TOKEN_SECRET"]
    for name in ("DATABASE_URL", "REDIS_URL"):
        yield environment[name].split("@")[0].rsplit(":", 1)[1]


def _find(text: bytes, secret: str) -> int:
    """The position of a secret, or -1. A short one must be a whole word."""
    wanted = secret.encode()
    place = text.find(wanted)
    while place >= 0 and len(wanted) < 10:
        around = text[place - 1 : place] + text[place + len(wanted) : place + len(wanted) + 1]
        if not any(chr(byte).isalnum() or chr(byte) in ".-_" for byte in around):
            break
        place = text.find(wanted, place + 1)
    return place


async def _watch_redis(stage: Stage, commands: list[bytes]) -> None:
    """Every command that Redis receives, including jobs and announcements that it does not keep."""
    async with Redis.from_url(stage.world.valkey.url) as redis, redis.monitor() as monitor:
        async for command in monitor.listen():
            commands.append(str(command).encode())  # noqa: PERF401 - the stream has no end


async def _all_of_redis(stage: Stage) -> list[bytes]:
    found: list[bytes] = []
    async with Redis.from_url(stage.world.valkey.url) as redis:
        async for key in redis.scan_iter(count=1_000):
            found.append(key)
            match await redis.type(key):
                case b"string":
                    value: object = await redis.get(key)
                case b"hash":
                    value = await redis.hgetall(key)
                case b"list":
                    value = await redis.lrange(key, 0, -1)
                case b"set":
                    value = await redis.smembers(key)
                case b"zset":
                    value = await redis.zrange(key, 0, -1)
                case b"stream":
                    value = await redis.xrange(key)
                case other:
                    raise AssertionError(f"a {other!r} is not looked into")
            found.append(value if isinstance(value, bytes) else repr(value).encode())
    return found


_CANARY = "canary-in-a-setting"
#: Each has one mistake: the settings, and the variable that the error must name.
BAD: list[tuple[dict[str, str], str]] = [
    ({"DATABASE_URL": ""}, "DATABASE_URL"),
    ({"DATABASE_URL": f"mysql://{_CANARY}@localhost/db"}, "DATABASE_URL"),
    ({"DATABASE_URL": f"postgres://user:{_CANARY}@localhost:0/db"}, "DATABASE_URL"),
    ({"REDIS_URL": ""}, "REDIS_URL"),
    ({"REDIS_URL": f"http://{_CANARY}"}, "REDIS_URL"),
    ({"REDIS_URL": f"redis://:{_CANARY}@localhost:99999"}, "REDIS_URL"),
    ({"REDIS_NAMESPACE": f"{_CANARY} *"}, "REDIS_NAMESPACE"),
    ({"ACCESS_TOKEN_SECRET": _CANARY}, "ACCESS_TOKEN_SECRET"),
    ({"ACCESS_TOKEN_SECRET": "ab" * 40}, "ACCESS_TOKEN_SECRET"),
    ({"ACCESS_TOKEN_OLD_SECRETS": f"{'x1y2z3w4' * 8},{_CANARY}"}, "ACCESS_TOKEN_OLD_SECRETS"),
    ({"APP_ENV": f"{_CANARY}"}, "APP_ENV"),
    ({"LOG_LEVEL": f"{_CANARY}"}, "LOG_LEVEL"),
    ({"LEASE_SECONDS": f"-{_CANARY}"}, "LEASE_SECONDS"),
    ({"HEARTBEAT_SECONDS": "9.87654"}, "HEARTBEAT_SECONDS"),
    ({"FREE_DAILY_MESSAGES": f"{_CANARY}"}, "FREE_DAILY_MESSAGES"),
    ({"DEFAULT_REGION": f"{_CANARY}"}, "DEFAULT_REGION"),
    ({"OTP_SENDER": f"{_CANARY}"}, "OTP_SENDER"),
    ({"OTP_SENDER": "twilio", "TWILIO_AUTH_TOKEN": _CANARY}, "TWILIO_ACCOUNT_SID"),
    ({"OTP_COUNTRIES": f"IN,{_CANARY}"}, "OTP_COUNTRIES"),
    ({"TRUSTED_PROXIES": f"10.0.0.0/8,{_CANARY}"}, "TRUSTED_PROXIES"),
    ({"CORS_ORIGINS": f"https://a.example/{_CANARY}"}, "CORS_ORIGINS"),
    ({"CORS_ORIGINS": "*"}, "CORS_ORIGINS"),
    ({"STRIPE_SECRET_KEY": _CANARY}, "STRIPE_PRICE_ID"),
    ({"STRIPE_API_BASE": f"ftp://{_CANARY}"}, "STRIPE_API_BASE"),
    ({"GEMINI_BASE_URL": f"{_CANARY}"}, "GEMINI_BASE_URL"),
    ({"RATE_LOGIN": f"{_CANARY}/60"}, "RATE_LOGIN"),
    ({"RATE_LIMITS": f"{_CANARY}"}, "RATE_LIMITS"),
    ({"APP_ENV": "production", "RATE_LIMITS": "off"}, "RATE_LIMITS"),
    ({"APP_ENV": "production", "RATE_LIMITS": "on"}, "OTP_SENDER"),
    ({"APP_ENV": "production", "RATE_LIMITS": "on", "OTP_SENDER": "console"}, "OTP_SENDER"),
]


async def bad_settings(stage: Stage, scale: Scale, seed: int) -> Row:
    """Neither process starts with any of them, nor prints the value."""
    wrong: list[str] = []
    slowest = 0.0
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    turn = asyncio.Semaphore(1)  # each is timed

    async def start(command: str, settings: dict[str, str], variable: str) -> None:
        nonlocal slowest
        async with turn:
            began = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "entrypoints.cli", command),
                cwd=ROOT,
                env={**inherited, **stage.world.environment, "PORT": "0", **settings},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            try:
                async with asyncio.timeout(scale.bound(2)):
                    output = (await process.communicate())[0].decode()
            except TimeoutError:
                process.kill()
                wrong.append(f"{command} with {settings}: started")
                return
            slowest = max(slowest, time.monotonic() - began)
        case = f"{command} with a bad {variable}"
        if process.returncode != 2:
            wrong.append(f"{case}: exit code {process.returncode}")
        if variable not in output:
            wrong.append(f"{case}: not named in {output!r}")
        if _CANARY in output or "9.87654" in output or "Traceback" in output:
            wrong.append(f"{case}: tells too much: {output!r}")
        if output.count("\n") != 1:
            wrong.append(f"{case}: not one line: {output!r}")

    chosen = scale.of(BAD[::6], BAD)
    for settings, variable in chosen:
        await start("serve", settings, variable)
        if not variable.startswith("ACCESS_TOKEN_SECRET"):  # the worker does not need it, but checks it
            await start("worker", settings, variable)
    measured = f"{len(chosen)} configurations, the slowest refused after {slowest:.2f} s, wrong: {wrong[:5] or 'none'}"
    return Row("bad configurations", "refused within 2 s, the variable named, its value never", measured, not wrong)
