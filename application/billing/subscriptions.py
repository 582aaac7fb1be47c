"""Subscriptions: becoming Pro, managing it, and knowing how it stands."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from application.ports.billing import BillingAccounts, CustomerGone, PaymentGateway
from application.ports.runtime import Clock
from domain.accounts import User
from domain.billing import BillingAccount, Checkout, Subscription, Tier
from domain.errors import AlreadySubscribed, NotSubscribed, PaymentsUnavailable

CHECKOUT_LOCK = timedelta(seconds=30)  # longer than any request lives that opens a checkout
MIN_TIME_LEFT = timedelta(minutes=5)  # what a checkout must have left for somebody who goes there now
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class UpgradeTier:
    """Open a checkout on which the user can subscribe to Pro. However often it is asked, one is open at a time.

    The tier changes when Stripe says that it is paid, not here. Killed at any point, the next call
    goes on with the same customer and the same checkout.
    """

    accounts: BillingAccounts
    gateway: PaymentGateway
    clock: Clock
    recheck_after: timedelta
    patience: float

    async def __call__(self, *, user: User) -> Checkout:
        if user.tier(self.clock.now()) is Tier.PRO:
            raise AlreadySubscribed
        try:
            async with asyncio.timeout(self.patience):
                while True:
                    open_until = self.clock.now() + MIN_TIME_LEFT
                    begun = await self.accounts.begin_checkout(user.id, open_until=open_until, busy_for=CHECKOUT_LOCK)
                    if isinstance(begun, Checkout):
                        return begun
                    if begun is not None:
                        return await self._open(user, begun)
                    await asyncio.sleep(POLL_SECONDS)
        except (TimeoutError, CustomerGone):  # a customer that is deleted as soon as it is made: asked again, it works
            raise PaymentsUnavailable from None

    async def _open(self, user: User, account: BillingAccount) -> Checkout:
        try:
            await self._close_what_ends_soon(user)
            try:
                checkout = await self.gateway.open_checkout(account, await self._customer(user, account))
            except CustomerGone:
                if account.customer_id:
                    await self.accounts.drop_customer(user.id, account.customer_id)
                account = replace(account, customer_id=None)
                checkout = await self.gateway.open_checkout(account, await self._customer(user, account))
            await self.accounts.add_checkout(checkout, due_in=self.recheck_after)
        except BaseException:
            await self.accounts.unlock_checkout(user.id)
            raise
        return checkout

    async def _close_what_ends_soon(self, user: User) -> None:
        """On two pages somebody could pay twice."""
        for earlier in await self.accounts.open_checkouts(user.id):
            if earlier.expires_at > self.clock.now():
                await self.gateway.close_checkout(earlier.id)

    async def _customer(self, user: User, account: BillingAccount) -> str:
        if account.customer_id is not None:
            return account.customer_id
        customer_id = await self.gateway.create_customer(user.id, name=user.name, number=account.customers)
        if await self.accounts.add_customer(user.id, customer_id):
            return customer_id
        # A reading has adopted one meanwhile, from a checkout that was not opened here.
        return await self.accounts.customer(user.id) or customer_id


@dataclass(frozen=True, slots=True)
class OpenPortal:
    """The address of Stripe's customer portal: cards, invoices, cancelling."""

    accounts: BillingAccounts
    gateway: PaymentGateway

    async def __call__(self, *, user: User) -> str:
        customer_id = await self.accounts.customer(user.id)
        if customer_id is None:
            raise NotSubscribed
        try:
            return await self.gateway.open_portal(customer_id)
        except CustomerGone:
            raise NotSubscribed from None


@dataclass(frozen=True, slots=True)
class GetSubscription:
    """The subscription that makes the user Pro, or else the latest one; None if there never was one."""

    accounts: BillingAccounts
    prices: frozenset[str]

    async def __call__(self, *, user: User) -> Subscription | None:
        found = await self.accounts.subscriptions(user.id)
        return max(found, key=lambda one: _rank(one, self.prices), default=None)


def _rank(subscription: Subscription, prices: frozenset[str]) -> tuple[bool, datetime]:
    until = subscription.pro_until(prices)
    return until is not None, until or subscription.created_at
