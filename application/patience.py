"""Waiting for the database to come back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from domain.errors import Unavailable

T = TypeVar("T")


async def retry_until_available(step: Callable[[], Awaitable[T]]) -> T:
    """Until it succeeds, however long the outage: at the latest two seconds after its end."""
    pause = 0.1
    while True:
        try:
            return await step()
        except Unavailable:
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)
