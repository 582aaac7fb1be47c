"""What Stripe's stand-in can be told to do wrong, Stripe's way of saying so, and its record of requests."""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Json = dict[str, Any]

#: Kinds that are a plain error reply: type, code, message.
ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request was unacceptable."),
    401: ("invalid_request_error", None, "Invalid API Key provided: sk_test_***"),
    402: ("card_error", "card_declined", "Your card was declined."),
    403: ("invalid_request_error", None, "The provided key does not have the required permissions."),
    404: ("invalid_request_error", "resource_missing", "No such object."),
    409: ("invalid_request_error", "lock_timeout", "This object cannot be accessed right now."),
    429: ("invalid_request_error", "rate_limit", "Request rate limit exceeded."),
    500: ("api_error", None, "An unknown error occurred."),
    502: ("api_error", None, "Bad gateway."),
    503: ("api_error", None, "Stripe is temporarily unavailable."),
}

#: The others. `when` is "before" the call is carried out or "after": then it is done, and a retry of it replays.
#:
#: latency      `seconds` before the reply
#: hang         never answers, until the client leaves
#: cut          closes the connection without an answer
#: broken_json  a 200 that cannot be parsed
#: html         a 502 of a proxy, in HTML
KINDS = ("latency", "hang", "cut", "broken_json", "html")


class StripeError(Exception):
    def __init__(self, status: int, kind: str, message: str, **more: Any) -> None:
        self.status = status
        self.body: Json = {"error": {"type": kind, "message": message} | {k: v for k, v in more.items() if v}}
        super().__init__(message)


def invalid(message: str, param: str | None = None, code: str | None = None) -> StripeError:
    return StripeError(400, "invalid_request_error", message, param=param, code=code)


def error_reply(status: int) -> StripeError:
    kind, code, message = ERRORS[status]
    return StripeError(status, kind, message, code=code)


@dataclass
class Fault:
    kind: str | int
    times: int | None
    path: str
    method: str | None
    when: str
    seconds: float
    headers: dict[str, str]


@dataclass
class Faults:
    """In the order in which they were given; the first that fits a call is used, until its times are up."""

    rules: list[Fault] = field(default_factory=list)

    def add(self, given: Mapping[str, Any]) -> None:
        """Raises ValueError for a kind that does not exist."""
        kind = given.get("kind", "")
        kind = int(kind) if str(kind).isdigit() else kind
        if kind not in KINDS and kind not in ERRORS:
            raise ValueError(f"No such fault. There are: {', '.join(map(str, [*KINDS, *ERRORS]))}.")
        unknown = set(given) - {"kind", "times", "path", "method", "when", "seconds", "headers"}
        if unknown or given.get("when", "before") not in ("before", "after"):
            raise ValueError("A fault is {kind, times, path, method, when: before|after, seconds, headers}.")
        self.rules.append(
            Fault(
                kind,
                given.get("times", 1),
                given.get("path", ""),
                given.get("method"),
                given.get("when", "before"),
                float(given.get("seconds", 1)),
                dict(given.get("headers", {})),
            )
        )

    def take(self, method: str, path: str) -> Fault | None:
        for rule in self.rules:
            if rule.path in path and rule.method in (None, method):
                if rule.times is not None:
                    rule.times -= 1
                    if rule.times <= 0:
                        self.rules.remove(rule)
                return rule
        return None


@dataclass
class Seen:
    """One request; `at` is real time, in seconds of the Unix epoch. An open one has no status yet."""

    id: str
    at: float
    method: str
    path: str
    params: Json
    idempotency_key: str | None
    version: str | None
    status: int | None = None
    replayed: bool = False
    fault: str | int | None = None


class Requests:
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.kept: deque[Seen] = deque(maxlen=5_000)
        self.counts: Counter[str] = Counter()

    def add(self, seen: Seen) -> None:
        self.kept.append(seen)
        self.counts[f"{seen.method} {_without_ids(seen.path)}"] += 1

    def as_json(self, limit: int) -> Json:
        kept = list(self.kept)[-limit:] if limit else []
        return {
            "total": sum(self.counts.values()),
            "counts": dict(self.counts),
            "requests": [asdict(one) for one in kept],
        }


def _without_ids(path: str) -> str:
    return re.sub(r"/(?:[a-z]+_(?:test_|live_)?[A-Za-z0-9]{8,}|price_\w+)", "/:id", path)


def seen(request_id: str, method: str, path: str, params: Json, headers: Mapping[str, str]) -> Seen:
    key, version = headers.get("idempotency-key"), headers.get("stripe-version")
    return Seen(request_id, time.time(), method, path, params, key, version)
