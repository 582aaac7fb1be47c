"""Whether the model takes the deployment's key: a mistake that only its operator can mend, so that is who is told."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from application.ports.chat import LanguageModel, ModelSetup
from application.ports.runtime import Clock
from domain.errors import ModelError, ModelNotConfigured, Unavailable

log = logging.getLogger(__name__)

#: Every call is refused, so this often is often enough.
QUIET = timedelta(minutes=1)


class WatchSetup:
    """One process's part in it: says in the log, and in the store for all processes, that the key is refused.

    What is stored holds until the model takes the key of some process that had been refused, or that starts.
    """

    def __init__(self, model: LanguageModel, setup: ModelSetup, clock: Clock) -> None:
        self._model = model
        self._setup = setup
        self._clock = clock
        self._is_refused = False
        self._quiet_until = datetime.min.replace(tzinfo=UTC)

    async def check(self) -> None:
        """Ask the model, before anybody's message does. It may be away, which says nothing of the key."""
        try:
            await self._model.check()
        except ModelNotConfigured as error:
            await self.refused(error)
        except ModelError as error:
            log.info("model_not_checked: %s", error.code)
        else:
            await self._report(None)

    async def refused(self, error: ModelNotConfigured) -> None:
        self._is_refused = True
        if (now := self._clock.now()) >= self._quiet_until:
            self._quiet_until = now + QUIET
            log.error("model_not_configured: %s", error.reason)
            await self._report(error.reason or error.code)

    async def accepted(self) -> None:
        """A call went well. Costs nothing, unless one was refused before."""
        if self._is_refused and await self._report(None):
            self._is_refused = False
            self._quiet_until = datetime.min.replace(tzinfo=UTC)

    async def _report(self, refused_for: str | None) -> bool:
        try:
            await self._setup.report(refused_for)
        except Unavailable:
            return False
        return True
