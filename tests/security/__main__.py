"""The attacks at full length: python -m tests.security [--only NAME …] [--seed N] [--small]"""

from __future__ import annotations

import sys

from tests.security.scenarios import SCENARIOS, staged
from tests.support.scenarios import main

if __name__ == "__main__":
    sys.exit(main("tests.security", SCENARIOS, staged, timeout_seconds=3600))
