"""How often something may be done: the generic cell rate algorithm, in whole microseconds."""

from __future__ import annotations

from dataclasses import dataclass, replace

MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Rate:
    """`calls` within `seconds`: all of them at once if they come together, and then evenly spaced."""

    calls: int
    seconds: float

    @property
    def window(self) -> int:
        return int(self.seconds * MICROSECONDS)

    @property
    def interval(self) -> int:
        """The share of the window that one call takes."""
        return self.window // self.calls


def within_any_minute(calls: int) -> Rate:
    """At most this many calls within any sixty seconds: a tenth of them at once, and the others evenly spaced."""
    at_once = max(1, calls // 10)
    return Rate(at_once, at_once * 60 / max(calls - at_once, 0.99))


@dataclass(frozen=True, slots=True)
class CallRate:
    """The calls counted against a rate. The one thing stored is when all of them are allowed again.

    Each call moves that moment by an interval. A call is allowed if the moment is then at most a window away.
    """

    rate: Rate
    full_at: int = 0
    """A Unix time."""

    def wait(self, now: int) -> int:
        """Until the next call is allowed; 0 if it is allowed now."""
        return max(0, self.resets_in(now) + self.rate.interval - self.rate.window)

    def counted(self, now: int) -> CallRate:
        """With one more call, which is made after the wait."""
        return replace(self, full_at=max(self.full_at, now) + self.rate.interval)

    def calls_left(self, now: int) -> int:
        return (self.rate.window - self.resets_in(now)) // self.rate.interval

    def resets_in(self, now: int) -> int:
        """Until all calls are allowed again."""
        return max(0, self.full_at - now)
