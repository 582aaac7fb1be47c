"""Scenarios: how large each is, what it reports, and how a suite of them is run.

pytest runs each scenario small and seeded (`run_small`); `python -m tests.SUITE` runs them at full length and prints
a table (`main`).
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeVar

from tests.support.patience import PATIENT, PROCESS_HANG

T = TypeVar("T")
SEED = 1


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    test: str
    to_reach: str
    measured: str
    held: bool


@dataclass(frozen=True)
class Scale:
    """The long run keeps the product's defaults and the targets.

    The small run is for every day: outages of seconds, short leases, and time limits so generous that a slow machine
    passes. What must never happen is the same in both.
    """

    long: bool

    def of(self, small: T, long: T) -> T:
        return long if self.long else small

    def bound(self, seconds: float) -> float:
        return seconds if self.long else max(10 * seconds, 60)

    @property
    def unended(self) -> int | None:
        """The most unended messages a steady load may leave; the small run limits them, to suit a slow machine."""
        return self.of(60, None)

    @property
    def settings(self) -> dict[str, str]:
        """For the small run: quick recovery, and long timeouts for a slow machine's servers."""
        quick = {"LEASE_SECONDS": "5", "HEARTBEAT_SECONDS": "0.5", "SWEEP_SECONDS": "0.5"}
        return self.of({**PATIENT, **quick}, {})

    @property
    def impatient(self) -> dict[str, str]:
        """The same with the product's own timeouts, for scenarios in which servers are down."""
        return {name: value for name, value in self.settings.items() if name not in PATIENT}


SMALL, LONG = Scale(long=False), Scale(long=True)

Scenario = Callable[[Scale, int], Awaitable[Row]]


async def run_small(scenario: Scenario) -> Row:
    async with asyncio.timeout(5 * PROCESS_HANG):  # bounds a hang only; scenarios have their own time limits
        return await scenario(SMALL, SEED)


def assert_held(row: Row) -> None:
    assert row.held, f"{row.test}\nto reach: {row.to_reach}\nmeasured: {row.measured}"


def main(
    package: str,
    names: Iterable[str],
    stage: Callable[[], AbstractAsyncContextManager[Mapping[str, Scenario]]],
    *,
    timeout_seconds: float,
) -> int:
    """The command line of a suite. Each scenario may take `timeout_seconds`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {package}")
    parser.add_argument("--only", action="append", choices=list(names), help="run this scenario; may be repeated")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--small", action="store_true", help="run them as pytest does")
    options = parser.parse_args()
    scale = SMALL if options.small else LONG
    rows = asyncio.run(_run(options.only or list(names), stage, scale, options.seed, timeout_seconds))
    table = ["| test | to reach | measured | held |", "|---|---|---|---|"]
    table += [f"| {row.test} | {row.to_reach} | {row.measured} | {'yes' if row.held else 'NO'} |" for row in rows]
    sys.stdout.write("\n".join(table) + "\n")
    return 0 if all(row.held for row in rows) else 1


async def _run(
    names: list[str],
    stage: Callable[[], AbstractAsyncContextManager[Mapping[str, Scenario]]],
    scale: Scale,
    seed: int,
    timeout_seconds: float,
) -> list[Row]:
    task = asyncio.current_task()
    assert task is not None
    # On SIGTERM the scenarios are unwound, so that no process is left behind.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    rows = []
    async with stage() as scenarios:
        for name in names:
            started = time.monotonic()
            _report(f"{name} …")
            try:
                async with asyncio.timeout(timeout_seconds):
                    row = await scenarios[name](scale, seed)
            except Exception as error:  # noqa: BLE001 - a broken scenario must not hide the results of the others
                row = Row(name, "to run to its end", f"{type(error).__name__}: {error}", held=False)
            verdict = "held" if row.held else "DID NOT HOLD"
            _report(f"{name}: {verdict}, {time.monotonic() - started:.0f} s\n  {row.measured}")
            rows.append(row)
    return rows


def _report(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
