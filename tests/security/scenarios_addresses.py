"""Callers cannot forge their address, and cannot find out which numbers have accounts."""

from __future__ import annotations

import math
import random
import re
import statistics
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import httpx
from redis.asyncio import Redis

from adapters.security import Argon2Hasher
from tests.security.stage import Stage
from tests.support.scenarios import Row, Scale

LOGIN = "/auth/login"
#: Some deployment or other trusts each of them.
FORGEABLE = ("X-Forwarded-For", "X-Real-IP", "Forwarded", "True-Client-IP", "CF-Connecting-IP", "X-Client-IP")


def some_address(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return ":".join(f"{rng.randrange(65536):x}" for _ in range(8))
    return ".".join(str(rng.randrange(1, 255)) for _ in range(4))


async def forged_addresses(stage: Stage, scale: Scale, seed: int) -> Row:
    """Calls that each claim to come from a different address."""
    calls = scale.of(100, 1_000)
    rng = random.Random(seed)
    wrong = []
    let_through: Counter[str] = Counter()

    async def knock(http: httpx.AsyncClient, case: str, headers: dict[str, str]) -> None:
        mobile = f"+91981{rng.randrange(10_000_000):07d}"  # a new number each time, because this is not about guesses
        response = await http.post(LOGIN, json={"mobile": mobile, "password": "none"}, headers=headers)
        if response.status_code != 429:
            let_through[case] += 1

    def forged() -> dict[str, str]:
        return {name: f"for={some_address(rng)}" if name == "Forwarded" else some_address(rng) for name in FORGEABLE}

    namespace, began = f"forged-{seed}", time.monotonic()
    async with stage.api({"RATE_LIMITS": "on", "REDIS_NAMESPACE": namespace}) as http:
        for _ in range(calls):
            await knock(http, "no proxy is trusted", forged())
        async with Redis.from_url(stage.world.valkey.url) as redis:
            buckets = len(await redis.keys(f"{namespace}:rate:*"))
    trusting = {"RATE_LIMITS": "on", "REDIS_NAMESPACE": f"{namespace}-proxy", "TRUSTED_PROXIES": "127.0.0.1,10.0.0.0/8"}
    async with stage.api(trusting) as http:
        for _ in range(calls // 10):
            chain = f"{some_address(rng)}, {some_address(rng)}, 203.0.113.7, 10.1.2.3"
            await knock(http, "behind a trusted proxy, the same client", {"X-Forwarded-For": chain})
            chain = f"{some_address(rng)}, rubbish"
            await knock(http, "behind a trusted proxy, rubbish", {"X-Forwarded-For": chain})
            network = "2001:db8:1:2"
            one = f"{network}:{rng.randrange(65536):x}:{rng.randrange(65536):x}::1"
            await knock(http, "one IPv6 site", {"X-Forwarded-For": one})
        for number in range(20):
            await knock(http, "20 clients behind it", {"X-Forwarded-For": f"{some_address(rng)}, 198.51.100.{number}"})
    for case, most in {"20 clients behind it": 20}.items():
        if let_through.pop(case) != most:
            wrong.append(case)
    regained = int((time.monotonic() - began) * 7 / 300)  # a slow machine regains some more
    wrong += [f"{case}: {count}" for case, count in let_through.items() if not 7 <= count <= 7 + regained]
    measured = f"buckets: {buckets}, calls let through: {dict(let_through)}, wrong: {wrong or 'none'}"
    return Row(f"{calls} forged addresses", "one bucket", measured, buckets == 1 and not wrong)


@dataclass
class _Looks:
    """The answers of one call, for known and unknown numbers."""

    shapes: dict[bool, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    seconds: dict[bool, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def t(self) -> float:
        """Welch's t of the times."""
        known, unknown = self.seconds[True], self.seconds[False]
        spread = statistics.variance(known) / len(known) + statistics.variance(unknown) / len(unknown)
        return abs(statistics.fmean(known) - statistics.fmean(unknown)) / math.sqrt(spread)


async def known_numbers(stage: Stage, scale: Scale, seed: int) -> Row:
    """No answer shows whether a number has an account: neither its content nor its time."""
    rng = random.Random(seed)
    count = scale.of(4, 2_000)
    calls: dict[str, dict[str, str]] = {
        "/auth/send-otp": {},
        "/auth/forgot-password": {},
        "/auth/verify-otp": {"otp": "000000"},
        "/auth/reset-password": {"otp": "000000", "newPassword": "staple staple staple"},
        LOGIN: {"password": "not the password"},
    }
    people = await stage.world.people(count)
    password_hash = await Argon2Hasher(memory_mib=64, iterations=3).hash("staple staple staple")
    rows = await stage.world.fetch(
        "UPDATE users SET password_hash = $1 WHERE id = ANY($2::text[]::uuid[]) RETURNING mobile",
        password_hash,
        [person.id for person in people],
    )
    known = [row["mobile"] for row in rows]
    *unknown, warming = (f"+9199{number:08d}" for number in rng.sample(range(10**8), count + 1))
    looks: dict[str, _Looks] = defaultdict(_Looks)
    async with stage.api({"OTP_SENDER": "console", "LOG_LEVEL": "info"}, quiet=True) as http:
        for _ in range(5):
            await http.post("/auth/send-otp", json={"mobile": warming})
        for path, body in calls.items():
            numbers = [(mobile, True) for mobile in known] + [(mobile, False) for mobile in unknown]
            rng.shuffle(numbers)
            for mobile, is_known in numbers:
                began = time.perf_counter()
                response = await http.post(path, json={"mobile": mobile, **body})
                looks[path].seconds[is_known].append(time.perf_counter() - began)
                looks[path].shapes[is_known][_shape(response)] += 1
    wrong = [path for path, look in looks.items() if set(look.shapes[True]) != set(look.shapes[False])]
    worst = max(look.t for look in looks.values())
    figures = ", ".join(
        f"{path.removeprefix('/auth/')} {next(iter(look.shapes[True]))[:3]} t {look.t:.2f}"
        for path, look in looks.items()
    )
    measured = f"{count} each: {figures}; different: {wrong or 'none'}"
    held = not wrong and (worst < 4.5 or not scale.long)  # too few to compare times
    return Row("known against unknown numbers", "same status, headers, body shape; Welch's t below 4.5", measured, held)


def _shape(response: httpx.Response) -> str:
    """Status, headers and body, except what differs between any two answers."""
    request_id = response.headers["x-request-id"]
    headers = sorted(f"{name}: {value}" for name, value in response.headers.items() if name != "x-request-id")
    text = re.sub('"challenge":"[^"]{43}"', '"challenge"', response.text.replace(request_id, ""))
    return f"{response.status_code} {headers} {text}"
