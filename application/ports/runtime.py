"""The ports that any use case may need."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol, runtime_checkable
from uuid import UUID

from domain.rates import Rate


class Clock(Protocol):
    @abstractmethod
    def now(self) -> datetime:
        """UTC, cut to the millisecond, so that what is stored and what is sent are equal."""


class Ids(Protocol):
    @abstractmethod
    def new(self) -> UUID:
        """A version 7 UUID: later ones of this process sort after earlier ones."""


class UnitOfWork(Protocol):
    """Several repository verbs, all or none: `async with self.unit_of_work():`.

    Commits at the end of the block, and rolls back if an exception leaves it. It holds database work only: no vendor
    call, no new task, no yield.
    """

    @abstractmethod
    def __call__(self) -> AbstractAsyncContextManager[None]: ...


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A reply as it was sent."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class StartedRequest:
    """A request that the caller is to carry out."""

    resource_id: UUID
    """The id for what it creates: `new_id` for the first caller, and the same one for later callers."""


#: How long a key is stored.
KEY_RETENTION = timedelta(hours=24)


class IdempotencyKeys(Protocol):
    """Requests that a client may safely repeat. A key is stored for KEY_RETENTION.

    An id for what the request creates is stored with the key. If the process that began dies before it has finished,
    the next caller gets the same id, and nothing is created twice.
    """

    @abstractmethod
    async def begin(
        self, scope: str, key: str, body_hash: bytes, *, new_id: UUID, busy_for: timedelta
    ) -> StartedRequest | StoredReply:
        """The request, for one caller at a time, or its reply if it has one already.

        Raises IdempotencyKeyReused (another body) or IdempotencyKeyInUse (begun less than `busy_for` ago and not
        finished).
        """

    @abstractmethod
    async def finish(self, scope: str, key: str, reply: StoredReply) -> None:
        """Store the reply for repetitions of the request; the first one stays."""

    @abstractmethod
    async def abandon(self, scope: str, key: str) -> None:
        """Release a request whose reply is not worth storing. Its id stays: it may have had its effect."""

    @abstractmethod
    async def forget(self, scope: str, key: str) -> None:
        """Delete the key of an unfinished request that certainly had no effect."""

    @abstractmethod
    async def trim(self, scopes: Sequence[str], *, keep: int) -> None:
        """Remove all but the newest `keep` keys of these scopes together, except those of running requests."""

    @abstractmethod
    async def purge(self) -> None:
        """Remove the keys older than KEY_RETENTION."""


class JobQueue(Protocol):
    """Wakes workers for one kind of job. A notification may be lost or come twice; the store decides."""

    @abstractmethod
    async def notify(self, ids: Sequence[UUID]) -> bool:
        """Ask some worker to look at these. False, within 500 ms, if that is impossible now.

        It may then be tried again in the background, for some seconds.
        """


class Bucket(NamedTuple):  # cheaper to make than a frozen dataclass: each call makes one of these three
    """The calls that are counted together: those of one subject, such as an address, under a rule's name."""

    rule: str
    subject: str
    rate: Rate


class Remaining(NamedTuple):
    """The calls that a bucket still allows, and the seconds until it allows all of them again."""

    calls: int
    resets_in: float


class RateDecision(NamedTuple):
    retry_after: float
    """Seconds until the call is allowed; 0 if it is allowed now."""
    remaining: Sequence[Remaining]
    """In the order of the buckets."""
    is_shared: bool = True
    """Whether the call was counted for all processes together."""


class RateLimiter(Protocol):
    """Counts calls, so that nobody gets more than their share."""

    @abstractmethod
    async def hit(self, buckets: Sequence[Bucket]) -> RateDecision:
        """Count a call in all of these buckets, or in none if one of them does not allow it.

        Atomic: of n calls at once exactly as many are allowed as the rate allows. The subject itself is not stored.
        Raises RedisUnavailable.
        """


class Dependency(Protocol):
    """Something outside this process that /ready and `check` test."""

    name: str

    @abstractmethod
    async def check(self) -> None:
        """Return within a second if it works; raise DomainError otherwise."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something about a dependency that an operator should know. It holds no secret."""

    name: str
    value: str
    warning: str = ""
    """What is wrong with it, if anything, and what to do about it."""
    is_fatal: bool = False
    """Whether the product cannot work because of that."""


@runtime_checkable
class Described(Protocol):
    """Something outside this process that can say more about itself than whether it works."""

    @abstractmethod
    async def describe(self) -> Sequence[Fact]:
        """What `check` shows. Raises DomainError if it cannot be asked."""


@runtime_checkable
class Verified(Protocol):
    """Something outside this process that can be tested more thoroughly than every few seconds."""

    @abstractmethod
    async def verify(self) -> None:
        """Return within two seconds if it does all that the product needs; raise DomainError otherwise."""


class Resource(Protocol):
    """Something that is opened before the first request or job and closed after the last."""

    @abstractmethod
    async def start(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...
