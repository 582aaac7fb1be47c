"""What is looked at before a process starts to serve: mistakes that waiting would not end."""

from __future__ import annotations

import asyncio

import structlog

from application.ports.runtime import Verified
from domain.errors import RedisMisconfigured, Unavailable
from entrypoints.container import Container
from entrypoints.settings import Settings

log = structlog.get_logger(__name__)


def refuse_mistakes(settings: Settings) -> None:
    """Raises RedisMisconfigured. An outage is only logged: the product starts without its servers.

    Called before there are several processes: one of them would be started again, only to fail again.
    """
    asyncio.run(_verify(settings))


async def _verify(settings: Settings) -> None:
    container = Container(settings=settings)
    for dependency in container.watched():
        if not isinstance(dependency, Verified):
            continue
        try:
            await dependency.verify()
        except RedisMisconfigured:
            raise
        except Unavailable as error:
            log.warning(error.code, cause=error.cause)
    await container.redis().close()
