"""`python -m tests.benchmarks [SECTION …]`: measure, store the figures, and rewrite the documents that show them."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
import uvloop

from tests.benchmarks import calls, delays, documents, growth, layers, processes, replies, streams, writes
from tests.benchmarks.figures import STORED, Figures, Results, Section
from tests.benchmarks.stage import SMALL, Scale

SECTIONS: dict[str, Callable[[Scale], Awaitable[Figures]]] = {
    "calls": calls.measure,
    "layers": layers.measure,
    "replies": replies.measure,
    "delays": delays.measure,
    "streams": streams.measure,
    "growth": growth.measure,
    "writes": writes.measure,
    "processes": processes.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"by default all: {', '.join(SECTIONS)}")
    parser.add_argument("--small", action="store_true", help="tiny counts, which only show that the benchmark works")
    parser.add_argument(
        "--into", type=Path, default=STORED, help="the file of results; others leave the documents alone"
    )
    given = parser.parse_args()
    if unknown := set(given.sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    if given.small and given.into == STORED:
        parser.error("--small needs --into, because its figures say nothing")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    for name in given.sections or SECTIONS:
        began = time.monotonic()
        figures = uvloop.run(_measured(SECTIONS[name], SMALL if given.small else Scale()))
        results = Results.read(given.into)
        results.sections[name] = Section.measured(figures)
        results.write(given.into)
        print(f"\n{name} ({time.monotonic() - began:.0f} s)")
        for figure, found in figures.items():
            print(f"  {figure:32} {found!s:>16}  {found.spread}", flush=True)
        if given.into == STORED and set(results.sections) >= set(SECTIONS):
            documents.rewrite(results)


async def _measured(section: Callable[[Scale], Awaitable[Figures]], scale: Scale) -> Figures:
    """On SIGTERM, too, everything that was started ends."""
    measuring = asyncio.ensure_future(section(scale))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, measuring.cancel)
    return await measuring


if __name__ == "__main__":
    main()
