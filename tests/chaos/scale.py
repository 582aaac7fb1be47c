"""How large a scenario is played, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    test: str
    to_reach: str
    measured: str
    held: bool


@dataclass(frozen=True)
class Scale:
    """The long run keeps the product's defaults and the figures to reach.

    The small one is for every day: outages of seconds, short leases, and bounds on time so generous that
    a slow machine passes. What must never happen is the same in both.
    """

    long: bool

    def of(self, small: T, long: T) -> T:
        return long if self.long else small

    def bound(self, seconds: float) -> float:
        return seconds if self.long else 10 * seconds

    @property
    def leases(self) -> dict[str, str]:
        """Settings that make recoveries quick in the small run."""
        return self.of({"LEASE_SECONDS": "3", "HEARTBEAT_SECONDS": "0.5", "SWEEP_SECONDS": "0.5"}, {})


SMALL, LONG = Scale(long=False), Scale(long=True)
