"""Syncs: what is true of a user's subscriptions is read from Stripe."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from application.ports.billing import (
    CheckoutState,
    ClaimedSync,
    CustomerGone,
    Customers,
    PaymentGateway,
    Subscriptions,
    SyncJobs,
)
from application.ports.runtime import Clock, JobQueue
from domain.billing import Subscription, Tier, pro_until
from domain.errors import DomainError, PaymentsRefused, PaymentsUnavailable
from domain.ids import UserId

log = logging.getLogger(__name__)

SYNC_SECONDS = 60.0  # for all calls of one sync; its lease is longer
LEASE = timedelta(seconds=90)
MAX_DELAY = 900.0


@dataclass(frozen=True, slots=True)
class _Read:
    """What Stripe said in one sync."""

    states: list[CheckoutState]
    subscriptions: list[Subscription]

    @property
    def awaits_payment(self) -> bool:
        return any(not state.checkout.settled and state.payment is None for state in self.states)


@dataclass(frozen=True, slots=True)
class SyncSubscriptions:
    """Read a user's subscriptions from Stripe and store them; the tier follows from them and the time.

    True if it did so; False if the account was not due, another worker has it, or the sync failed and was put off.
    A change in the meantime makes the account due again, and it is read again. If this process is killed, the lease
    expires and another worker reads; the fencing token keeps a slow reader from overwriting a later one.
    """

    jobs: SyncJobs
    customers: Customers
    stored: Subscriptions
    gateway: PaymentGateway
    clock: Clock
    prices: frozenset[str]
    checkouts_after: timedelta
    subscriptions_after: timedelta

    async def __call__(self, *, user_id: UserId) -> bool:
        synced = False
        while await self._once(user_id):
            synced = True
        return synced

    async def _once(self, user_id: UserId) -> bool:
        claimed = await self.jobs.claim(user_id, lease=LEASE)
        if claimed is None:
            return False
        account = claimed.account
        try:
            async with asyncio.timeout(SYNC_SECONDS):
                read = await self._read(claimed)
        except asyncio.CancelledError:  # this process stops: another worker may have it at once
            await self.jobs.retry(account, delay=timedelta())
            raise
        except (DomainError, TimeoutError) as error:
            code = error.code if isinstance(error, DomainError) else PaymentsUnavailable.code
            log.warning("subscriptions_not_read: %s", code)
            await self.jobs.retry(account, delay=_delay(account.failures))
            return False
        known = await self.stored.subscriptions(user_id)
        finished = await self.jobs.finish(
            account,
            subscriptions=read.subscriptions,
            checkouts=[state.checkout for state in read.states],
            pro_until=pro_until(read.subscriptions, self.prices),
            due_in=await self._next_sync(user_id, read),
        )
        is_pro = self._is_pro(read.subscriptions)
        if finished and not account.announced and self._is_pro(known) != is_pro:
            # Stripe's event was lost, so this user has had the wrong tier until now.
            log.warning("tier_mended: user %s is %s", user_id, Tier.PRO if is_pro else Tier.BASIC)
        return finished

    def _is_pro(self, subscriptions: Sequence[Subscription]) -> bool:
        until = pro_until(subscriptions, self.prices)
        return until is not None and until > self.clock.now()

    async def _next_sync(self, user_id: UserId, read: _Read) -> timedelta | None:
        if read.awaits_payment:
            return self.checkouts_after
        if read.subscriptions or await self.customers.customer(user_id):
            return self.subscriptions_after
        return None

    async def _read(self, claimed: ClaimedSync) -> _Read:
        # Checkouts first: the customer of one that was not opened by us is only known from it.
        account, states = claimed.account, await self._states(claimed)
        subscriptions = [state.payment for state in states if state.payment]
        customer_id = account.customer_id or await self._link_customer(account.user_id, states)
        if customer_id is not None:
            try:
                subscriptions += await self.gateway.subscriptions(customer_id, account.user_id)
            except CustomerGone:
                await self.customers.drop_customer(account.user_id, customer_id)
        # Subscriptions to other products must not keep their user from subscribing to Pro.
        return _Read(states, [bought for bought in subscriptions if bought.price_id in self.prices])

    async def _states(self, claimed: ClaimedSync) -> list[CheckoutState]:
        user_id, states = claimed.account.user_id, list[CheckoutState]()
        for checkout in claimed.checkouts:
            try:
                state = await self.gateway.checkout(checkout.id, user_id)
            except PaymentsRefused:
                # Without an answer the tier that hangs on this checkout must stay.
                if any(bought.id == checkout.id for bought in await self.stored.subscriptions(user_id)):
                    raise
                continue
            states.append(state or CheckoutState(checkout=checkout.closed()))
        return states

    async def _link_customer(self, user_id: UserId, states: Sequence[CheckoutState]) -> str | None:
        for state in states:
            if state.customer_id and await self.customers.add_customer(user_id, state.customer_id):
                return state.customer_id
        return None


def _delay(failures: int) -> timedelta:
    """Exponential with full jitter; syncs are never given up."""
    return timedelta(seconds=random.uniform(1, min(MAX_DELAY, 2.0 * 2 ** min(failures, 12))))


@dataclass(frozen=True, slots=True)
class ResumeSyncs:
    """Notify workers of accounts that are due without a notification: a sync that failed, died, or is a routine one.

    Every worker does this every few seconds, for a few accounts at a time so that Stripe is not flooded.
    Returns the accounts that no worker could be notified of because Redis is unavailable.
    """

    jobs: SyncJobs
    queue: JobQueue
    notified_before: timedelta
    batch: int = 10

    async def __call__(self) -> list[UserId]:
        due = await self.jobs.take_due(limit=self.batch, notified_before=self.notified_before)
        return due if due and not await self.queue.notify(due) else []


@dataclass(frozen=True, slots=True)
class ReconcileUser:
    """Read one user's subscriptions from Stripe now, in this process.

    False if there was nothing to read, or if it failed.
    """

    jobs: SyncJobs
    sync: SyncSubscriptions

    async def __call__(self, *, user_id: UserId) -> bool:
        await self.jobs.make_due(user_id)
        return await self.sync(user_id=user_id)


@dataclass(frozen=True, slots=True)
class Reconciled:
    """How many accounts were read, and how many could not be read and stay due."""

    synced: int
    failed: int


@dataclass(frozen=True, slots=True)
class ReconcileAll:
    """Read everybody's subscriptions from Stripe now, in this process.

    It may be stopped at any time: the workers read what is still due.
    """

    jobs: SyncJobs
    sync: SyncSubscriptions
    notified_before: timedelta
    batch: int = 10

    async def __call__(self) -> Reconciled:
        await self.jobs.make_due()
        results = list[bool]()
        while due := await self.jobs.take_due(limit=self.batch, notified_before=self.notified_before):
            results += await asyncio.gather(*(self.sync(user_id=user_id) for user_id in due))
        return Reconciled(results.count(True), results.count(False))
