"""Readiness: whether requests can be served."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from application.ports.chat import ModelSetup
from application.ports.runtime import Dependency
from domain.errors import DatabaseUnavailable, DomainError, RedisUnavailable, Unavailable


class NotReady(DatabaseUnavailable):
    def __init__(self, dependencies: dict[str, str]) -> None:
        unavailable = ", ".join(name for name, state in dependencies.items() if state.startswith("away"))
        super().__init__(f"Unavailable: {unavailable}.")


class Stopping(Unavailable):
    code = "stopping"
    detail = "This process is stopping. Send requests to another one."


class Shutdown:
    """Whether this process is stopping: from then on it is not ready, though it still serves for a while."""

    def __init__(self) -> None:
        self.has_begun = False

    def begin(self) -> None:
        self.has_begun = True


@dataclass(frozen=True, slots=True)
class CheckReadiness:
    """The state of each dependency. Raises NotReady if the first, without which nothing works, is unavailable.

    Raises Stopping once this process is about to stop.

    The model is not a dependency of this process; it is listed only if it refuses the workers' key.
    """

    dependencies: Sequence[Dependency]
    setup: ModelSetup
    shutdown: Shutdown

    async def __call__(self) -> dict[str, str]:
        if self.shutdown.has_begun:
            raise Stopping
        states = await asyncio.gather(*map(_state, self.dependencies))
        found = {dependency.name: state for dependency, state in zip(self.dependencies, states, strict=True)}
        if states[0] != "ok":
            raise NotReady(found)
        if refused_for := await self.setup.refused_for():
            found["model"] = f"not configured ({refused_for})"
        return found


async def _state(dependency: Dependency) -> str:
    try:
        await dependency.check()
    except RedisUnavailable as error:
        return f"away ({error.state})" if error.state else "away"
    except DomainError:
        return "away"
    return "ok"
