"""The attacks at full length: python -m tests.security [--only NAME …] [--seed N] [--small]"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time

from tests.chaos.scale import LONG, SMALL, Row, Scale
from tests.security.scenarios import SCENARIOS
from tests.security.stage import stage


async def _play(names: list[str], scale: Scale, seed: int) -> list[Row]:
    task = asyncio.current_task()
    assert task is not None
    # Told to stop, it leaves no process behind.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    rows = []
    async with stage() as shared:
        for name in names:
            began = time.monotonic()
            _tell(f"{name} …")
            try:
                async with asyncio.timeout(3600):
                    row = await SCENARIOS[name](shared, scale, seed)
            except Exception as error:  # noqa: BLE001 - one that breaks must not hide the others' results
                row = Row(name, "to be played to its end", f"{type(error).__name__}: {error}", held=False)
            _tell(
                f"{name}: {'held' if row.held else 'DID NOT HOLD'}, {time.monotonic() - began:.0f} s\n  {row.measured}"
            )
            rows.append(row)
    return rows


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.security", description=__doc__)
    arguments.add_argument("--only", action="append", choices=SCENARIOS, help="this scenario; may be given repeatedly")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--small", action="store_true", help="as pytest plays it")
    given = arguments.parse_args()
    rows = asyncio.run(_play(given.only or list(SCENARIOS), SMALL if given.small else LONG, given.seed))
    table = ["| test | to reach | measured | held |", "|---|---|---|---|"]
    table += [f"| {row.test} | {row.to_reach} | {row.measured} | {'yes' if row.held else 'NO'} |" for row in rows]
    sys.stdout.write("\n".join(table) + "\n")
    return 0 if all(row.held for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
