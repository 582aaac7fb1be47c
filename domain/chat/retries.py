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

DEFERRED_SPREAD = 5.0  # seconds over which those return that were put off together


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is tried again. Times in seconds."""

    max_attempts: int = 5
    #: A timeout has cost as much as a reply.
    max_timeouts: int = 2
    max_empty: int = 3
    max_age: timedelta = timedelta(minutes=10)
    base_delay: float = 1.0
    overload_delay: float = 2.0
    max_delay: float = 60.0

    def delay(self, message: Message, error: DomainError, now: datetime) -> float | None:
        """Seconds to wait before the next attempt, or None when there shall be none.

        The wait is never shorter than what the model asked for; beyond that it has full jitter, so
        that a crowd of failed calls does not return as a crowd. It grows with the failures, and
        where the message has none, because the model was overloaded, with the age of the message.
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
        """Whether it counts among the failures of its message. What the model refuses to everybody does not."""
        return not isinstance(error, ModelDeferred | ModelOverloaded | ModelRateLimited)

    def _max_failures(self, error: DomainError) -> float:
        """With how many failures such an error is the last one."""
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
        """Whether a message that was just claimed has taken too many workers with it."""
        return message.deaths >= MAX_DEATHS
