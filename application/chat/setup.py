"""Whether the model accepts the deployment's key. Only operators can fix that, so it is reported to them."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from application.ports.chat import LanguageModel, ModelSetup
from application.ports.runtime import Clock
from domain.errors import ModelError, ModelNotConfigured, Unavailable

log = logging.getLogger(__name__)

#: Every call is refused; more reports would say nothing new.
QUIET = timedelta(minutes=1)


class WatchSetup:
    """Reports, in this process's log and in the store for all processes, that the key is refused.

    The stored report holds until the model accepts the key from a process that was refused before or starts.
    """

    def __init__(self, model: LanguageModel, setup: ModelSetup, clock: Clock) -> None:
        self._model = model
        self._setup = setup
        self._clock = clock
        self._is_refused = False
        self._quiet_until = datetime.min.replace(tzinfo=UTC)

    async def check(self) -> None:
        """Check the key before the first message. An unavailable model says nothing about it."""
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
        """A call succeeded. Costs nothing unless one was refused before."""
        if self._is_refused and await self._report(None):
            self._is_refused = False
            self._quiet_until = datetime.min.replace(tzinfo=UTC)

    async def _report(self, refused_for: str | None) -> bool:
        try:
            await self._setup.report(refused_for)
        except Unavailable:
            return False
        return True
