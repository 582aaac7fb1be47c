"""How large a scenario is played, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from tests.support.patience import PATIENT

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
        return seconds if self.long else max(10 * seconds, 60)

    @property
    def unended(self) -> int | None:
        """How many messages a steady load leaves unended: in the small run it waits for a slow machine."""
        return self.of(60, None)

    @property
    def settings(self) -> dict[str, str]:
        """Those of the small run: recoveries are quick, and a slow machine's servers are waited for."""
        quick = {"LEASE_SECONDS": "5", "HEARTBEAT_SECONDS": "0.5", "SWEEP_SECONDS": "0.5"}
        return self.of({**PATIENT, **quick}, {})

    @property
    def impatient(self) -> dict[str, str]:
        """The same where servers are away: they are not waited for."""
        return {name: value for name, value in self.settings.items() if name not in PATIENT}


SMALL, LONG = Scale(long=False), Scale(long=True)
