"""The event loop's lag is what a blocking task costs the others."""

from __future__ import annotations

import asyncio
import time

from entrypoints.lag import LoopLag


async def test_a_blocked_loop_is_late_by_as_much() -> None:
    seen: list[float] = []
    lag = LoopLag(seen.append, every=0.01)
    await lag.start()
    await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251 - to block the loop is the test
    while not seen:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0)
    await lag.close()
    assert seen[0] > 0.28
    count = len(seen)
    await asyncio.sleep(0.05)
    assert len(seen) == count, "it has ended"


async def test_closing_what_never_started() -> None:
    await LoopLag(print).close()
