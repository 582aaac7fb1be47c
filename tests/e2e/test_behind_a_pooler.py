"""The contracts and the story behind a pooler in transaction mode: PgBouncer where it can be had, else our stand-in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.patience import PROCESS_HANG
from tests.support.pgbouncer import pgbouncer, pgbouncer_server
from tests.support.pooler import transaction_pooler
from tests.support.processes import ROOT


@pytest.fixture(scope="module")
def pooled_server(postgres_url: str) -> Iterator[str]:
    if binary := pgbouncer():
        with pgbouncer_server(binary, postgres_url) as url:
            yield url
    else:
        with transaction_pooler(postgres_url) as (url, _):
            yield url


#: Those with the most transactions and locks. TEST_POOLER=whole, as `make test-pooler` sets it, runs all of them.
CONTRACTS = [f"tests/contracts/test_{name}.py" for name in ("messages", "claiming", "idempotency", "billing")]
if os.environ.get("TEST_POOLER") == "whole":
    CONTRACTS = ["tests/contracts"]


# Without the test that measures time itself, which passes faster here, and without the long random ones.
@pytest.mark.parametrize(
    "tests",
    [[*CONTRACTS, "-k", "real and not machine and not rarer"], ["tests/e2e/test_story.py"]],
    ids=["contracts", "story"],
)
def test_what_holds_without_it_holds(pooled_server: str, postgres_url: str, redis_url: str, tests: list[str]) -> None:
    """The product is connected through the pooler, and the tests' own connections past it."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": postgres_url, "REDIS_URL": redis_url, "TEST_POOLED_URL": pooled_server},
        capture_output=True,
        text=True,
        timeout=PROCESS_HANG * 10,
    )
    assert done.returncode == 0, done.stdout[-5_000:]
