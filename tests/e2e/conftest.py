"""Real processes on a separate database, with the model's stand-in over real HTTP."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from tests.support.database import new_database, pooled
from tests.support.gemini_standin import GeminiStandIn
from tests.support.http_client import http_client
from tests.support.patience import PATIENT
from tests.support.processes import ProductProcess, api_process, worker_process


@pytest.fixture(scope="session")
def product(postgres_url: str, redis_url: str, gemini_standin_server: GeminiStandIn) -> Iterator[dict[str, str]]:
    """The environment of the product; impatient, so that tests need not wait for its leases."""
    with new_database(postgres_url) as database_url:
        yield {
            "DATABASE_URL": pooled(database_url),
            "REDIS_URL": redis_url,
            "REDIS_NAMESPACE": f"test-{secrets.token_hex(6)}",
            "ACCESS_TOKEN_SECRET": secrets.token_hex(32),
            "GEMINI_API_KEY": "a-key-for-the-stand-in",
            "GEMINI_BASE_URL": gemini_standin_server.url,
            **PATIENT,
            "LEASE_SECONDS": "4",
            "HEARTBEAT_SECONDS": "0.5",
            "SWEEP_SECONDS": "0.3",
            "RATE_LIMITS": "off",  # one address signs everybody up, and their codes come quickly one after another
        }


@pytest.fixture(scope="session")
async def http(product: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    with api_process(product) as (url, _):
        async with http_client(url) as client:
            yield client


@pytest.fixture
def worker(product: dict[str, str]) -> Iterator[ProductProcess]:
    with worker_process(product) as process:
        yield process
