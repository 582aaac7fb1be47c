"""Every scenario, small and seeded. `python -m tests.chaos` plays them at length."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.chaos.scale import SMALL, Row
from tests.chaos.scenarios import SCENARIOS

SEED = 1
#: They mostly wait, for leases to run out and servers to return; each has servers of its own.
AT_ONCE = 3


@pytest.fixture(scope="module")
async def playing() -> AsyncIterator[dict[str, asyncio.Task[Row]]]:
    """All scenarios, begun in order, a few at a time."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def play(name: str) -> Row:
        async with turn, asyncio.timeout(120):
            return await SCENARIOS[name](SMALL, SEED)

    tasks = {name: asyncio.create_task(play(name)) for name in SCENARIOS}
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_scenario(name: str, playing: dict[str, asyncio.Task[Row]]) -> None:
    row = await playing[name]
    assert row.held, f"{row.test}\nto reach: {row.to_reach}\nmeasured: {row.measured}"
