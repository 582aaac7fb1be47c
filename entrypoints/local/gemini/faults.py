"""What Gemini's stand-in can be told to do wrong, Google's way of saying so, and its record of calls."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Json = dict[str, Any]

_TYPE = "type.googleapis.com/google.rpc."

#: Kinds that are a plain error reply: HTTP code, Google's status, a message in Google's tone. They
#: take `retry_delay` ("53.016s", of the two about quotas) and `retry_after`, a Retry-After header.
ERRORS: dict[str, tuple[int, str, str]] = {
    "bad_request": (400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
    "bad_key": (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    "no_key": (
        403,
        "PERMISSION_DENIED",
        "Method doesn't allow unregistered callers. Please use an API key.",
    ),
    "not_found": (404, "NOT_FOUND", "Requested entity was not found."),
    "rate_limit": (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota. Please retry later."),
    "daily_quota": (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan."),
    "internal": (500, "INTERNAL", "An internal error has occurred. Please retry."),
    "unavailable": (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "timeout": (504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
}

#: The others, and what each takes besides `times` and `match`.
#:
#: latency            seconds before the first byte, then a good reply
#: hang               accepts and never answers, until the client leaves
#: hang_mid_stream    the same after `after` chunks
#: disconnect         closes the connection before the first byte
#: cut                closes it after `after` chunks, without a proper end
#: error_in_stream    the reply of `error` (a kind above) inside a 200 stream after `after` chunks
#: broken_json        an unparsable line after `after` chunks
#: blocked            promptFeedback.blockReason = `reason`, no candidates
#: blocked_mid_stream finishReason = `reason` after `after` chunks
#: empty              one candidate without text, finishReason = `reason`
#: reply              `text` in `chunks` pieces (a count, or the pieces themselves), at `first_chunk_seconds` and
#:                    `chunk_seconds`; `thought` goes before it as a part that is no reply; `finish_reason`; the
#:                    stream itself ends `end_seconds` later
KINDS = frozenset(ERRORS) | {
    "latency", "hang", "hang_mid_stream", "disconnect", "cut", "error_in_stream", "broken_json",
    "blocked", "blocked_mid_stream", "empty", "reply",
}  # fmt: skip


def error_body(kind: str, *, message: str = "", retry_delay: str = "53.016s") -> tuple[int, Json]:
    """The HTTP code and the body that Google sends with it."""
    code, status, text = ERRORS[kind]
    details: list[Json] = []
    if kind == "bad_key":
        details = [{"@type": f"{_TYPE}ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}]
    elif kind in ("rate_limit", "daily_quota"):
        window = "PerDay" if kind == "daily_quota" else "PerMinute"
        violation = {
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
            "quotaId": f"GenerateRequests{window}PerProjectPerModel-FreeTier",
        }
        details = [
            {"@type": f"{_TYPE}QuotaFailure", "violations": [violation]},
            {"@type": f"{_TYPE}RetryInfo", "retryDelay": retry_delay},
        ]
    return code, {"error": {"code": code, "message": message or text, "status": status, "details": details}}


class GoogleError(Exception):
    def __init__(self, kind: str, message: str = "") -> None:
        self.code, self.body = error_body(kind, message=message)


@dataclass
class Rule:
    kind: str
    times: int | None
    match: str | None
    parameters: Json

    def get(self, name: str, default: Any) -> Any:
        return self.parameters.get(name, default)


@dataclass
class Faults:
    """Rules in the order they were given; the first that fits a call is used, until its times are up."""

    rules: list[Rule] = field(default_factory=list)

    def add(self, given: Mapping[str, Any]) -> None:
        """Raises ValueError for a kind that does not exist."""
        parameters = dict(given)
        kind, times, match = parameters.pop("kind", None), parameters.pop("times", 1), parameters.pop("match", None)
        error = parameters.get("error", "unavailable")
        if kind not in KINDS or error not in ERRORS:
            raise ValueError(f"No such fault. There are: {', '.join(sorted(KINDS))}.")
        self.rules.append(Rule(kind, times, match, parameters))

    def take(self, text: str) -> Rule | None:
        for rule in self.rules:
            if rule.match is None or rule.match in text:
                if rule.times is not None:
                    rule.times -= 1
                    if rule.times <= 0:
                        self.rules.remove(rule)
                return rule
        return None


Outcome = Literal["completed", "client_left", "failed"]


@dataclass
class Call:
    """Times are seconds of the Unix epoch; an open call has no outcome yet."""

    number: int
    at: float
    model: str
    lastUserText: str  # noqa: N815 - the names are those of the JSON
    turns: int
    systemInstruction: str | None  # noqa: N815
    maxOutputTokens: int | None  # noqa: N815
    fault: str | None = None
    outcome: Outcome | None = None
    openedAt: float = 0.0  # noqa: N815
    closedAt: float | None = None  # noqa: N815


class Calls:
    KEPT = 50_000
    KEPT_CHARACTERS = 300

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.kept: deque[Call] = deque(maxlen=self.KEPT)
        self.total = self.open = self.most_open = 0
        self.outcomes: dict[Outcome, int] = {"completed": 0, "client_left": 0, "failed": 0}
        #: The last body whole, for tests that compare every turn of it.
        self.last_body = b"null"

    @contextmanager
    def record(self, *, model: str, text: str, turns: int, system: str | None, limit: int | None) -> Iterator[Call]:
        now = time.time()
        self.total += 1
        call = Call(self.total, now, model, text[: self.KEPT_CHARACTERS], turns, system, limit, openedAt=now)
        outcomes, kept = self.outcomes, self.kept
        kept.append(call)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            yield call
        finally:
            # Left without an outcome: the handler was cancelled, so the client is gone.
            call.outcome = call.outcome or "client_left"
            call.closedAt = time.time()
            if self.outcomes is outcomes:  # not reset meanwhile
                outcomes[call.outcome] += 1
                self.open -= 1

    def as_json(self, limit: int) -> Json:
        records = list(self.kept)[-limit:] if limit else []
        return {
            "total": self.total,
            "open": self.open,
            "mostOpen": self.most_open,
            "counts": self.outcomes,
            "lastBody": json.loads(self.last_body),
            "calls": [asdict(call) for call in records],
        }
