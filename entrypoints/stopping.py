"""The signals that ask a process to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class StopSignals:
    """SIGTERM or SIGINT asks the running loop's process to stop gracefully.

    A second SIGINT, from a person at a terminal, asks it to stop at once. A second SIGTERM changes nothing: platforms
    signal all processes of a container, and a supervisor passes its own on.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.at_once = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)

    def _interrupt(self) -> None:
        (self.at_once if self.stop.is_set() else self.stop).set()


@asynccontextmanager
async def until(event: asyncio.Event, *, seconds: float | None = None) -> AsyncIterator[None]:
    """Ends the block, without an error, as soon as the event is set, or after `seconds`."""
    ended = False
    try:
        async with asyncio.timeout(seconds) as block:

            async def watch() -> None:
                await event.wait()
                if not ended:
                    block.reschedule(0)

            watching = asyncio.create_task(watch())
            try:
                yield
            finally:
                ended = True
                watching.cancel()
    except TimeoutError:
        if not block.expired():
            raise
