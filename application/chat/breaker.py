"""A circuit breaker: a model that fails most calls is left alone for a while, then probed."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta


class Breaker:
    """One process's view of the model's health.

    Opens when at least half of the last `window` calls failed, half the window being the least that
    it judges by. While open, nobody calls; after `pause` one call is let through as a probe, and its
    end decides.
    """

    def __init__(self, *, window: int = 20, pause: timedelta = timedelta(seconds=30)) -> None:
        self._least = window // 2
        self._pause = pause
        self._failed: deque[bool] = deque(maxlen=window)
        self._open_until: datetime | None = None
        self._probing = False

    def wait(self, now: datetime) -> float | None:
        """Seconds for which no call may be made; None lets one through, and it must be reported."""
        if self._open_until is None:
            return None
        if now < self._open_until:
            return (self._open_until - now).total_seconds()
        if self._probing:
            return 1.0
        self._probing = True
        return None

    def report(self, *, failed: bool, now: datetime) -> bool:
        """Tell how a call ended; True if this opened the breaker."""
        was_open = self._open_until is not None
        if was_open and not self._probing:
            return False  # a call from before it opened
        self._probing = False
        if was_open and not failed:
            self._open_until = None
            self._failed.clear()
            return False
        self._failed.append(failed)
        if was_open or (len(self._failed) >= self._least and sum(self._failed) * 2 >= len(self._failed)):
            self._open_until = now + self._pause
            return True
        return False

    def forget(self) -> None:
        """A call ended without a verdict, such as one that was cancelled: another may probe."""
        self._probing = False
