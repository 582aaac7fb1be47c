"""The log of calls, and what they cost."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from pydantic_core import from_json

from local.gemini.question import Question
from local.standin import Json, last

Outcome = Literal["completed", "client_left", "failed"]

#: The name of each kind of token here and in Google's usageMetadata.
_KINDS = {
    "prompt": "promptTokenCount",
    "cached": "cachedContentTokenCount",
    "thoughts": "thoughtsTokenCount",
    "candidates": "candidatesTokenCount",
}


@dataclass
class Call:
    """Times are seconds of the Unix epoch. An open call has no outcome yet. `turns` includes the model's."""

    number: int
    at: float
    model: str
    lastUserText: str  # noqa: N815 - the names are those of the JSON
    turns: int
    systemInstruction: str | None  # noqa: N815
    maxOutputTokens: int | None  # noqa: N815
    thinking: Json | None
    asksForTitle: bool  # noqa: N815
    id: str | None = None
    fault: str | None = None
    status: int | None = None
    usage: Json | None = None
    finish: str | None = None
    complete: bool = False
    outcome: Outcome | None = None
    openedAt: float = 0.0  # noqa: N815
    closedAt: float | None = None  # noqa: N815

    def sold(self) -> Json:
        """Tokens as in the last usageMetadata that was sent; without one, nothing was reported."""
        usage = self.usage or {}
        return {
            "number": self.number,
            "id": self.id,
            "model": self.model,
            **{kind: usage.get(name, 0) for kind, name in _KINDS.items()},
            "finish": self.finish,
            "outcome": self.outcome,
            "status": self.status,
            "complete": self.complete,
            "reported": self.usage is not None,
        }


class Calls:
    KEPT = 50_000
    KEPT_CHARACTERS = 300

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.kept: deque[Call] = deque(maxlen=self.KEPT)
        self.total = self.open = self.most_open = 0
        self.outcomes: dict[Outcome, int] = {"completed": 0, "client_left": 0, "failed": 0}
        self.sums = _sums()
        self.sums_of_models: dict[str, dict[str, int]] = {}
        #: The complete last body, for tests that compare every turn.
        self.last_body = b"null"

    @contextmanager
    def record(self, model: str, question: Question, body: bytes) -> Iterator[Call]:
        now = time.time()
        self.total += 1
        call = Call(
            self.total, now, model, question.last_user_text[: self.KEPT_CHARACTERS], len(question.contents),
            question.system, question.limit, question.thinking, question.asks_for_title, openedAt=now,
        )  # fmt: skip
        self.last_body = body
        kept = self.kept
        kept.append(call)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            yield call
        except Exception:
            call.outcome = "failed"
            raise
        finally:
            # No outcome: the handler was cancelled because the client left.
            call.outcome = call.outcome or "client_left"
            call.closedAt = time.time()
            if self.kept is kept:  # not reset meanwhile
                self._close(call)

    def _close(self, call: Call) -> None:
        assert call.outcome is not None
        self.outcomes[call.outcome] += 1
        self.open -= 1
        usage = call.usage or {}
        for sums in (self.sums, self.sums_of_models.setdefault(call.model, _sums())):
            sums["calls"] += 1
            sums["complete"] += call.complete
            sums["reported"] += call.usage is not None
            for kind, name in _KINDS.items():
                sums[kind] += usage.get(name, 0)

    def as_json(self, limit: int) -> Json:
        return {
            "total": self.total,
            "open": self.open,
            "mostOpen": self.most_open,
            "counts": self.outcomes,
            "lastBody": from_json(self.last_body),
            "calls": [vars(call) for call in last(self.kept, limit)],
        }

    def sold_as_json(self, limit: int) -> Json:
        """Sums of all calls that have ended, and a list of the last calls, open ones included."""
        return {
            "open": self.open,
            "sums": self.sums,
            "models": self.sums_of_models,
            "calls": [call.sold() for call in last(self.kept, limit)],
        }


def _sums() -> dict[str, int]:
    return dict.fromkeys(("calls", "complete", "reported", *_KINDS), 0)
