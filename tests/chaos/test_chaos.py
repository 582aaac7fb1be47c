"""Every scenario, small and seeded. `python -m tests.chaos` runs them at full length."""

from __future__ import annotations

import pytest

from tests.chaos.scenarios import SCENARIOS
from tests.support.scenarios import assert_held, run_small


@pytest.mark.parametrize("name", SCENARIOS)
async def test_scenario(name: str) -> None:
    assert_held(await run_small(SCENARIOS[name]))
