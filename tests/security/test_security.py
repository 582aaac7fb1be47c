"""Every attack, small and seeded, one after the other on one stage. `python -m tests.security` plays them in full."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.chaos.scale import SMALL
from tests.security.scenarios import SCENARIOS
from tests.security.stage import Stage
from tests.security.stage import stage as new_stage

SEED = 1


@pytest.fixture(scope="module")
async def stage() -> AsyncIterator[Stage]:
    async with new_stage() as shared:
        yield shared


@pytest.mark.parametrize("name", SCENARIOS)
async def test_scenario(name: str, stage: Stage) -> None:
    async with asyncio.timeout(180):
        row = await SCENARIOS[name](stage, SMALL, SEED)
    assert row.held, f"{row.test}\nto reach: {row.to_reach}\nmeasured: {row.measured}"
