"""Renaming and deleting an account."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace

from application.accounts.passwords import ProveCaller
from application.accounts.sessions import Caller
from application.billing.calls import PaymentCalls
from application.billing.subscriptions import CHECKOUT_LOCK, POLL_SECONDS
from application.ports.accounts import GuessLimits, Users
from application.ports.billing import Checkouts, CustomerGone, Customers, PaymentGateway
from domain.accounts import GuessKind, User
from domain.errors import PaymentsUnavailable


@dataclass(frozen=True, slots=True)
class RenameUser:
    """Change the account's name."""

    users: Users

    async def __call__(self, *, user: User, name: str) -> User:
        await self.users.rename(user.id, name)
        return replace(user, name=name)


@dataclass(frozen=True, slots=True)
class DeleteUser:
    """Delete the account and all that belongs to it, for a caller who proves to be its owner.

    Stripe comes first, so that nobody pays for a deleted account: open checkouts are closed and the customer is
    deleted, which cancels the subscriptions. If Stripe is unavailable nothing is deleted; another call goes on where
    this one stopped, and the same code proves it again. Meanwhile no new checkout can be opened.
    """

    prove: ProveCaller
    guess_limits: GuessLimits
    users: Users
    checkouts: Checkouts
    customers: Customers
    gateway: PaymentGateway
    calls: PaymentCalls
    timeout: float

    async def __call__(
        self, *, caller: Caller, code: str | None, current_password: str | None, challenge: str | None = None
    ) -> None:
        proof = await self.prove(caller=caller, code=code, current_password=current_password, challenge=challenge)
        if proof is not None:  # the deletion removes the code
            await self.guess_limits.clear(caller.user.mobile, GuessKind.CODE, device=proof.known_device)
        await self.delete(caller.user)

    async def delete(self, user: User) -> None:
        """Without a proof."""
        try:
            async with asyncio.timeout(self.timeout):
                while not await self.checkouts.lock_checkout(user.id, lock_for=CHECKOUT_LOCK):  # noqa: ASYNC110 - no event to wait on
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise PaymentsUnavailable from None
        try:
            await self._end_at_stripe(user)
            await self.users.delete(user.id)
        except BaseException:
            await self.checkouts.unlock_checkout(user.id)
            raise

    async def _end_at_stripe(self, user: User) -> None:
        for checkout in await self.checkouts.open_checkouts(user.id):
            await self.calls.count(user.id)
            await self.gateway.close_checkout(checkout.id)
        customer_id = await self.customers.customer(user.id)
        if customer_id is not None:
            await self.calls.count(user.id)
            with suppress(CustomerGone):
                await self.gateway.delete_customer(customer_id)
