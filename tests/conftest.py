"""What tests share: real servers, a separate database, and the stand-ins for Gemini and Stripe.

DATABASE_URL and REDIS_URL, when set, name the servers to test on; else they are started from their
wheels. Either way the tests get a new database and a new Redis namespace.
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from adapters.postgres.migrate import migrate
from entrypoints.container import Container, running
from entrypoints.settings import Settings
from local.postgres import EmbeddedPostgres
from local.valkey import EmbeddedValkey
from tests.support.database import pooled
from tests.support.gemini_standin import GeminiStandIn, gemini_standin, gemini_standin_server
from tests.support.patience import PATIENT
from tests.support.proxies import nginx
from tests.support.stripe_standin import stripe_standin, stripe_standin_server

# On a slow machine examples take long; the code under test is not at fault. The same examples in each run.
hypothesis.settings.register_profile(
    "tests",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("tests")

__all__ = ["gemini_standin", "gemini_standin_server", "stripe_standin", "stripe_standin_server"]  # fixtures too


@pytest.fixture(scope="module", autouse=True)
def _nothing_left_open() -> Iterator[None]:
    """What a module leaves to the garbage collector without closing it fails that module, not a later one."""
    yield
    gc.collect()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # what is loaded by now stays, and need not be looked at each time


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What a machine like this one leaves out is said, not skipped in silence."""
    if nginx() is None:
        terminalreporter.write_line("nginx could not be had: its recipe was read, but not run.")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return ByFile(config, log)


class ByFile(LoadScopeScheduling):  # type: ignore[misc] # it ships no types
    """The tests of a file share a process and with it their servers. A chaos scenario has its own servers."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith("tests/chaos/") else nodeid.split("::", 1)[0]


@pytest.fixture(scope="session")
def data_dir() -> Iterator[Path]:
    # Short, and not pytest's own: Postgres must be able to reach it when root has become somebody else.
    with tempfile.TemporaryDirectory(prefix="gemini-test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres_url(data_dir: Path) -> Iterator[str]:
    """A Postgres server, by the URL of one of its databases."""
    if given := os.environ.get("DATABASE_URL"):
        yield given
    else:
        with EmbeddedPostgres(data_dir / "postgres") as url:
            yield url


@pytest.fixture(scope="session")
def redis_url(data_dir: Path) -> Iterator[str]:
    if given := os.environ.get("REDIS_URL"):
        yield given
    else:
        with EmbeddedValkey(data_dir / "valkey") as url:
            yield url


@pytest.fixture(scope="session")
def database_url(postgres_url: str) -> Iterator[str]:
    """A new, migrated database, dropped at the end."""
    name = f"test_{secrets.token_hex(6)}"
    url = urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
    asyncio.run(_execute(postgres_url, f'CREATE DATABASE "{name}"'))
    asyncio.run(migrate(url))
    yield url
    asyncio.run(_execute(postgres_url, f'DROP DATABASE "{name}" WITH (FORCE)'))


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def environment(database_url: str, redis_url: str, gemini_standin_server: GeminiStandIn) -> dict[str, str]:
    """What the product's processes are started with."""
    return {
        "DATABASE_URL": pooled(database_url),
        "REDIS_URL": redis_url,
        "REDIS_NAMESPACE": f"test-{secrets.token_hex(6)}",
        "ACCESS_TOKEN_SECRET": secrets.token_hex(32),
        "GEMINI_API_KEY": "a-key-for-the-stand-in",
        "GEMINI_BASE_URL": gemini_standin_server.url,
        **PATIENT,
    }


@pytest.fixture(scope="session")
def settings(environment: dict[str, str]) -> Settings:
    return Settings.from_environment(environment)


@pytest.fixture(scope="session")
async def container(settings: Settings) -> AsyncIterator[Container]:
    """The production wiring, on real servers."""
    container = Container(settings=settings)
    # The clock reads now and then, and tests count the connections that are out.
    async with running([one for one in container.resources() if one is not container.database_clock()]):
        yield container
