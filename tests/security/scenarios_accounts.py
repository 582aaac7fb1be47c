"""What somebody who knows a number cannot do to its owner, and what the owner cannot get twice."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
from aiohttp import ClientError, ClientSession, TCPConnector
from redis.asyncio import Redis

from adapters.security import HmacNumberDigests, derived_key
from domain.accounts import MobileNumber
from tests.security.stage import Stage
from tests.support.patience import HANG
from tests.support.scenarios import Row, Scale
from tests.support.twilio_standin import ACCOUNT, SENDER, TOKEN, TwilioStandIn, twilio_standin

#: One address signs everybody up here; these are not the limits that the scenarios are about.
_GENEROUS = {
    "RATE_LIMITS": "on",
    **dict.fromkeys(("RATE_SIGNUP", "RATE_LOGIN", "RATE_VERIFY", "RATE_CODES", "RATE_CODES_PREFIX"), "100000/60"),
}
#: At once; what is behind them waits in the client, as in a real network.
_CONNECTIONS = 500
_PASSWORD = "staple staple staple"
_AGED = """
    WITH sent AS (
        UPDATE codes_sent SET
            sent_at = ARRAY(SELECT t - $2::interval FROM unnest(sent_at) WITH ORDINALITY AS u (t, n) ORDER BY n),
            known_at = ARRAY(SELECT t - $2 FROM unnest(known_at) WITH ORDINALITY AS u (t, n) ORDER BY n)
        WHERE number_digest = $1
    ),
    codes AS (UPDATE one_time_codes SET expires_at = expires_at - $2 WHERE mobile = $3)
    UPDATE wrong_guesses SET
        wrong_at = ARRAY(SELECT t - $2 FROM unnest(wrong_at) WITH ORDINALITY AS u (t, n) ORDER BY n)
    WHERE number_digest = $1
"""


@dataclass
class Phone:
    """A number, the texts it receives, and the API that sends them."""

    stage: Stage
    http: httpx.AsyncClient
    twilio: TwilioStandIn
    mobile: str
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def texts(self) -> int:
        return sum(message["To"] == self.mobile for message in self.twilio.sent)

    async def ask(self, path: str, **body: Any) -> httpx.Response:
        return await self.http.post(path, json={"mobile": self.mobile, **body})

    async def sent(self, **body: Any) -> dict[str, str] | None:
        """What send-otp replies with the code that arrives; None if it is refused."""
        before = self.texts
        reply = await self.ask("/auth/send-otp", **body)
        if reply.status_code != 200:
            self.outcomes[reply.json()["code"]] += 1
            return None
        async with asyncio.timeout(HANG):
            while self.texts == before:  # noqa: ASYNC110 - it is sent after the reply
                await asyncio.sleep(0.01)
        code = re.findall(r"\d{6}", self.twilio.sent[-1]["Body"])[0]
        self.stage.keep(code)
        return {"otp": code, "challenge": reply.json()["challenge"]}

    async def verify(self, **body: Any) -> httpx.Response:
        reply = await self.ask("/auth/verify-otp", **body)
        if reply.is_success:
            self.stage.keep(reply.json()["token"], reply.json()["refreshToken"], reply.json()["deviceToken"])
        return reply

    async def age(self, hours: float) -> None:
        """As if these hours had passed."""
        key = derived_key(self.stage.world.environment["ACCESS_TOKEN_SECRET"], "mobile numbers")
        digest = HmacNumberDigests(key=key).digest(MobileNumber(self.mobile))
        await self.stage.world.fetch(_AGED, digest, timedelta(hours=hours), self.mobile)


@asynccontextmanager
async def phone(stage: Stage, **settings: str) -> AsyncIterator[Phone]:
    async with twilio_standin() as twilio:
        environment = {
            **_GENEROUS,
            "OTP_SENDER": "twilio",
            "TWILIO_ACCOUNT_SID": ACCOUNT,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "TWILIO_FROM": SENDER,
            "TWILIO_API_BASE": twilio.url,
            **settings,
        }
        async with stage.api(environment) as http:
            yield Phone(stage, http, twilio, stage.new_mobile())


async def locking_out(stage: Stage, scale: Scale, seed: int) -> Row:
    """A stranger who knows the number tries for a day; its owner logs in at five moments of it."""
    async with phone(stage) as owner:
        await owner.ask("/auth/signup", name="Asha")
        sent = await owner.sent()
        assert sent is not None
        device = (await owner.verify(**sent)).json()["deviceToken"]
        await owner.age(24)
        stranger, texts, slowest, refused = Phone(stage, owner.http, owner.twilio, owner.mobile), owner.texts, 0.0, []

        async def guess(**bound: str) -> None:
            for number in range(5):
                reply = await stranger.verify(otp=f"{number:06d}", **bound)
                stranger.outcomes[reply.json().get("code", "let in")] += 1

        for hour in range(24):
            for _ in range(3):
                if found := await stranger.sent():
                    await asyncio.gather(guess(), guess(challenge=found["challenge"]))
            if hour % 5 == 3:
                began = time.monotonic()
                sent = await owner.sent(deviceToken=device)
                await guess()
                reply = await owner.verify(**(sent or {"otp": "000000"}), deviceToken=device)
                slowest = max(slowest, time.monotonic() - began)
                if not reply.is_success:
                    refused.append(f"hour {hour}: {reply.json()['code']}, {dict(owner.outcomes)}")
                else:
                    device = reply.json()["deviceToken"]
            await owner.age(1)
        evaluated, texts = stranger.outcomes["otp_invalid"], owner.texts - texts
    measured = (
        f"{evaluated} guesses evaluated, let in: {stranger.outcomes['let in']}, {texts} SMS in all;"
        f" the owner waited {slowest:.1f} s at most, refused: {refused or 'never'}"
    )
    held = not refused and stranger.outcomes["let in"] == 0 and evaluated <= 20 and texts <= 10
    return Row(
        "a day of locking out the owner",
        "the owner logs in within 60 s at any time; ≤ 20 guesses, ≤ 10 SMS",
        measured,
        held and slowest < scale.bound(60),
    )


async def returning(stage: Stage, scale: Scale, seed: int) -> Row:
    """Deleting the account and coming back with the number in five spellings renews nothing, and leaves nothing."""
    name = "Ashwathama Returning"
    async with phone(stage, FREE_DAILY_MESSAGES="5") as caller:
        national = caller.mobile.removeprefix("+91")
        spellings = [
            caller.mobile,
            national,
            f"0091 {national}",
            f"{national[:5]} {national[5:]}",
            caller.mobile.translate(str.maketrans("0123456789", "०१२३४५६७८९")),
        ]
        accepted = returned = deleted = 0
        for number in range(20):
            caller_as = {"mobile": spellings[number % len(spellings)]}
            signed_up = await caller.http.post("/auth/signup", json={**caller_as, "name": name})
            returned += signed_up.status_code == 201
            for _ in range(3):
                sent = await caller.sent(**caller_as)
                if sent is None:
                    await caller.age(0.4)
                    continue
                reply = await caller.verify(**caller_as, **sent)
                if not reply.is_success:
                    continue
                headers = {"Authorization": f"Bearer {reply.json()['token']}"}
                device = {"deviceToken": reply.json()["deviceToken"]}
                room = (await caller.http.post("/chatroom", json={"name": name}, headers=headers)).json()["data"]["id"]
                for _ in range(3):
                    path = f"/chatroom/{room}/message"
                    said = await caller.http.post(path, json={"input": name}, headers=headers)
                    accepted += said.status_code == 202
                proof = await caller.sent(**caller_as, **device)
                if proof is not None:
                    gone = await caller.http.request("DELETE", "/user/me", json=proof, headers=headers)
                    deleted += gone.status_code == 200
                break
        texts = caller.texts
        await stage.world.fetch("DELETE FROM users WHERE mobile = $1", caller.mobile)
        left = await _left_in_postgres(stage, caller.mobile, name) + await _left_in_redis(stage, caller.mobile, name)
    measured = f"{deleted} deleted of {returned}, {accepted} messages, {texts} SMS, left behind: {left or 'nothing'}"
    return Row(
        "delete and return all day, five spellings",
        "5 messages and 10 SMS in all; no number or name is left",
        measured,
        accepted <= 5 and texts <= 10 and deleted > 0 and not left,
    )


async def _left_in_postgres(stage: Stage, mobile: str, name: str) -> list[str]:
    tables = await stage.world.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    found = []
    for table in (row["tablename"] for row in tables):
        rows = await stage.world.fetch(
            f"SELECT 1 FROM {table} AS r WHERE r::text LIKE '%' || $1 || '%' OR r::text LIKE '%' || $2 || '%' LIMIT 1",  # noqa: S608 - a table's name
            mobile.removeprefix("+91"),
            name,
        )
        found += [f"Postgres, {table}"] if rows else []
    return found


async def _left_in_redis(stage: Stage, mobile: str, name: str) -> list[str]:
    """Streams of replies expire after minutes; they hold the replies, not what was asked."""
    found = []
    marks = (mobile.removeprefix("+91").encode(), name.encode())
    async with Redis.from_url(stage.world.valkey.url) as redis:
        async for key in redis.scan_iter():
            value = await redis.dump(key) or b""
            if any(mark in key or mark in value for mark in marks):
                found.append(f"Redis, {key.decode(errors='replace')}")
    return found


async def lost_refreshes(stage: Stage, scale: Scale, seed: int) -> Row:
    """Answers that are lost for days sign nobody out; a token whose successor was used does."""
    wrong: list[str] = []
    first, second = [httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) for url in stage.world.urls]

    async def refresh(http: httpx.AsyncClient, token: str) -> httpx.Response:
        reply = await http.post("/auth/refresh", json={"refreshToken": token})
        if reply.is_success:
            stage.keep(reply.json()["refreshToken"], reply.json()["token"])
        return reply

    async with first, second:
        account = await stage.sign_up(first)
        parent = account.refresh_token
        successors: set[str] = set()
        for days in range(scale.of(3, 6)):
            replies = await asyncio.gather(*(refresh(http, parent) for http in (first, second) for _ in range(10)))
            refused = [reply.status_code for reply in replies if not reply.is_success]
            wrong += [f"day {days}: {refused}"] if refused else []
            successors |= {reply.json()["refreshToken"] for reply in replies if reply.is_success}
            await stage.world.fetch(
                "UPDATE refresh_tokens SET spent_at = spent_at - interval '1 day'"
                " WHERE session_id IN (SELECT id FROM sessions WHERE user_id = $1::text::uuid)",
                account.id,
            )
        wrong += [] if len(successors) == 1 else [f"{len(successors)} successors"]
        [successor] = successors
        current = (await refresh(second, successor)).json()
        if (await first.get("/user/me", headers={"Authorization": f"Bearer {current['token']}"})).status_code != 200:
            wrong.append("the session did not survive its lost answers")
        stolen = await refresh(first, parent)
        if stolen.status_code != 401:
            wrong.append("a token whose successor was used is accepted")
        for http in (first, second):
            me = await http.get("/user/me", headers={"Authorization": f"Bearer {current['token']}"})
            again = await refresh(http, current["refreshToken"])
            if (me.status_code, again.status_code) != (401, 401):
                wrong.append("the theft did not end the session")
    measured = f"{len(successors)} successor for {scale.of(60, 120)} refreshes over days, wrong: {wrong or 'none'}"
    return Row("lost refresh answers, and theft", "never signed out; a used one ends the session", measured, not wrong)


async def crowd(stage: Stage, scale: Scale, seed: int) -> Row:
    """Logins from one IPv6 network, all at once, do not keep the owner of another one from logging in."""
    count = scale.of(150, 2_000)
    outcomes: Counter[str] = Counter()
    async with httpx.AsyncClient(base_url=stage.url, timeout=60, trust_env=False) as http:
        account = await stage.sign_up(http, password=_PASSWORD)
    settings = {"RATE_LIMITS": "on", "TRUSTED_PROXIES": "127.0.0.1", "REDIS_NAMESPACE": f"crowd-{seed}"}
    # httpx's pool would take the time that is measured.
    connector = TCPConnector(limit=_CONNECTIONS)
    async with stage.api(settings) as http, ClientSession(str(http.base_url), connector=connector) as strangers:

        async def knock(number: int) -> None:
            headers = {"X-Forwarded-For": f"2001:db8:7:{number:x}::1"}
            body = {"mobile": f"+91982{number:07d}", "password": "none"}
            try:
                async with strangers.post("/auth/login", json=body, headers=headers) as reply:
                    outcomes[(await reply.json(content_type=None))["code"]] += 1
            except ClientError as error:
                outcomes[type(error).__name__] += 1

        crowding = [asyncio.create_task(knock(number)) for number in range(count)]
        await asyncio.sleep(0.2)
        home = {"X-Forwarded-For": "198.51.100.7"}
        async with httpx.AsyncClient(base_url=http.base_url, headers=home, timeout=60, trust_env=False) as owner:
            seconds = await _owners_logins(stage, owner, account.mobile)
        going_on = sum(not task.done() for task in crowding)
        await asyncio.gather(*crowding)
    slowest = max(seconds, default=0.0)
    measured = (
        f"{dict(outcomes)}; {len(seconds)} logins of the owner, {slowest:.2f} s at most,"
        f" {going_on} of the crowd still waiting then"
    )
    return Row(
        f"{count} logins at once from one /48",
        "the owner's logins, by code and by password, ≤ 2 s each",
        measured,
        len(seconds) == 5 and slowest < scale.bound(2),
    )


async def _owners_logins(stage: Stage, http: httpx.AsyncClient, mobile: str) -> list[float]:
    """The seconds that each successful one took."""
    seconds = []

    async def log_in(path: str, body: dict[str, str]) -> None:
        began = time.perf_counter()
        reply = await http.post(path, json={"mobile": mobile, **body})
        if path == "/auth/send-otp" and reply.is_success:
            sent = reply.json()
            stage.keep(sent["otp"])
            again = {"otp": sent["otp"], "challenge": sent["challenge"]}
            reply = await http.post("/auth/verify-otp", json={"mobile": mobile, **again})
        if reply.is_success:
            stage.keep(reply.json()["token"], reply.json()["refreshToken"])
            seconds.append(time.perf_counter() - began)

    for _ in range(2):
        await log_in("/auth/login", {"password": _PASSWORD})
    await log_in("/auth/send-otp", {})
    for _ in range(2):
        await log_in("/auth/login", {"password": _PASSWORD})
    return seconds
