"""The long run: python -m tests.chaos [--only NAME …] [--seed N] [--small]"""

from __future__ import annotations

import sys
from contextlib import nullcontext

from tests.chaos.scenarios import SCENARIOS
from tests.support.scenarios import main

if __name__ == "__main__":
    sys.exit(main("tests.chaos", SCENARIOS, lambda: nullcontext(SCENARIOS), timeout_seconds=600))
