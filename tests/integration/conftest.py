"""One API process for all HTTP tests, with its own database and no worker: messages stay as they were sent."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from tests.support.database import new_database
from tests.support.http_client import Person, http_client, sign_up
from tests.support.patience import PATIENT
from tests.support.processes import api_process


@pytest.fixture(scope="session")
def api_environment(postgres_url: str, redis_url: str) -> Iterator[dict[str, str]]:
    with new_database(postgres_url) as database_url:
        yield {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "REDIS_NAMESPACE": f"test-{secrets.token_hex(6)}",
            "ACCESS_TOKEN_SECRET": secrets.token_hex(32),
            **PATIENT,
            "RATE_LIMITS": "off",  # nothing is ever answered here, so all would stay in flight
        }


@pytest.fixture(scope="session")
async def http(api_environment: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    with api_process(api_environment) as (url, _):
        async with http_client(url) as client:
            yield client


@pytest.fixture(scope="session")
async def second_http(api_environment: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """Another API process on the same database; it waits less long for a request."""
    with api_process({**api_environment, "HEADER_SECONDS": "1", "REQUEST_SECONDS": "2"}) as (url, _):
        async with http_client(url) as client:
            yield client


@pytest.fixture(scope="session")
async def limited_http(api_environment: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """Another one, with all limits on."""
    with api_process({**api_environment, "RATE_LIMITS": "on"}) as (url, _):
        async with http_client(url) as client:
            yield client


@pytest.fixture
async def person(http: httpx.AsyncClient) -> Person:
    return await sign_up(http)


@pytest.fixture(scope="session")
async def stranger(http: httpx.AsyncClient) -> Person:
    """Somebody else, for whom it does not matter what earlier tests did."""
    return await sign_up(http, "Somebody else")
