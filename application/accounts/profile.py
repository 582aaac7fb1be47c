"""One's own account: its name, and its end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace

from application.billing.subscriptions import CHECKOUT_LOCK, POLL_SECONDS
from application.ports.accounts import Users
from application.ports.billing import BillingAccounts, CustomerGone, PaymentGateway
from domain.accounts import User
from domain.errors import PaymentsUnavailable


@dataclass(frozen=True, slots=True)
class RenameUser:
    """Give the account another name."""

    users: Users

    async def __call__(self, *, user: User, name: str) -> User:
        await self.users.rename(user.id, name)
        return replace(user, name=name)


@dataclass(frozen=True, slots=True)
class DeleteUser:
    """Delete the account and all that belongs to it.

    First at Stripe, so that nobody pays for an account that is gone: its checkouts are closed and the
    customer is deleted, which cancels the subscriptions. If Stripe is away nothing is deleted, and
    trying again goes on where this stopped. No checkout is opened meanwhile, of which nobody would know.
    """

    users: Users
    accounts: BillingAccounts
    gateway: PaymentGateway
    patience: float

    async def __call__(self, *, user: User) -> None:
        try:
            async with asyncio.timeout(self.patience):
                while not await self.accounts.lock_checkout(user.id, busy_for=CHECKOUT_LOCK):  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise PaymentsUnavailable from None
        try:
            await self._end_at_stripe(user)
            await self.users.delete(user.id)
        except BaseException:
            await self.accounts.unlock_checkout(user.id)
            raise

    async def _end_at_stripe(self, user: User) -> None:
        for checkout in await self.accounts.open_checkouts(user.id):
            await self.gateway.close_checkout(checkout.id)
        customer_id = await self.accounts.customer(user.id)
        if customer_id is not None:
            with suppress(CustomerGone):
                await self.gateway.delete_customer(customer_id)
