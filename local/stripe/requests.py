"""The log of the REST calls that were made."""

from __future__ import annotations

import re
from collections import Counter, deque
from dataclasses import asdict, dataclass

from local.standin import Json, last

KEPT_REQUESTS = 5_000
_ID = re.compile(r"/(?:[a-z]+_(?:test_|live_)?[A-Za-z0-9]{8,}|price_\w+)")


@dataclass
class LoggedRequest:
    """`at` is real time in seconds of the Unix epoch. A request under way has no status yet."""

    id: str
    at: float
    method: str
    path: str
    params: Json
    idempotency_key: str | None
    status: int | None = None
    replayed: bool = False
    fault: str | int | None = None


class RequestLog:
    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.requests: deque[LoggedRequest] = deque(maxlen=KEPT_REQUESTS)
        self.counts: Counter[str] = Counter()

    def add(self, request: LoggedRequest) -> None:
        self.requests.append(request)
        self.counts[f"{request.method} {_ID.sub('/:id', request.path)}"] += 1

    def as_json(self, limit: int) -> Json:
        requests = [asdict(request) for request in last(self.requests, limit)]
        return {"total": self.counts.total(), "counts": dict(self.counts), "requests": requests}
