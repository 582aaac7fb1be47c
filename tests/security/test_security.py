"""Every attack, small and seeded, on one stage. `python -m tests.security` runs them in full, one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.security.scenarios import ALONE, LAST, SCENARIOS, staged
from tests.support.scenarios import Row, assert_held, run_small

#: They use different cores and mostly wait.
AT_ONCE = 3


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[dict[str, asyncio.Task[Row]]]:
    """All scenarios: first those that need the stage to themselves, then the others together, then the search."""
    turn = asyncio.Semaphore(AT_ONCE)
    async with staged() as scenarios:

        async def run(name: str, after: list[asyncio.Task[Row]]) -> Row:
            await asyncio.gather(*after, return_exceptions=True)
            async with turn:
                return await run_small(scenarios[name])

        tasks: dict[str, asyncio.Task[Row]] = {}
        alone: list[asyncio.Task[Row]] = []
        for name in ALONE:
            tasks[name] = asyncio.create_task(run(name, alone))
            alone = [*alone, tasks[name]]
        for name in SCENARIOS.keys() - {*ALONE, *LAST}:
            tasks[name] = asyncio.create_task(run(name, alone))
        for name in LAST:
            tasks[name] = asyncio.create_task(run(name, list(tasks.values())))
        yield tasks
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_scenario(name: str, running: dict[str, asyncio.Task[Row]]) -> None:
    assert_held(await running[name])
