"""Every attack, small and seeded, on one stage. `python -m tests.security` plays them in full, one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.chaos.scale import SMALL, Row
from tests.security.scenarios import ALONE, LAST, SCENARIOS
from tests.security.stage import stage
from tests.support.patience import PROCESS_HANG

SEED = 1
#: They use different cores and mostly wait.
AT_ONCE = 3


@pytest.fixture(scope="module")
async def playing() -> AsyncIterator[dict[str, asyncio.Task[Row]]]:
    """All scenarios: first those that need the stage for themselves, then the others together, then the search."""
    turn = asyncio.Semaphore(AT_ONCE)
    async with stage() as shared:

        async def play(name: str, after: list[asyncio.Task[Row]]) -> Row:
            await asyncio.gather(*after, return_exceptions=True)
            async with turn, asyncio.timeout(5 * PROCESS_HANG):
                return await SCENARIOS[name](shared, SMALL, SEED)

        tasks: dict[str, asyncio.Task[Row]] = {}
        alone: list[asyncio.Task[Row]] = []
        for name in ALONE:
            tasks[name] = asyncio.create_task(play(name, alone))
            alone = [*alone, tasks[name]]
        for name in SCENARIOS.keys() - {*ALONE, *LAST}:
            tasks[name] = asyncio.create_task(play(name, alone))
        for name in LAST:
            tasks[name] = asyncio.create_task(play(name, list(tasks.values())))
        yield tasks
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_scenario(name: str, playing: dict[str, asyncio.Task[Row]]) -> None:
    row = await playing[name]
    assert row.held, f"{row.test}\nto reach: {row.to_reach}\nmeasured: {row.measured}"
