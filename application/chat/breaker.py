"""A circuit breaker: pauses calls of a model that fails for most users, then probes it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from domain.ids import UserId

PROBE_SECONDS = 5.0  # until the probe has probably ended


class Breaker:
    """One process's view of the model's health.

    Only each user's latest call counts, so one user's messages cannot make the model look unhealthy to
    others. The breaker opens when the calls of at least half of the recent users, and of no fewer than
    `min_samples`, failed. While it is open there are no calls; after `pause` one call passes as a probe,
    and its result decides. A message that has failed before may itself be the cause, so it becomes the
    probe only if no other message came for `patience`.
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
        self._verdicts: dict[
            UserId, tuple[datetime, bool]
        ] = {}  # when the call ended, and whether it failed; the latest last
        self._open = False
        self._probing = False
        #: The end of the latest pause. Calls that began before it no longer count.
        self._closed_after = datetime.min.replace(tzinfo=UTC)

    def time_until_allowed(self, now: datetime, *, fresh: bool = True) -> float | None:
        """Seconds until a call may be tried; None allows one now, which must be reported or discarded.

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
        """Report how this user's call went that `began` then; True if this opened the breaker.

        A call may be reported more than once; the last report counts.
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
        """A call ended without a result, for example because it was cancelled: another may be the probe."""
        if began >= self._closed_after:
            self._probing = False

    def _note(self, user: UserId, failed: bool, now: datetime) -> None:
        self._verdicts.pop(user, None)
        self._verdicts[user] = (now, failed)
        for other, (at, _) in list(self._verdicts.items()):
            if len(self._verdicts) <= self._users and at > now - self._memory:
                break
            del self._verdicts[other]
