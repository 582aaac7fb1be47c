"""Every scenario, small and seeded. `python -m tests.chaos` plays them at length."""

from __future__ import annotations

import asyncio

import pytest

from tests.chaos.scale import SMALL
from tests.chaos.scenarios import SCENARIOS
from tests.support.patience import PROCESS_HANG

SEED = 1


@pytest.mark.parametrize("name", SCENARIOS)
async def test_scenario(name: str) -> None:
    async with asyncio.timeout(5 * PROCESS_HANG):  # it bounds a hang; what a scenario waits for has bounds of its own
        row = await SCENARIOS[name](SMALL, SEED)
    assert row.held, f"{row.test}\nto reach: {row.to_reach}\nmeasured: {row.measured}"
