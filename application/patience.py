"""Waiting for a dependency to come back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from domain.errors import Unavailable

T = TypeVar("T")


class Backoff:
    """The pauses of a retry loop, in seconds: each twice the last one, up to the longest."""

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self.reset()

    def reset(self) -> None:
        """After a success."""
        self._next = self._first

    def pause(self) -> float:
        pause, self._next = self._next, min(2 * self._next, self._longest)
        return pause

    def jittered(self) -> float:
        """At least half a pause, so that many processes do not retry together."""
        return self.pause() * random.uniform(0.5, 1)


async def retry_until_available(step: Callable[[], Awaitable[T]]) -> T:
    """The step's result, however long the outage: at the latest two seconds after its end."""
    backoff = Backoff(0.1, 2.0)
    while True:
        try:
            return await step()
        except Unavailable:
            await asyncio.sleep(backoff.pause())
