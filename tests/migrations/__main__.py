"""`make check`: lint the migrations."""

from __future__ import annotations

import asyncio
import sys

from adapters.postgres.migrate import versions
from tests.migrations import UNLINTED, number, problems


async def main() -> int:
    found = [problem for version in versions() if number(version) > UNLINTED for problem in await problems(version)]
    for problem in found:
        print(f"{problem.migration}: {problem.rule}: {problem.text}")
    if found:
        print("docs/postgres.md and adapters/postgres/steps.py say how; or: # lint: allow RULE - reason")
    return 1 if found else 0


sys.exit(asyncio.run(main()))
