"""What Stripe tells, and the reading of what is true from Stripe itself."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from application.ports.billing import BillingAccounts, CheckoutState, CustomerGone, PaymentGateway
from application.ports.runtime import Clock, JobQueue
from domain.billing import BillingAccount, Checkout, Subscription
from domain.errors import DomainError, PaymentsRefused, PaymentsUnavailable
from domain.ids import UserId

log = logging.getLogger(__name__)

READING_SECONDS = 60.0  # for all calls of one reading; its lease is longer
LEASE = timedelta(seconds=90)
LONGEST_DELAY = 900.0


@dataclass(frozen=True, slots=True)
class AcceptWebhookEvent:
    """Take note of an event: store its id and make the user's subscriptions due for reading, both or neither.

    What the event says is not believed, for it may be old, late or out of order. It only says whose
    subscriptions to read.
    """

    accounts: BillingAccounts
    gateway: PaymentGateway
    queue: JobQueue
    clock: Clock

    async def __call__(self, *, body: bytes, signature: str | None) -> None:
        event = self.gateway.read_event(body, signature, now=self.clock.now())
        if event is not None and (changed := await self.accounts.add_event(event)):
            await self.queue.notify(changed)


@dataclass(frozen=True, slots=True)
class SyncSubscriptions:
    """Read a user's subscriptions from Stripe and store them; the tier follows from them and the time.

    True if it did so; False if the account was not due, somebody else has it, or it was put off.
    What changes meanwhile makes it due again, and it is read again. Killed at any point, the lease
    runs out and another worker reads; the fencing token keeps a slow reader from overwriting a later one.
    """

    accounts: BillingAccounts
    gateway: PaymentGateway
    prices: frozenset[str]
    checkouts_after: timedelta
    subscriptions_after: timedelta

    async def __call__(self, *, user_id: UserId) -> bool:
        read = False
        while await self._once(user_id):
            read = True
        return read

    async def _once(self, user_id: UserId) -> bool:
        claimed = await self.accounts.claim(user_id, lease=LEASE)
        if claimed is None:
            return False
        account, checkouts = claimed
        try:
            async with asyncio.timeout(READING_SECONDS):
                states, found = await self._read(account, checkouts)
        except asyncio.CancelledError:  # told to stop: another worker may have it at once
            await self.accounts.retry(account, delay=timedelta())
            raise
        except (DomainError, TimeoutError) as error:
            code = error.code if isinstance(error, DomainError) else PaymentsUnavailable.code
            log.warning("subscriptions_not_read: %s", code)
            await self.accounts.retry(account, delay=_delay(account.failures))
            return False
        again = None
        if any(not state.checkout.settled and state.payment is None for state in states):
            again = self.checkouts_after
        elif found or await self.accounts.customer(user_id):
            again = self.subscriptions_after
        until = [moment for one in found if (moment := one.pro_until(self.prices))]
        return await self.accounts.finish(
            account,
            subscriptions=found,
            checkouts=[state.checkout for state in states],
            pro_until=max(until, default=None),
            due_in=again,
        )

    async def _read(
        self, account: BillingAccount, checkouts: Sequence[Checkout]
    ) -> tuple[list[CheckoutState], list[Subscription]]:
        # Checkouts first: the customer of one that was not opened by us is only known from it.
        states = []
        for checkout in checkouts:
            try:
                state = await self.gateway.checkout(checkout.id, account.user_id)
            except PaymentsRefused:
                # Nothing that is known of its user hangs on it, or else the reading must wait for an answer.
                if any(one.id == checkout.id for one in await self.accounts.subscriptions(account.user_id)):
                    raise
                continue
            states.append(state or CheckoutState(checkout=replace(checkout, url=None, settled=True)))
        found = [state.payment for state in states if state.payment]
        customer_id = account.customer_id or await self._adopt(account.user_id, states)
        if customer_id is not None:
            try:
                found += await self.gateway.subscriptions(customer_id, account.user_id)
            except CustomerGone:
                await self.accounts.drop_customer(account.user_id, customer_id)
        # What is bought here besides is no subscription for Pro, and must not keep its user from having one.
        return states, [one for one in found if one.price_id in self.prices]

    async def _adopt(self, user_id: UserId, states: Sequence[CheckoutState]) -> str | None:
        for state in states:
            if state.customer_id and await self.accounts.add_customer(user_id, state.customer_id):
                return state.customer_id
        return None


def _delay(failures: int) -> timedelta:
    """Exponential with full jitter; readings are never given up."""
    return timedelta(seconds=random.uniform(1, min(LONGEST_DELAY, 2.0 * 2 ** min(failures, 12))))


@dataclass(frozen=True, slots=True)
class ResumeSyncs:
    """Notify the workers of accounts that are due: a reading that failed, died, or is a routine one.

    Every worker does this every few seconds, with so many at a time that Stripe is not flooded.
    Returns those of which nobody could be notified, because Redis is unavailable.
    """

    accounts: BillingAccounts
    queue: JobQueue
    quiet: timedelta
    batch: int = 10

    async def __call__(self) -> list[UserId]:
        due = await self.accounts.take_due(limit=self.batch, quiet=self.quiet)
        return due if due and not await self.queue.notify(due) else []


@dataclass(frozen=True, slots=True)
class Reconcile:
    """For operators: read one user's subscriptions from Stripe, or everybody's, now and here.

    Everybody's may be stopped and begun again: what is still due is read by the workers, too.
    """

    accounts: BillingAccounts
    read_subscriptions: SyncSubscriptions
    quiet: timedelta
    batch: int = 10

    async def one(self, user_id: UserId) -> bool:
        await self.accounts.make_due(user_id)
        return await self.read_subscriptions(user_id=user_id)

    async def all(self) -> tuple[int, int]:
        """How many were read, and how many of them could not be and stay due."""
        await self.accounts.make_due()
        read = failed = 0
        while due := await self.accounts.take_due(limit=self.batch, quiet=self.quiet):
            for done in await asyncio.gather(*(self.read_subscriptions(user_id=one) for one in due)):
                read, failed = read + done, failed + (not done)
        return read, failed
