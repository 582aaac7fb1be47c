"""Readiness: whether requests can be served."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from application.ports.runtime import Dependency
from domain.errors import DatabaseUnavailable, DomainError

State: TypeAlias = Literal["ok", "away"]


class NotReady(DatabaseUnavailable):
    def __init__(self, dependencies: dict[str, State]) -> None:
        super().__init__("Away: " + ", ".join(name for name, state in dependencies.items() if state == "away") + ".")


@dataclass(frozen=True, slots=True)
class CheckReadiness:
    """The state of each dependency. Raises NotReady if the first, without which nothing works, is unavailable."""

    dependencies: Sequence[Dependency]

    async def __call__(self) -> dict[str, State]:
        states = await asyncio.gather(*map(_state, self.dependencies))
        found = {dependency.name: state for dependency, state in zip(self.dependencies, states, strict=True)}
        if states[0] != "ok":
            raise NotReady(found)
        return found


async def _state(dependency: Dependency) -> State:
    try:
        await dependency.check()
    except DomainError:
        return "away"
    return "ok"
