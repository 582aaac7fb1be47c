"""Random verbs, in random order, played by Hypothesis on real servers.

STATE_MACHINE_EXAMPLES=2000 plays that many games, new ones each time; without it a few are played, always the same.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.support.patience import HANG

T = TypeVar("T")

EXAMPLES = int(os.environ.get("STATE_MACHINE_EXAMPLES", "0"))


class Game(RuleBasedStateMachine):
    """Runs in a thread, and its verbs in the loop that the connections belong to."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(HANG)


async def play(make: Callable[[asyncio.AbstractEventLoop], Game], *, games: int, steps: int) -> None:
    loop = asyncio.get_running_loop()
    chosen = settings(
        max_examples=EXAMPLES or games,
        stateful_step_count=steps,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    run: Callable[..., None] = run_state_machine_as_test  # a factory will do where it asks for a class
    await asyncio.to_thread(run, lambda: make(loop), settings=chosen)
