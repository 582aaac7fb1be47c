"""One's own account: its name, and its end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from adapters.memory.billing import MemoryPaymentGateway
from domain.accounts import User
from domain.billing import BillingAccount, Checkout
from domain.errors import PaymentsRefused, PaymentsUnavailable, UserNotFound
from tests.unit.conftest import ANN, World
from tests.unit.signing_in import UNKNOWN, is_alive, log_in_by_code


class TestRenameUser:
    async def test_gives_another_name(self, world: World) -> None:
        user, other = await world.user(), await world.user(UNKNOWN)
        renamed = await world.container.rename_user()(user=user, name="Zoë 🌻")
        assert renamed == await world.now(user) == replace(user, name="Zoë 🌻")
        assert await world.now(other) == other


class TestDeleteUser:
    async def customer(self, world: World) -> User:
        """Somebody with a checkout at Stripe that is open, and one that is not."""
        user = await world.user()
        first = await world.container.upgrade_tier()(user=user)
        world.clock.move(timedelta(days=2))
        second = await world.container.upgrade_tier()(user=user)
        assert first.id != second.id
        world.gateway.calls.clear()
        return user

    async def is_there(self, world: World, user: User) -> bool:
        return await world.users.find_by_mobile(user.mobile) is not None

    async def test_of_who_never_paid_asks_nobody(self, world: World) -> None:
        user, other = await world.user(), await world.user(UNKNOWN)
        signed_in = await log_in_by_code(world)
        await world.container.delete_user().delete(user)
        assert not await self.is_there(world, user)
        assert await self.is_there(world, other)
        assert not await is_alive(world, signed_in)
        assert world.gateway.calls == []

    async def test_closes_the_checkouts_then_deletes_the_customer(self, world: World) -> None:
        user = await self.customer(world)
        await world.container.delete_user().delete(user)
        assert world.gateway.calls == ["close_checkout", "close_checkout", "delete_customer"]
        assert world.gateway.customers == {}
        assert all(state.checkout.url is None for state in world.gateway.states.values())
        assert not await self.is_there(world, user)

    @pytest.mark.parametrize("error", [PaymentsUnavailable(), PaymentsRefused()], ids=["away", "refused"])
    async def test_deletes_nothing_if_stripe_does_not(
        self, world: World, error: PaymentsUnavailable | PaymentsRefused
    ) -> None:
        user = await self.customer(world)
        signed_in = await log_in_by_code(world)
        world.gateway.error = error
        with pytest.raises(type(error)):
            await world.container.delete_user().delete(user)
        assert await self.is_there(world, user)
        assert await is_alive(world, signed_in)
        world.gateway.error = None
        await world.container.delete_user().delete(user)
        assert not await self.is_there(world, user)

    async def test_a_checkout_that_is_being_opened_is_waited_for_and_closed(self, world: World) -> None:
        user = await world.user()
        opening, go_on = asyncio.Event(), asyncio.Event()

        class Slow(MemoryPaymentGateway):
            async def open_checkout(self, account: BillingAccount, customer_id: str) -> Checkout:
                opening.set()
                await go_on.wait()
                return await super().open_checkout(account, customer_id)

        gateway = Slow(world.clock)
        world.replace(payment_gateway=gateway)
        upgrading = asyncio.create_task(world.container.upgrade_tier()(user=user))
        await opening.wait()
        deleting = asyncio.create_task(world.container.delete_user().delete(user))
        await asyncio.sleep(0.01)
        assert not deleting.done()
        go_on.set()
        checkout = await upgrading
        await deleting
        assert gateway.states[checkout.id].checkout.url is None
        assert gateway.customers == {}
        assert not await self.is_there(world, user)

    async def test_none_is_opened_meanwhile(self, world: World) -> None:
        user = await self.customer(world)
        deleted, go_on = asyncio.Event(), asyncio.Event()

        class Slow(MemoryPaymentGateway):
            async def delete_customer(self, customer_id: str) -> None:
                deleted.set()
                await go_on.wait()

        gateway = Slow(world.clock)
        world.clock.move(timedelta(days=2))
        world.replace(payment_gateway=gateway)
        world.container.delete_user.reset()
        world.container.upgrade_tier.reset()
        deleting = asyncio.create_task(world.container.delete_user().delete(user))
        await deleted.wait()
        upgrading = asyncio.create_task(world.container.upgrade_tier()(user=user))
        await asyncio.sleep(0.01)
        assert not upgrading.done()
        go_on.set()
        await deleting
        with pytest.raises(UserNotFound):
            await upgrading
        assert gateway.states == {}

    async def test_goes_on_where_it_stopped(self, world: World) -> None:
        user = await self.customer(world)
        world.gateway.customers.clear()  # deleted, and then the process died
        await world.container.delete_user().delete(user)
        assert not await self.is_there(world, user)
        with pytest.raises(UserNotFound):
            await world.container.delete_user().delete(user)

    async def test_the_number_signs_up_again_as_somebody_new(self, world: World) -> None:
        user = await self.customer(world)
        await world.container.delete_user().delete(user)
        again = await world.user()
        assert again.mobile == user.mobile == ANN
        assert again.id != user.id
