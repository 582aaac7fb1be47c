"""What ModelSetup promises: the last report, for all processes."""

from __future__ import annotations

from tests.contracts.conftest import Adapters


async def test_the_last_report_holds(adapters: Adapters) -> None:
    assert await adapters.setup.refused_for() is None
    for reported in ("API_KEY_INVALID", "API_KEY_INVALID", "HTTP_403", None, None, "API_KEY_INVALID"):
        await adapters.setup.report(reported)
        assert await adapters.setup.refused_for() == reported


async def test_of_many_at_once_one_holds(adapters: Adapters) -> None:
    await adapters.setup.report("API_KEY_INVALID")
    results = await adapters.race(*(adapters.setup.report(f"REASON_{n}") for n in range(20)), rows_of="model_setup")
    assert results == [None] * 20
    assert await adapters.setup.refused_for() in {f"REASON_{n}" for n in range(20)}


async def test_rolled_back_it_was_never_reported(adapters: Adapters) -> None:
    await adapters.setup.report("API_KEY_INVALID")
    async with adapters.rolled_back():
        await adapters.setup.report(None)
    assert await adapters.setup.refused_for() == "API_KEY_INVALID"
