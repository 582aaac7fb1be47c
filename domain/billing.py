"""Tiers and what each allows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum


class Tier(StrEnum):
    BASIC = "Basic"
    PRO = "Pro"

    @property
    def max_output_tokens(self) -> int:
        return 2_048 if self is Tier.BASIC else 8_192


@dataclass(frozen=True, slots=True)
class SendingLimits:
    """How many messages a user may send; None is unlimited."""

    daily: int | None = None
    """In a UTC day."""
    in_flight: int | None = None
    """Not answered yet, at any moment."""
    per_minute: int | None = None
    """Fair use, counted in minutes that begin with a message."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a user has used of one UTC day. `total` None is unlimited; tokens are those the model reported.

    The day turns by itself: usage is stored per day, and yesterday's is simply not asked for.
    """

    day: date
    used: int
    total: int | None
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def remaining(self) -> int | None:
        return None if self.total is None else max(0, self.total - self.used)

    @property
    def resets_at(self) -> datetime:
        return datetime.combine(self.day + timedelta(days=1), time(), UTC)
