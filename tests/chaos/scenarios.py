"""All scenarios by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.chaos import scenarios_allowance as allowance
from tests.chaos.scale import Row, Scale

SCENARIOS: dict[str, Callable[[Scale, int], Awaitable[Row]]] = {
    scenario.__name__: scenario
    for scenario in (
        allowance.quota_race,
        allowance.refund_race,
        allowance.one_key,
        allowance.fairness,
    )
}
