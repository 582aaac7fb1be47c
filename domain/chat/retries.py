"""When a failed attempt is tried again."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from domain.chat.messages import MAX_DEATHS, Message
from domain.errors import (
    DomainError,
    ModelDeferred,
    ModelOverloaded,
    ModelRateLimited,
    ModelTimedOut,
    ModelUnavailable,
    ReplyEmpty,
)

DEFERRED_SPREAD = 5.0  # seconds over which messages return that were deferred together


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is tried again. Times in seconds."""

    max_attempts: int = 5
    #: A timeout costs as much as a reply.
    max_timeouts: int = 2
    max_empty: int = 3
    max_age: timedelta = timedelta(minutes=10)
    base_delay: float = 1.0
    overload_delay: float = 2.0
    max_delay: float = 60.0

    def delay(self, message: Message, error: DomainError, now: datetime) -> float | None:
        """Seconds until the next attempt, or None if there is none.

        The wait is never shorter than what the model asked for. Otherwise it has full jitter, so that calls
        that failed together do not return together. It grows with the failures or, if the model was only
        overloaded, with the age of the message.
        """
        if message.failures + 1 >= self._max_failures(error):
            return None
        asked = getattr(error, "retry_after", None) or 0.0
        match error:
            case ModelDeferred():
                delay = asked + random.uniform(0, DEFERRED_SPREAD)
            case ModelOverloaded() | ModelRateLimited():
                age = (now - message.queued_at).total_seconds()
                delay = max(asked, self._jitter(max(self.overload_delay, age)))
            case ReplyEmpty():
                delay = self._jitter(self.base_delay)
            case _:
                delay = max(asked, self._jitter(self.base_delay * 2**message.failures))
        if now + timedelta(seconds=delay) > message.queued_at + self.max_age:
            return None
        return delay

    @staticmethod
    def is_failure(error: DomainError) -> bool:
        """Whether it counts as a failure of the message. What the model refuses to everyone does not."""
        return not isinstance(error, ModelDeferred | ModelOverloaded | ModelRateLimited)

    def _max_failures(self, error: DomainError) -> float:
        """The number of failures at which this error is final."""
        match error:
            case ModelDeferred() | ModelOverloaded() | ModelRateLimited():
                return math.inf
            case ModelTimedOut():
                return min(self.max_timeouts, self.max_attempts)
            case ReplyEmpty(may_differ=True):
                return min(self.max_empty, self.max_attempts)
            case ModelUnavailable():
                return self.max_attempts
            case _:
                return 1

    def _jitter(self, longest: float) -> float:
        return random.uniform(0, min(self.max_delay, longest))

    def is_poison(self, message: Message) -> bool:
        """Whether too many workers died with a message that was just claimed."""
        return message.deaths >= MAX_DEATHS
