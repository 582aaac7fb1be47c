"""A worker that also measures its event loop: how much later than asked for a timer of 10 ms fires.

Started with the name of a file, to which it writes the delays in milliseconds, as JSON, twice a second.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from entrypoints.settings import WORKER_NEEDS, Settings
from entrypoints.telemetry import configure_logs
from entrypoints.worker import loop_factory, work

_TICK = 0.01


async def _measure(file: Path) -> None:
    delays: list[float] = []
    written = time.monotonic()
    while True:
        began = time.monotonic()
        await asyncio.sleep(_TICK)
        now = time.monotonic()
        delays.append((now - began - _TICK) * 1000)
        if now - written > 0.5:
            file.with_suffix(".new").write_text(json.dumps(delays))
            file.with_suffix(".new").replace(file)
            written = now


async def _work_and_measure(settings: Settings, file: Path) -> None:
    measuring = asyncio.create_task(_measure(file))
    await work(settings)
    measuring.cancel()


def main() -> None:
    settings = Settings.from_environment(os.environ, needs=WORKER_NEEDS)
    configure_logs(settings)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_work_and_measure(settings, Path(sys.argv[1])))


if __name__ == "__main__":
    main()
