"""Every error that a call may answer with is in the document, where a client looks for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx

from domain import errors
from entrypoints.http.api import accounts, billing, chat, operations
from entrypoints.http.server.errors import status_of

#: Codes of failed messages, not of calls.
OF_MESSAGES = errors.ModelError
#: Never leave: the service is served without Redis.
WITHIN = {errors.RedisUnavailable, errors.RedisMisconfigured}
#: What others are derived from.
FAMILIES = {
    errors.DomainError,
    errors.NotAuthenticated,
    errors.NotFound,
    errors.TooManyRequests,
    errors.Unavailable,
    errors.InvalidInput,
}


def family(root: type[errors.DomainError]) -> Iterator[type[errors.DomainError]]:
    yield root
    for child in root.__subclasses__():
        yield from family(child)


def codes(operation: dict[str, Any]) -> dict[int, set[str]]:
    """By status, what the document says about an operation's errors."""
    return {
        int(status): set(re.findall(r"`(\w+)`:", reply["description"]))
        for status, reply in operation["responses"].items()
        if int(status) >= 400
    }


async def operations_of(http: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    document = (await http.get("/openapi.json")).json()
    return {operation["operationId"]: operation for path in document["paths"].values() for operation in path.values()}


async def test_every_declared_error_is_documented_at_its_status(http: httpx.AsyncClient) -> None:
    documented = await operations_of(http)
    for area in (accounts, chat, billing, operations):
        for endpoint in area.endpoints:
            found = codes(documented[endpoint.name])
            for error in endpoint.errors:
                assert error.code in found.get(status_of(error), set()), f"{endpoint.name}: {error.code}"
            if endpoint.authenticated:
                assert found[401] >= {"token_missing", "token_invalid", "token_expired"}, endpoint.name
            if endpoint.all_limits:
                assert "rate_limited" in found[429], endpoint.name
            if endpoint.body:
                assert found.keys() >= {400, 413, 422}, endpoint.name


async def test_every_error_of_the_domain_is_documented_somewhere(http: httpx.AsyncClient) -> None:
    documented = {
        code
        for operation in (await operations_of(http)).values()
        for found in codes(operation).values()
        for code in found
    }
    ours = {
        error
        for error in family(errors.DomainError)
        if error.__module__ == errors.__name__ and not issubclass(error, OF_MESSAGES) and error not in FAMILIES | WITHIN
    }
    assert {error.code for error in ours} - documented == set()


async def test_every_error_has_an_explicit_status() -> None:
    for error in family(errors.DomainError):
        if error not in FAMILIES and not issubclass(error, OF_MESSAGES):
            assert status_of(error) != 500, error.__name__
