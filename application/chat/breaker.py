"""A circuit breaker: a model that fails most users is left alone for a while, then probed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from domain.ids import UserId

PROBE_SECONDS = 5.0  # until it is worth asking how the probe went


class Breaker:
    """One process's view of the model's health.

    Each user has one verdict, that of their latest call, so nobody's messages can make the model look
    ill to others. It opens when at least half of the users whose calls ended lately, and no fewer than
    `min_samples`, were failed. While it is open, nobody calls; after `pause` one call is let through as a
    probe, and its end decides. A message that has failed already may be what is wrong, so it is a probe
    only if no other one came for `patience`.
    """

    def __init__(
        self,
        *,
        users: int = 20,
        min_samples: int = 3,
        pause: timedelta = timedelta(seconds=30),
        memory: timedelta = timedelta(minutes=2),
        patience: timedelta = timedelta(seconds=10),
    ) -> None:
        self._users = users
        self._min_samples = min_samples
        self._pause = pause
        self._memory = memory
        self._patience = patience
        self._verdicts: dict[UserId, tuple[datetime, bool]] = {}  # when, and whether it failed; the latest last
        self._open = False
        self._probing = False
        #: The end of the latest pause. Calls from before it were overtaken by what has been seen since.
        self._closed_after = datetime.min.replace(tzinfo=UTC)

    def time_until_allowed(self, now: datetime, *, fresh: bool = True) -> float | None:
        """Seconds for which no call may be made; None lets one through, and it must be reported.

        `fresh`: the message has not failed before.
        """
        if not self._open:
            return None
        if now < self._closed_after:
            return (self._closed_after - now).total_seconds()
        if self._probing:
            return PROBE_SECONDS
        others_first = self._closed_after + self._patience
        if not fresh and now < others_first:
            return (others_first - now).total_seconds()
        self._probing = True
        return None

    def report(self, user: UserId, *, failed: bool, began: datetime, now: datetime) -> bool:
        """Tell how this user's call went that was let through when it `began`; True if this opened the breaker.

        A call may be reported more than once: the last report holds.
        """
        if began < self._closed_after:
            return False
        was_open, self._open, self._probing = self._open, False, False
        if was_open and not failed:
            self._verdicts.clear()
            return False
        self._note(user, failed, now)
        failures = sum(failed for _, failed in self._verdicts.values())
        if was_open or (failures >= self._min_samples and failures * 2 >= len(self._verdicts)):
            self._open, self._closed_after = True, now + self._pause
        return self._open

    def discard(self, *, began: datetime) -> None:
        """A call ended without a verdict, such as one that was cancelled: another may probe."""
        if began >= self._closed_after:
            self._probing = False

    def _note(self, user: UserId, failed: bool, now: datetime) -> None:
        self._verdicts.pop(user, None)
        self._verdicts[user] = (now, failed)
        for other, (at, _) in list(self._verdicts.items()):
            if len(self._verdicts) <= self._users and at > now - self._memory:
                break
            del self._verdicts[other]
