"""A circuit breaker: a model that fails most calls is left alone for a while, then probed."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, timedelta

PROBE_SECONDS = 5.0  # until it is worth asking how the probe went


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
        self._open = False
        self._probing = False
        #: The end of the latest pause. Calls from before it were overtaken by what has been seen since.
        self._since = datetime.min.replace(tzinfo=UTC)

    def wait(self, now: datetime) -> float | None:
        """Seconds for which no call may be made; None lets one through, and it must be reported."""
        if not self._open:
            return None
        if now < self._since:
            return (self._since - now).total_seconds()
        if self._probing:
            return PROBE_SECONDS
        self._probing = True
        return None

    def report(self, *, failed: bool, began: datetime, now: datetime) -> bool:
        """Tell how a call ended that was let through when it `began`; True if this opened the breaker."""
        if began < self._since:
            return False
        was_open, self._open, self._probing = self._open, False, False
        if was_open and not failed:
            self._failed.clear()
            return False
        self._failed.append(failed)
        if was_open or (len(self._failed) >= self._least and sum(self._failed) * 2 >= len(self._failed)):
            self._open, self._since = True, now + self._pause
        return self._open

    def forget(self, *, began: datetime) -> None:
        """A call ended without a verdict, such as one that was cancelled: another may probe."""
        if began >= self._since:
            self._probing = False
