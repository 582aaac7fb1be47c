"""What ModelBudget promises: never more calls than allowed within any sixty seconds, by all workers together."""

from __future__ import annotations

import time

import pytest

from adapters.postgres.budget import PostgresModelBudget
from application.ports.chat import ModelBudget
from tests.contracts.conftest import Adapters

#: Seconds by which times that were noted on either side of a call may differ from the store's own.
BLUR = 0.5


class Calls:
    """When calls were allowed, by a clock that the test moves; the machine's own goes on a little meanwhile."""

    def __init__(self, adapters: Adapters, budget: ModelBudget) -> None:
        self._adapters = adapters
        self._budget = budget
        self._began = time.monotonic()
        self._moved = 0.0
        self.at: list[float] = []

    def now(self) -> float:
        return self._moved + time.monotonic() - self._began

    async def pass_(self, seconds: float) -> None:
        await self._adapters.wait(seconds)
        self._moved += seconds

    async def reserve(self, within: float) -> float | None:
        now = self.now()
        wait = await self._budget.reserve(within=within)
        if wait is not None:
            assert 0 <= wait <= within
            self.at.append(now + wait)
        return wait

    def most_in_a_minute(self) -> int:
        at = sorted(self.at)
        return max(sum(first <= other < first + 60 - BLUR for other in at) for first in at)


@pytest.mark.parametrize("per_minute", [1, 2, 10, 40])
@pytest.mark.parametrize("within", [0, 5])
async def test_whoever_always_asks_gets_no_more(adapters: Adapters, per_minute: int, within: float) -> None:
    calls = Calls(adapters, adapters.budget(per_minute))
    while calls.now() < 200:
        while await calls.reserve(within) is not None:
            pass
        await calls.pass_(2)
    assert calls.most_in_a_minute() <= per_minute
    assert len(calls.at) >= 2 * per_minute, "and not much less either"


async def test_after_a_rest_there_is_no_more_either(adapters: Adapters) -> None:
    calls = Calls(adapters, adapters.budget(20))
    for rest in (0, 30, 3_600, 59, 61, 10, 10, 10, 10, 10):
        await calls.pass_(rest)
        while await calls.reserve(5) is not None:
            pass
    assert calls.most_in_a_minute() <= 20


@pytest.mark.parametrize("per_minute", [1, 5, 20, 40])
async def test_twenty_at_once_are_one_after_the_other(adapters: Adapters, per_minute: int) -> None:
    calls = Calls(adapters, adapters.budget(per_minute))
    results = await adapters.race(*(calls.reserve(3_600) for _ in range(20)), rows_of="model_budget")
    assert all(isinstance(result, float) for result in results)
    # All got their wait at about the same time, so the waits are the times.
    calls.at = [result for result in results if isinstance(result, float)]
    assert calls.most_in_a_minute() <= per_minute


async def test_twenty_at_once_that_cannot_wait(adapters: Adapters) -> None:
    calls = Calls(adapters, adapters.budget(10))
    results = await adapters.race(*(calls.reserve(0) for _ in range(20)), rows_of="model_budget")
    allowed = [result for result in results if result is not None]
    assert 1 <= len(allowed) <= 10
    assert set(allowed) == {0.0}


async def test_what_would_be_too_late_is_not_counted(adapters: Adapters) -> None:
    budget = adapters.budget(2)
    while await budget.reserve(within=0) is not None:
        pass
    for _ in range(10):
        assert await budget.reserve(within=1) is None
    wait = await budget.reserve(within=60)
    assert wait is not None
    assert 30 - BLUR <= wait <= 60


async def test_a_booked_turn_counts_for_others(adapters: Adapters) -> None:
    budget = adapters.budget(1)
    waits = [await budget.reserve(within=1_000) for _ in range(4)]
    assert waits[0] == 0
    for number, wait in enumerate(waits):
        assert wait is not None
        assert 60 * number - BLUR <= wait <= 62 * number


async def test_unlimited_is_never_waited_for(adapters: Adapters) -> None:
    budget = adapters.budget(0)
    assert {await budget.reserve(within=0) for _ in range(1_000)} == {0.0}


async def test_unlimited_does_not_need_the_database() -> None:
    """No connection is open here."""
    assert await PostgresModelBudget(0).reserve(within=0) == 0.0


async def test_all_workers_share_it(adapters: Adapters) -> None:
    """Two adapters on one store. In memory there is but one process, hence one adapter."""
    first = adapters.budget(1)
    second = first if "InMemory" in type(adapters).__name__ else adapters.budget(1)
    assert await first.reserve(within=0) == 0
    assert await second.reserve(within=0) is None
