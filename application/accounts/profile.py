"""One's own account: its name, and its end."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from application.ports.accounts import Users
from application.ports.billing import BillingAccounts, CustomerGone, PaymentGateway
from domain.accounts import User


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
    trying again goes on where this stopped.
    """

    users: Users
    accounts: BillingAccounts
    gateway: PaymentGateway

    async def __call__(self, *, user: User) -> None:
        for checkout in await self.accounts.open_checkouts(user.id):
            await self.gateway.close_checkout(checkout.id)
        customer_id = await self.accounts.customer(user.id)
        if customer_id is not None:
            with suppress(CustomerGone):
                await self.gateway.delete_customer(customer_id)
        await self.users.delete(user.id)
