"""Connecting to one of several hosts."""

from __future__ import annotations

from typing import Any

import asyncpg

from adapters.postgres.dsn import Dsn


class Hosts:
    """Tries each with a share of the time, the last good one first.

    asyncpg gives all the time to the first, which may be a machine that died and never answers.
    """

    def __init__(self, dsn: Dsn) -> None:
        self._addresses = list(dsn.addresses)

    async def connect(self, url: str, *, timeout: float = 10.0, **settings: Any) -> asyncpg.Connection:
        """As asyncpg.connect."""
        if len(self._addresses) < 2:
            return await asyncpg.connect(url, timeout=timeout, **settings)
        failure: Exception | None = None
        for host, port in tuple(self._addresses):
            try:
                connection = await asyncpg.connect(
                    url, host=host, port=port, timeout=timeout / len(self._addresses), **settings
                )
            except (OSError, asyncpg.TargetServerAttributeNotMatched, asyncpg.CannotConnectNowError) as error:
                failure = error
            else:
                self._addresses.sort(key=(host, port).__ne__)
                return connection
        assert failure is not None
        raise failure
