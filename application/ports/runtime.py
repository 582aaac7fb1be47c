"""What every use case may need of the machine it runs on."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol
from uuid import UUID


class Clock(Protocol):
    @abstractmethod
    def now(self) -> datetime:
        """UTC, cut to the millisecond: what is stored and what is sent are the same."""


class Ids(Protocol):
    @abstractmethod
    def new(self) -> UUID:
        """A version 7 UUID: later ones of this process sort after earlier ones."""


class UnitOfWork(Protocol):
    """Several repository verbs, all or none: `async with self.unit_of_work():`.

    Commits at the end of the block and rolls back if it is left by an exception. Hold database
    work only: no vendor call, no new task, no yield inside.
    """

    @abstractmethod
    def __call__(self) -> AbstractAsyncContextManager[None]: ...


class Dependency(Protocol):
    """Something outside this process that /ready and `check` look at."""

    name: str

    @abstractmethod
    async def check(self) -> None:
        """Return within a second if it serves us; raise DomainError otherwise."""


class Resource(Protocol):
    """Something opened before the first request or job and closed after the last."""

    @abstractmethod
    async def start(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...
