"""Subscriptions: becoming Pro, managing the subscription, and its state."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from application.billing.calls import PaymentCalls
from application.ports.billing import (
    CheckoutBusy,
    CheckoutLock,
    Checkouts,
    CustomerGone,
    CustomerMismatched,
    Customers,
    PaymentGateway,
    Subscriptions,
)
from application.ports.runtime import Clock
from domain.accounts import User
from domain.billing import BillingAccount, Checkout, Subscription, Tier
from domain.errors import AlreadySubscribed, NotSubscribed, PaymentsUnavailable

log = logging.getLogger(__name__)

CHECKOUT_LOCK = timedelta(seconds=30)  # longer than any request that opens a checkout
MIN_TIME_LEFT = timedelta(minutes=5)  # for paying on a checkout that is open already
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class UpgradeTier:
    """Open a checkout on which the user can subscribe to Pro. Repeated calls return the checkout that is open.

    The tier changes when Stripe reports the payment, not here. If a call is killed at any point, the next one goes
    on with the same customer and the same checkout.
    """

    checkouts: Checkouts
    customers: Customers
    gateway: PaymentGateway
    calls: PaymentCalls
    clock: Clock
    recheck_after: timedelta
    timeout: float

    async def __call__(self, *, user: User) -> Checkout:
        if user.tier(self.clock.now()) is Tier.PRO:
            raise AlreadySubscribed
        try:
            async with asyncio.timeout(self.timeout):
                while True:
                    open_until = self.clock.now() + MIN_TIME_LEFT
                    match await self.checkouts.begin_checkout(user.id, open_until=open_until, lock_for=CHECKOUT_LOCK):
                        case CheckoutLock(account):
                            return await self._open(user, account)
                        case CheckoutBusy():
                            await asyncio.sleep(POLL_SECONDS)
                        case checkout:
                            return checkout
        except (TimeoutError, CustomerGone, CustomerMismatched):  # a new customer is neither: the next call works
            raise PaymentsUnavailable from None

    async def _open(self, user: User, account: BillingAccount) -> Checkout:
        try:
            await self._close_what_ends_soon(user)
            try:
                checkout = await self._open_checkout(user, account)
            except (CustomerGone, CustomerMismatched) as error:
                log.warning("customer_replaced: %s", type(error).__name__)
                if account.customer_id:
                    await self.customers.drop_customer(user.id, account.customer_id)
                account = account.without_customer()
                checkout = await self._open_checkout(user, account)
            await self.checkouts.add_checkout(checkout, due_in=self.recheck_after)
        except BaseException:
            await self.checkouts.unlock_checkout(user.id)
            raise
        return checkout

    async def _open_checkout(self, user: User, account: BillingAccount) -> Checkout:
        customer_id = await self._customer(user, account)
        await self.calls.count(user.id)
        return await self.gateway.open_checkout(account, customer_id)

    async def _close_what_ends_soon(self, user: User) -> None:
        """On two open pages somebody could pay twice."""
        for earlier in await self.checkouts.open_checkouts(user.id):
            if earlier.is_open(self.clock.now()):
                await self.calls.count(user.id)
                await self.gateway.close_checkout(earlier.id)

    async def _customer(self, user: User, account: BillingAccount) -> str:
        if account.customer_id is not None:
            return account.customer_id
        await self.calls.count(user.id)
        customer_id = await self.gateway.create_customer(user.id, name=user.name, number=account.customer_count)
        if await self.customers.add_customer(user.id, customer_id):
            return customer_id
        # A sync has linked one concurrently, from a checkout that was not opened here.
        return await self.customers.customer(user.id) or customer_id


@dataclass(frozen=True, slots=True)
class OpenPortal:
    """The URL of Stripe's customer portal, for cards, invoices and cancelling."""

    customers: Customers
    gateway: PaymentGateway
    calls: PaymentCalls

    async def __call__(self, *, user: User) -> str:
        customer_id = await self.customers.customer(user.id)
        if customer_id is None:
            raise NotSubscribed
        await self.calls.count(user.id)
        try:
            return await self.gateway.open_portal(customer_id)
        except CustomerGone:
            raise NotSubscribed from None


@dataclass(frozen=True, slots=True)
class GetSubscription:
    """The subscription that makes the user Pro, or else the latest one; None if there never was one."""

    stored: Subscriptions
    prices: frozenset[str]

    async def __call__(self, *, user: User) -> Subscription | None:
        subscriptions = await self.stored.subscriptions(user.id)
        return max(subscriptions, key=self._rank, default=None)

    def _rank(self, subscription: Subscription) -> tuple[bool, datetime]:
        until = subscription.pro_until(self.prices)
        return until is not None, until or subscription.created_at
