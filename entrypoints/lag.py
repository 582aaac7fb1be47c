"""How late the event loop is: what it costs everybody when one task computes for long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from application.ports.runtime import Resource

_EVERY_SECONDS = 0.25


class LoopLag(Resource):
    """Measures, four times a second, how much later than due the running loop wakes a task."""

    def __init__(self, observe: Callable[[float], object], *, every: float = _EVERY_SECONDS) -> None:
        self._observe = observe
        self._every = every
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._measure())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _measure(self) -> None:
        while True:
            due = time.monotonic() + self._every
            await asyncio.sleep(self._every)
            self._observe(max(0.0, time.monotonic() - due))
