"""Notices what has ended in the store, for those who wait for it in this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from application.ports.runtime import Resource
from domain.errors import Unavailable

log = logging.getLogger(__name__)

Key = TypeVar("Key")


class EndWatch(Resource, Generic[Key]):
    """Asks the store regularly which of the watched things have ended, and wakes those who watch them.

    One statement per tick for the whole process, and none while nothing is watched.
    """

    def __init__(self, ended: Callable[[Sequence[Key]], Awaitable[Collection[Key]]], *, seconds: float) -> None:
        self._ended = ended
        self._seconds = seconds
        self._wakes: dict[Key, list[Callable[[], None]]] = {}
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many things are watched."""
        return len(self._wakes)

    async def start(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @contextmanager
    def watching(self, key: Key, wake: Callable[[], None]) -> Iterator[None]:
        """Inside the block, call `wake` at each tick once it has ended."""
        wakes = self._wakes.setdefault(key, [])
        wakes.append(wake)
        try:
            yield
        finally:
            wakes.remove(wake)
            if not wakes:
                del self._wakes[key]

    async def check(self) -> None:
        """Raises DatabaseUnavailable."""
        if self._wakes:
            for key in await self._ended(list(self._wakes)):
                for wake in list(self._wakes.get(key, ())):
                    wake()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self.check()
            except Unavailable:
                pass  # nothing can be learned until it is back
            except Exception:
                log.exception("watch_failed")
