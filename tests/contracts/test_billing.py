"""The contract of BillingAccounts: one checkout at a time, an event once, one sync at a time, the last change wins."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from tortoise.exceptions import IntegrityError

from adapters.postgres.connection import rows
from application.ports.billing import CheckoutBusy, CheckoutLock, CheckoutStart, PaymentEvent
from domain.accounts import MobileNumber
from domain.billing import FOREVER, BillingAccount, Checkout, Subscription, SubscriptionStatus
from domain.errors import AlreadySubscribed, UserNotFound
from domain.ids import UserId
from tests.contracts.conftest import HOUR, Adapters, InMemory, InPostgresAndRedis, names
from tests.support.patience import PROCESS_HANG

LOCK = timedelta(seconds=30)
LEASE = timedelta(seconds=90)
EXPIRED = timedelta(seconds=-1)
QUIET = timedelta(seconds=10)
DAY = timedelta(days=1)
NOW = timedelta()


class Billing:
    """An adapter's port, with helpers that set a scene."""

    def __init__(self, adapters: Adapters) -> None:
        self.adapters = adapters
        self.port = adapters.billing
        self.mobiles: dict[UserId, MobileNumber] = {}

    async def begin(self, user_id: UserId, *, left: timedelta = timedelta(minutes=5)) -> CheckoutStart:
        open_until = self.adapters.clock.now() + left
        return await self.port.begin_checkout(user_id, open_until=open_until, lock_for=LOCK)

    async def account(self, customer_id: str | None = "") -> UserId:
        """A user who has to do with Stripe, by default as a customer."""
        user = await self.adapters.user()
        user_id = user.id
        self.mobiles[user_id] = user.mobile
        await self.begin(user_id)
        await self.port.unlock_checkout(user_id)
        if customer_id is not None:
            assert await self.port.add_customer(user_id, customer_id or customer_of(user_id))
        return user_id

    async def due(self) -> UserId:
        user_id = await self.account()
        await self.port.make_due(user_id)
        return user_id

    async def claimed(self, user_id: UserId | None = None, lease: timedelta = LEASE) -> BillingAccount:
        claimed = await self.port.claim(user_id or await self.due(), lease=lease)
        assert claimed is not None
        return claimed.account

    async def finish(self, account: BillingAccount, *subscriptions: Subscription, **changes: Any) -> bool:
        values: dict[str, Any] = {"checkouts": [], "pro_until": None, "due_in": None}
        return await self.port.finish(account, subscriptions=subscriptions, **{**values, **changes})

    def checkout(self, user_id: UserId, **changes: Any) -> Checkout:
        values = {"id": f"cs_{uuid4().hex}", "url": "https://pay.test/1", "expires_at": self.adapters.clock.now() + DAY}
        return Checkout(user_id=user_id, **{**values, **changes})

    async def open_checkout(self, user_id: UserId, *, due_in: timedelta = HOUR, **changes: Any) -> Checkout:
        checkout = self.checkout(user_id, **changes)
        await self.port.add_checkout(checkout, due_in=due_in)
        return checkout

    async def unsettled(self, user_id: UserId) -> list[Checkout]:
        """Has the account read."""
        await self.port.make_due(user_id)
        claimed = await self.port.claim(user_id, lease=EXPIRED)
        assert claimed is not None
        return claimed.checkouts

    async def taken(self, limit: int = 100, notified_before: timedelta = QUIET) -> list[UserId]:
        return await self.port.take_due(limit=limit, notified_before=notified_before)

    async def pro_until(self, user_id: UserId) -> datetime | None:
        user = await self.adapters.users.find_by_mobile(self.mobiles[user_id])
        assert user is not None
        return user.pro_until


def customer_of(user_id: UserId) -> str:
    return f"cus_{user_id.hex}"


def event(**about: Any) -> PaymentEvent:
    return PaymentEvent(**{"id": f"evt_{uuid4().hex}", **about})


def subscription(user_id: UserId, **changes: Any) -> Subscription:
    values = {
        "id": f"sub_{uuid4().hex}",
        "user_id": user_id,
        "status": SubscriptionStatus.ACTIVE,
        "price_id": "price_pro",
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Subscription(**{**values, **changes})


@pytest.fixture
def billing(adapters: Adapters) -> Billing:
    return Billing(adapters)


class TestCheckouts:
    async def test_the_first_is_begun_with_an_empty_account(self, billing: Billing) -> None:
        user = await billing.adapters.user()
        assert await billing.begin(user.id) == CheckoutLock(BillingAccount(user_id=user.id))
        assert await billing.port.customer(user.id) is None

    async def test_of_fifty_at_once_one_may_open_it(self, billing: Billing) -> None:
        user = await billing.adapters.user()
        begun = await asyncio.gather(*(billing.begin(user.id) for _ in range(50)))
        assert names(begun) == {"CheckoutLock": 1, "CheckoutBusy": 49}

    @pytest.mark.parametrize("known", [False, True])
    async def test_of_twenty_that_wait_for_the_same_row_one_may_open_it(self, billing: Billing, known: bool) -> None:
        user_id = await billing.account() if known else (await billing.adapters.user()).id
        where = {"rows_of": "billing_accounts"} if known else {"table": "billing_accounts"}
        begun = await billing.adapters.race(*(billing.begin(user_id) for _ in range(20)), **where)
        assert names(begun) == {"CheckoutLock": 1, "CheckoutBusy": 19}

    async def test_who_waited_while_one_was_opened_opens_no_other(self, billing: Billing) -> None:
        user_id = await billing.account()
        checkout = billing.checkout(user_id)
        adding = billing.port.add_checkout(checkout, due_in=HOUR)
        begins = [billing.begin(user_id) for _ in range(18)]
        _, *begun = await billing.adapters.race(adding, *begins, rows_of="billing_accounts")
        assert names(begun)["CheckoutLock"] <= 1, "it was there before"
        assert {one for one in begun if isinstance(one, Checkout)} <= {checkout}
        assert await billing.begin(user_id) == checkout

    async def test_the_lock_of_a_dead_caller_expires(self, billing: Billing) -> None:
        user = await billing.adapters.user()
        first = await billing.begin(user.id)
        await billing.adapters.wait(29)
        assert isinstance(await billing.begin(user.id), CheckoutBusy)
        await billing.adapters.wait(2)
        assert await billing.begin(user.id) == first, "with the same numbers, so it makes the same"
        assert isinstance(await billing.begin(user.id), CheckoutBusy)

    async def test_given_up_the_next_may_open_it(self, billing: Billing) -> None:
        user = await billing.adapters.user()
        first = await billing.begin(user.id)
        await billing.port.unlock_checkout(user.id)
        assert await billing.begin(user.id) == first

    async def test_whoever_is_no_more_can_open_none(self, billing: Billing) -> None:
        with pytest.raises(UserNotFound):
            await billing.begin(UserId(billing.adapters.ids.new()))

    async def test_the_open_one_is_returned(self, billing: Billing) -> None:
        user_id = await billing.account()
        assert isinstance(await billing.begin(user_id), CheckoutLock)
        checkout = await billing.open_checkout(user_id)
        assert [await billing.begin(user_id) for _ in range(3)] == [checkout] * 3

    async def test_of_two_that_which_is_open_longer(self, billing: Billing) -> None:
        user_id, now = await billing.account(), billing.adapters.clock.now()
        await billing.open_checkout(user_id, expires_at=now + HOUR)
        longer = await billing.open_checkout(user_id, expires_at=now + 2 * HOUR)
        await billing.open_checkout(user_id, expires_at=now + HOUR)
        assert await billing.begin(user_id) == longer

    async def test_it_must_be_open_long_enough(self, billing: Billing) -> None:
        user_id, now = await billing.account(), billing.adapters.clock.now()
        checkout = await billing.open_checkout(user_id, expires_at=now + HOUR)
        assert await billing.begin(user_id, left=HOUR - timedelta(minutes=1)) == checkout
        assert isinstance(await billing.begin(user_id, left=HOUR + timedelta(minutes=1)), CheckoutLock)

    async def test_one_that_leads_nowhere_and_anothers_do_not_count(self, billing: Billing) -> None:
        user_id, other = await billing.account(), await billing.account()
        await billing.open_checkout(other)
        await billing.open_checkout(user_id, url=None)
        assert isinstance(await billing.begin(user_id), CheckoutLock)

    async def test_each_counts_and_is_looked_at_in_time(self, billing: Billing) -> None:
        user_id = await billing.account()
        first = await billing.open_checkout(user_id, due_in=HOUR)
        await billing.open_checkout(user_id, due_in=10 * HOUR)
        await billing.adapters.wait(3_590)
        assert await billing.taken() == []
        await billing.adapters.wait(20)
        assert await billing.taken() == [user_id], "the earlier time stands"
        claimed = await billing.port.claim(user_id, lease=LEASE)
        assert claimed is not None
        account = claimed.account
        assert (account.checkout_count, account.customer_count, account.attempt) == (2, 1, 1)
        assert len(claimed.checkouts) == 2
        assert first in claimed.checkouts

    async def test_one_opened_during_a_reading_is_not_forgotten_by_it(self, billing: Billing) -> None:
        account = await billing.claimed()
        checkout = await billing.open_checkout(account.user_id, due_in=HOUR)
        assert await billing.finish(account, due_in=None)
        claimed = await billing.port.claim(account.user_id, lease=LEASE)
        assert claimed is not None
        assert claimed.checkouts == [checkout]

    @pytest.mark.parametrize("status", SubscriptionStatus)
    async def test_not_beside_a_subscription_that_has_not_ended(
        self, billing: Billing, status: SubscriptionStatus
    ) -> None:
        account = await billing.claimed()
        ended = subscription(account.user_id, status=SubscriptionStatus.CANCELED)
        await billing.finish(account, ended, subscription(account.user_id, status=status))
        if status.has_ended:
            assert isinstance(await billing.begin(account.user_id), CheckoutLock)
            return
        await billing.open_checkout(account.user_id)
        for _ in range(2):
            with pytest.raises(AlreadySubscribed):
                await billing.begin(account.user_id)

    async def test_none_while_they_are_held(self, billing: Billing) -> None:
        user_id = await billing.account()
        held = await asyncio.gather(*(billing.port.lock_checkout(user_id, lock_for=LOCK) for _ in range(20)))
        assert held.count(True) == 1
        assert isinstance(await billing.begin(user_id), CheckoutBusy)
        await billing.port.unlock_checkout(user_id)
        assert isinstance(await billing.begin(user_id), CheckoutLock)
        assert not await billing.port.lock_checkout(user_id, lock_for=LOCK)

    async def test_held_for_nobody(self, billing: Billing) -> None:
        with pytest.raises(UserNotFound):
            await billing.port.lock_checkout(UserId(uuid4()), lock_for=LOCK)

    async def test_beside_one_that_has_ended_by_its_date(self, billing: Billing) -> None:
        account, now = await billing.claimed(), billing.adapters.clock.now()
        await billing.finish(account, subscription(account.user_id, cancel_at=now + HOUR), due_in=NOW)
        with pytest.raises(AlreadySubscribed):
            await billing.begin(account.user_id)
        await billing.finish(
            await billing.claimed(account.user_id), subscription(account.user_id, cancel_at=now - HOUR)
        )
        assert isinstance(await billing.begin(account.user_id), CheckoutLock)

    async def test_who_waited_while_it_was_stored_is_refused(self, billing: Billing) -> None:
        account = await billing.claimed()
        user_id = account.user_id
        storing = billing.finish(account, subscription(user_id), due_in=NOW)
        begins = [billing.begin(user_id) for _ in range(18)]
        stored, *begun = await billing.adapters.race(storing, *begins, rows_of="billing_accounts")
        assert stored is True
        assert names(begun)["CheckoutLock"] <= 1, "it was there before"
        with pytest.raises(AlreadySubscribed):
            await billing.begin(user_id)
        if names(begun)["CheckoutLock"] == 0:
            await billing.finish(await billing.claimed(user_id))
            assert isinstance(await billing.begin(user_id), CheckoutLock), "a refusal keeps nobody busy"


class TestCustomers:
    async def test_is_kept_and_counts(self, billing: Billing) -> None:
        user_id = await billing.account(None)
        assert await billing.port.customer(user_id) is None
        assert await billing.port.add_customer(user_id, "cus_1")
        assert await billing.port.customer(user_id) == "cus_1"
        begun = await billing.begin(user_id)
        assert isinstance(begun, CheckoutLock)
        assert (begun.account.customer_id, begun.account.customer_count, begun.account.checkout_count) == (
            "cus_1",
            1,
            0,
        )

    async def test_nobody_has_none(self, billing: Billing) -> None:
        stranger = UserId(billing.adapters.ids.new())
        assert await billing.port.customer(stranger) is None
        assert not await billing.port.add_customer(stranger, "cus_1")
        await billing.port.drop_customer(stranger, "cus_1")

    async def test_anothers_stays_anothers(self, billing: Billing) -> None:
        owner, other = await billing.account("cus_1"), await billing.account(None)
        assert not await billing.port.add_customer(other, "cus_1")
        assert await billing.port.customer(other) is None
        assert await billing.port.customer(owner) == "cus_1"

    async def test_the_one_there_is_stays(self, billing: Billing) -> None:
        user_id = await billing.account("cus_1")
        assert not await billing.port.add_customer(user_id, "cus_2")
        assert await billing.port.add_customer(user_id, "cus_1"), "it is so already"
        assert await billing.port.customer(user_id) == "cus_1"

    async def test_of_twenty_users_at_once_one_gets_it(self, billing: Billing) -> None:
        users = [await billing.account(None) for _ in range(20)]
        calls = [billing.port.add_customer(user_id, "cus_1") for user_id in users]
        results = await billing.adapters.race(*calls, table="billing_accounts")
        assert Counter(map(repr, results)) == {"True": 1, "False": 19}
        owners = [user_id for user_id in users if await billing.port.customer(user_id)]
        assert owners == [users[results.index(True)]]

    async def test_is_dropped_only_if_it_is_that_one(self, billing: Billing) -> None:
        user_id, other = await billing.account("cus_1"), await billing.account("cus_2")
        await billing.port.drop_customer(user_id, "cus_2")
        assert await billing.port.customer(user_id) == "cus_1"
        await billing.port.drop_customer(user_id, "cus_1")
        assert await billing.port.customer(user_id) is None
        assert await billing.port.customer(other) == "cus_2"
        assert await billing.port.add_customer(user_id, "cus_3")
        begun = await billing.begin(user_id)
        assert isinstance(begun, CheckoutLock)
        assert begun.account.customer_count == 2, "the next one's number is never one that was used"


class TestEvents:
    async def test_makes_its_customer_due(self, billing: Billing) -> None:
        user_id, other = await billing.account("cus_1"), await billing.account("cus_2")
        assert await billing.port.claim(user_id, lease=LEASE) is None
        assert await billing.port.add_event(event(customer_id="cus_1")) == [user_id]
        assert (await billing.claimed(user_id)).change_count == 1
        assert await billing.port.claim(other, lease=LEASE) is None

    async def test_of_a_hundred_at_once_one_has_its_effect(self, billing: Billing) -> None:
        user_id, notice = await billing.account("cus_1"), event(customer_id="cus_1")
        added = await asyncio.gather(*(billing.port.add_event(notice) for _ in range(100)))
        assert Counter(map(len, added)) == {1: 1, 0: 99}
        assert (await billing.claimed(user_id)).change_count == 1

    async def test_of_twenty_that_wait_for_each_other_too(self, billing: Billing) -> None:
        user_id, notice = await billing.account("cus_1"), event(customer_id="cus_1")
        calls = [billing.port.add_event(notice) for _ in range(20)]
        added = await billing.adapters.race(*calls, table="payment_events")
        assert Counter(map(repr, added)) == {repr([user_id]): 1, "[]": 19}
        assert (await billing.claimed(user_id)).change_count == 1

    async def test_different_ones_at_once_all_count(self, billing: Billing) -> None:
        user_id = await billing.account("cus_1")
        calls = [billing.port.add_event(event(customer_id="cus_1")) for _ in range(20)]
        assert await billing.adapters.race(*calls, rows_of="billing_accounts") == [[user_id]] * 20
        assert (await billing.claimed(user_id)).change_count == 20

    async def test_about_nobody_we_know(self, billing: Billing) -> None:
        user_id = await billing.account("cus_1")
        for about in (
            {},
            {"customer_id": "cus_2"},
            {"payment_intent_id": "pi_1"},
            {"checkout_id": "cs_1"},
            {"checkout_id": "cs_2", "user_id": UserId(uuid4())},
        ):
            assert await billing.port.add_event(event(**about)) == []
        assert await billing.port.claim(user_id, lease=LEASE) is None
        assert await billing.unsettled(user_id) == []

    async def test_once_kept_it_comes_too_late_for_whom_it_concerns_now(self, billing: Billing) -> None:
        notice = event(customer_id="cus_1")
        assert await billing.port.add_event(notice) == []
        await billing.account("cus_1")
        assert await billing.port.add_event(notice) == []
        assert await billing.taken() == []

    async def test_finds_its_owner_by_the_payment_of_a_checkout(self, billing: Billing) -> None:
        user_id = await billing.account()
        await billing.open_checkout(user_id, payment_intent_id="pi_1")
        await billing.open_checkout(await billing.account(), payment_intent_id="pi_2")
        assert await billing.port.add_event(event(customer_id="cus_of_the_till", payment_intent_id="pi_1")) == [user_id]

    async def test_finds_its_owner_by_the_checkout(self, billing: Billing) -> None:
        user_id = await billing.account(None)
        checkout = await billing.open_checkout(user_id)
        assert await billing.port.add_event(event(checkout_id=checkout.id)) == [user_id]
        assert await billing.unsettled(user_id) == [checkout], "as it was"

    @pytest.mark.parametrize("known", [False, True])
    async def test_a_checkout_of_another_service_is_kept_if_it_names_a_user(
        self, billing: Billing, known: bool
    ) -> None:
        user_id = await billing.account("cus_1") if known else (await billing.adapters.user()).id
        about = {"customer_id": "cus_1", "checkout_id": "cs_1", "user_id": user_id}
        assert await billing.port.add_event(event(**about)) == [user_id]
        assert await billing.port.add_event(event(**about)) == [user_id]
        [checkout] = await billing.unsettled(user_id)
        assert (checkout.id, checkout.user_id, checkout.url, checkout.settled) == ("cs_1", user_id, None, False)
        assert isinstance(await billing.begin(user_id), CheckoutLock), "it is not open"

    async def test_only_a_checkout_is_believed_when_it_names_a_user(self, billing: Billing) -> None:
        user_id = await billing.account()
        assert await billing.port.add_event(event(user_id=user_id)) == []
        assert await billing.port.add_event(event(customer_id="cus_2", user_id=user_id)) == []

    async def test_of_one_users_customer_that_names_another_both_are_read(self, billing: Billing) -> None:
        owner, named = await billing.account("cus_1"), await billing.account("cus_2")
        notice = event(customer_id="cus_1", checkout_id="cs_1", user_id=named)
        assert await billing.port.add_event(notice) == sorted([owner, named])
        assert await billing.port.customer(owner) == "cus_1"
        assert [one.id for one in await billing.unsettled(named)] == ["cs_1"]
        assert await billing.unsettled(owner) == []

    async def test_a_known_checkout_stays_its_users(self, billing: Billing) -> None:
        owner, named = await billing.account(), await billing.account()
        checkout = await billing.open_checkout(owner)
        assert await billing.port.add_event(event(checkout_id=checkout.id, user_id=named)) == sorted([owner, named])
        assert await billing.unsettled(owner) == [checkout]
        assert await billing.unsettled(named) == []

    async def test_kept_and_due_or_neither(self, billing: Billing) -> None:
        user_id, notice = await billing.account("cus_1"), event(customer_id="cus_1", checkout_id="cs_1")
        notice = replace(notice, user_id=user_id)
        async with billing.adapters.rolled_back():
            assert await billing.port.add_event(notice) == [user_id]
        assert await billing.port.claim(user_id, lease=LEASE) is None
        assert await billing.port.add_event(notice) == [user_id], "it was not kept"
        assert (await billing.claimed(user_id)).change_count == 1

    async def test_counts_as_a_notification(self, billing: Billing) -> None:
        user_id = await billing.account("cus_1")
        await billing.port.add_event(event(customer_id="cus_1"))
        await billing.adapters.wait(9)
        assert await billing.taken() == []
        await billing.adapters.wait(2)
        assert await billing.taken() == [user_id]

    async def test_is_forgotten_when_it_is_old(self, billing: Billing) -> None:
        user_id, old, new = await billing.account("cus_1"), event(customer_id="cus_1"), event(customer_id="cus_1")
        await billing.port.add_event(old)
        await billing.adapters.wait(100)
        await billing.port.add_event(new)
        await billing.port.purge_events(received_before=datetime.min.replace(tzinfo=UTC))
        assert await billing.port.add_event(old) == []
        await billing.port.purge_events(received_before=billing.adapters.clock.now() - timedelta(seconds=50))
        assert await billing.port.add_event(new) == []
        assert await billing.port.add_event(old) == [user_id]


class TestForgettingCheckouts:
    async def checkouts(self, billing: Billing, user_id: UserId) -> tuple[list[Checkout], dict[str, bool]]:
        """One that is not settled, two that are; the last expires later."""
        now = billing.adapters.clock.now()
        made = [
            await billing.open_checkout(user_id, expires_at=at, settled=settled, payment_intent_id=f"pi_{uuid4().hex}")
            for at, settled in ((now, False), (now, True), (now + HOUR, True))
        ]
        return made, await self.known(billing, made)

    async def known(self, billing: Billing, checkouts: list[Checkout]) -> dict[str, bool]:
        notices = [event(payment_intent_id=one.payment_intent_id) for one in checkouts]
        return {
            one.id: bool(await billing.port.add_event(notice)) for one, notice in zip(checkouts, notices, strict=True)
        }

    async def test_those_that_expired_before_and_are_settled(self, billing: Billing) -> None:
        user_id, now = await billing.account(), billing.adapters.clock.now()
        made, before = await self.checkouts(billing, user_id)
        assert list(before.values()) == [True, True, True]
        await billing.port.purge_checkouts(expired_before=now)
        assert await self.known(billing, made) == before
        for _ in range(2):
            await billing.port.purge_checkouts(expired_before=now + HOUR)
            assert list((await self.known(billing, made)).values()) == [True, False, True]
        assert await billing.unsettled(user_id) == made[:1]

    async def test_rolled_back(self, billing: Billing) -> None:
        made, before = await self.checkouts(billing, await billing.account())
        async with billing.adapters.rolled_back():
            await billing.port.purge_checkouts(expired_before=billing.adapters.clock.now() + DAY)
            assert list((await self.known(billing, made)).values()) == [True, False, False]
        assert await self.known(billing, made) == before

    async def test_by_many_at_once(self, billing: Billing) -> None:
        made, _ = await self.checkouts(billing, await billing.account())
        until = billing.adapters.clock.now() + DAY
        await asyncio.gather(*(billing.port.purge_checkouts(expired_before=until) for _ in range(5)))
        assert list((await self.known(billing, made)).values()) == [True, False, False]


class TestReading:
    async def test_only_what_is_due_can_be_claimed(self, billing: Billing) -> None:
        user_id = await billing.account()
        assert await billing.port.claim(user_id, lease=LEASE) is None
        assert await billing.port.claim(UserId(billing.adapters.ids.new()), lease=LEASE) is None
        assert await billing.port.make_due(user_id) == 1
        account = await billing.claimed(user_id)
        expected = BillingAccount(
            user_id=user_id,
            customer_id=customer_of(user_id),
            customer_count=1,
            attempt=1,
            change_count=account.change_count,
        )
        assert account == expected

    async def test_comes_with_the_users_own_checkouts_that_are_not_settled(self, billing: Billing) -> None:
        user_id, other = await billing.due(), await billing.account()
        opened = [await billing.open_checkout(user_id) for _ in range(3)]
        await billing.open_checkout(user_id, settled=True)
        await billing.open_checkout(other)
        claimed = await billing.port.claim(user_id, lease=LEASE)
        assert claimed is not None
        assert claimed.checkouts == sorted(opened, key=lambda one: one.id)

    @pytest.mark.parametrize("left", [False, True])
    async def test_of_twenty_at_once_one_gets_it(self, billing: Billing, left: bool) -> None:
        user_id = await billing.due()
        if left:
            await billing.claimed(user_id, lease=EXPIRED)
        calls = [billing.port.claim(user_id, lease=LEASE) for _ in range(20)]
        results = await billing.adapters.race(*calls, rows_of="billing_accounts")
        assert names(results) == {"ClaimedSync": 1, "NoneType": 19}

    async def test_left_by_the_dead_it_is_claimed_anew(self, billing: Billing) -> None:
        account = await billing.claimed()
        await billing.adapters.wait(89)
        assert await billing.port.claim(account.user_id, lease=LEASE) is None
        await billing.adapters.wait(2)
        assert await billing.claimed(account.user_id) == replace(account, attempt=2)

    async def test_writes_what_was_read(self, billing: Billing) -> None:
        account, other = await billing.claimed(), await billing.claimed()
        user_id, until = account.user_id, datetime(2027, 1, 1, tzinfo=UTC)
        theirs = subscription(other.user_id)
        await billing.finish(other, theirs, pro_until=FOREVER)
        older = subscription(user_id, status=SubscriptionStatus.CANCELED, created_at=datetime(2025, 1, 1, tzinfo=UTC))
        newer = subscription(
            user_id,
            status=SubscriptionStatus.PAST_DUE,
            current_period_end=until,
            cancel_at=until,
            past_due_since=datetime(2026, 12, 1, tzinfo=UTC),
        )
        assert await billing.finish(account, older, newer, pro_until=until)
        assert await billing.port.subscriptions(user_id) == [newer, older]
        assert await billing.pro_until(user_id) == until
        assert await billing.port.subscriptions(other.user_id) == [theirs]
        assert await billing.pro_until(other.user_id) == FOREVER

        again = replace(older, status=SubscriptionStatus.ACTIVE)
        await billing.port.make_due(user_id)
        assert await billing.finish(await billing.claimed(user_id), again)
        assert await billing.port.subscriptions(user_id) == [again], "what is no more is no more"
        assert await billing.pro_until(user_id) is None

    async def test_settles_checkouts(self, billing: Billing) -> None:
        user_id = await billing.due()
        first, second = [await billing.open_checkout(user_id) for _ in range(2)]
        account = await billing.claimed(user_id)
        done = replace(first, url=None, settled=True, payment_intent_id="pi_1")
        seen = replace(second, url="https://pay.test/other")
        assert await billing.finish(account, checkouts=[done, seen])
        assert await billing.port.add_event(event(payment_intent_id="pi_1")) == [user_id]
        assert await billing.unsettled(user_id) == [seen]
        assert await billing.begin(user_id) == seen

    async def test_is_due_again_after_the_given_time(self, billing: Billing) -> None:
        account = await billing.claimed()
        assert await billing.finish(account, due_in=HOUR)
        assert await billing.port.claim(account.user_id, lease=LEASE) is None
        await billing.adapters.wait(3_590)
        assert await billing.port.claim(account.user_id, lease=LEASE) is None
        await billing.adapters.wait(20)
        await billing.finish(await billing.claimed(account.user_id), due_in=None)
        await billing.adapters.wait(10_000_000)
        assert await billing.port.claim(account.user_id, lease=LEASE) is None
        assert await billing.taken() == []

    @pytest.mark.parametrize("due_in", [None, HOUR])
    @pytest.mark.parametrize("by", ["event", "hand"])
    async def test_what_changed_meanwhile_is_read_again(
        self, billing: Billing, due_in: timedelta | None, by: str
    ) -> None:
        account = await billing.claimed()
        if by == "event":
            await billing.port.add_event(event(customer_id=account.customer_id))
        else:
            await billing.port.make_due(account.user_id)
        assert await billing.port.claim(account.user_id, lease=LEASE) is None, "one at a time"
        assert await billing.finish(account, due_in=due_in)
        again = await billing.claimed(account.user_id)
        announced = account.announced or by == "event"
        assert again == replace(account, attempt=2, change_count=account.change_count + 1, announced=announced)
        assert await billing.finish(again, due_in=None)
        assert await billing.port.claim(account.user_id, lease=LEASE) is None

    async def test_a_failure_is_tried_again_later(self, billing: Billing) -> None:
        account = await billing.claimed()
        for failures in (1, 2, 3):
            await billing.port.retry(account, delay=timedelta(seconds=20))
            await billing.adapters.wait(19)
            assert await billing.port.claim(account.user_id, lease=LEASE) is None
            await billing.adapters.wait(2)
            account = await billing.claimed(account.user_id)
            assert (account.failures, account.attempt) == (failures, failures + 1)
        await billing.finish(account, due_in=NOW)
        assert (await billing.claimed(account.user_id)).failures == 0

    async def test_a_failure_is_no_end_of_what_is_stored(self, billing: Billing) -> None:
        account = await billing.claimed()
        kept = subscription(account.user_id)
        await billing.finish(account, kept, pro_until=FOREVER, due_in=NOW)
        await billing.port.retry(await billing.claimed(account.user_id), delay=HOUR)
        assert await billing.port.subscriptions(account.user_id) == [kept]
        assert await billing.pro_until(account.user_id) == FOREVER

    async def test_a_late_reader_changes_nothing(self, billing: Billing) -> None:
        late = await billing.claimed(lease=EXPIRED)
        account = await billing.claimed(late.user_id)
        kept = subscription(late.user_id)
        assert not await billing.finish(late, pro_until=None)
        await billing.port.retry(late, delay=NOW)
        assert await billing.port.claim(late.user_id, lease=LEASE) is None, "the other still has it"
        assert await billing.finish(account, kept, pro_until=FOREVER, due_in=HOUR)

        for stale in (late, account):  # nor after it, be it the same attempt
            checkout = billing.checkout(late.user_id)
            assert not await billing.finish(stale, checkouts=[checkout], due_in=NOW)
            await billing.port.retry(stale, delay=NOW)
        assert await billing.port.subscriptions(late.user_id) == [kept]
        assert await billing.pro_until(late.user_id) == FOREVER
        assert await billing.port.claim(late.user_id, lease=LEASE) is None
        assert await billing.unsettled(late.user_id) == []

    async def test_an_expired_lease_that_nobody_took_still_holds(self, billing: Billing) -> None:
        account = await billing.claimed(lease=EXPIRED)
        assert await billing.finish(account, pro_until=FOREVER)

    async def test_an_attempt_that_writes_many_times_at_once_writes_once(self, billing: Billing) -> None:
        account = await billing.claimed()
        read = [subscription(account.user_id) for _ in range(10)]
        calls = [billing.finish(account, one) for one in read]
        results = await billing.adapters.race(*calls, rows_of="billing_accounts")
        assert Counter(map(repr, results)) == {"True": 1, "False": 9}
        assert await billing.port.subscriptions(account.user_id) == [read[results.index(True)]]

    async def test_of_a_reader_and_one_who_claims_what_he_left_one_writes(self, billing: Billing) -> None:
        late = await billing.claimed(lease=EXPIRED)
        written, claimed = await billing.adapters.race(
            billing.finish(late, pro_until=FOREVER, due_in=HOUR),
            billing.port.claim(late.user_id, lease=LEASE),
            rows_of="billing_accounts",
        )
        assert (written, claimed is None) in [(True, True), (False, False)]
        assert await billing.pro_until(late.user_id) == (FOREVER if written else None)

    async def test_all_of_it_or_nothing(self, billing: Billing) -> None:
        user_id = await billing.due()
        checkout, before = await billing.open_checkout(user_id), subscription(user_id)
        await billing.finish(await billing.claimed(user_id), before, pro_until=FOREVER, due_in=NOW)
        account = await billing.claimed(user_id)
        done, others = replace(checkout, url=None, settled=True), [subscription(user_id)] * 2
        if isinstance(billing.adapters, InMemory):
            async with billing.adapters.rolled_back():
                assert await billing.finish(account, *others, checkouts=[done])
        else:  # it opens its own unit of work, and these do not nest
            with pytest.raises(IntegrityError):
                await billing.finish(account, *others, checkouts=[done])
        assert await billing.port.subscriptions(user_id) == [before]
        assert await billing.pro_until(user_id) == FOREVER
        assert await billing.finish(account, due_in=NOW), "it still has it"
        assert await billing.begin(user_id) == checkout


class TestAtOnce:
    async def test_all_are_made_due(self, billing: Billing) -> None:
        users = [await billing.account() for _ in range(5)]
        assert await billing.port.make_due() == 5
        assert sorted(await billing.taken()) == sorted(users)
        assert await billing.port.make_due(UserId(billing.adapters.ids.new())) == 0

    async def test_the_longest_due_come_first(self, billing: Billing) -> None:
        users = []
        for _ in range(5):
            users.append(await billing.due())
            await billing.adapters.wait(1)
        assert await billing.taken(3) == users[:3]
        assert await billing.taken(3) == users[3:]
        assert await billing.taken(3) == []

    async def test_after_a_notification_there_is_none_for_a_while(self, billing: Billing) -> None:
        user_id = await billing.due()
        assert await billing.taken() == [user_id]
        await billing.adapters.wait(9)
        assert await billing.taken() == []
        await billing.adapters.wait(2)
        assert await billing.taken() == [user_id]

    async def test_due_once_more_is_notified_of_at_once(self, billing: Billing) -> None:
        user_id = await billing.due()
        assert await billing.taken() == [user_id]
        await billing.port.retry(await billing.claimed(user_id), delay=timedelta(seconds=2))
        assert await billing.taken() == []
        await billing.adapters.wait(3)
        assert await billing.taken() == [user_id], "its notification was for the time before"
        await billing.adapters.wait(1)
        await billing.port.make_due(user_id)
        assert await billing.taken() == [user_id]

    async def test_what_is_claimed_is_not_taken_before_its_lease_expires(self, billing: Billing) -> None:
        account = await billing.claimed()
        await billing.adapters.wait(60)
        assert await billing.taken() == []
        await billing.adapters.wait(31)
        assert await billing.taken() == [account.user_id]

    async def test_callers_at_once_get_different_ones(self, billing: Billing) -> None:
        users = {await billing.due() for _ in range(30)}
        taken = await asyncio.gather(*(billing.taken(4) for _ in range(10)))
        found = [user_id for some in taken for user_id in some]
        assert len(found) == len(set(found))
        assert set(found) | set(await billing.taken()) == users

    async def test_events_readings_and_checkouts_of_one_user_do_not_block_each_other(self, billing: Billing) -> None:
        """A deadlock would come as DatabaseUnavailable."""
        owner, other = await billing.account("cus_1"), await billing.account("cus_2")
        random, done = Random(1), Counter[str]()

        async def act() -> None:
            user_id = random.choice([owner, other])
            match what := random.choice(["event"] * 4 + ["read"] * 4 + ["checkout"] * 2 + ["due", "take", "customer"]):
                case "event":
                    checkout_id = f"cs_{random.randrange(5)}"
                    about = {"customer_id": random.choice(["cus_1", "cus_2"]), "checkout_id": checkout_id}
                    await billing.port.add_event(
                        event(**about, user_id=user_id, payment_intent_id=f"pi_{random.randrange(3)}")
                    )
                case "read":
                    if claimed := await billing.port.claim(user_id, lease=random.choice([LEASE, EXPIRED])):
                        account = claimed.account
                        seen = [
                            replace(checkout, payment_intent_id=f"pi_{random.randrange(3)}")
                            for checkout in claimed.checkouts
                        ]
                        ended = subscription(user_id, id=f"sub_{user_id}", status=SubscriptionStatus.CANCELED)
                        await billing.finish(account, ended, checkouts=seen, pro_until=FOREVER, due_in=NOW)
                case "checkout":
                    if isinstance(await billing.begin(user_id), CheckoutLock):
                        await billing.open_checkout(user_id, expires_at=billing.adapters.clock.now(), due_in=NOW)
                case "due":
                    await billing.port.make_due()
                case "take":
                    await billing.taken(2, notified_before=EXPIRED)
                case "customer":
                    await billing.port.add_customer(user_id, random.choice(["cus_1", "cus_2"]))
            done[what] += 1

        async def work() -> None:
            for _ in range(60):
                await act()

        async with asyncio.timeout(PROCESS_HANG):
            await asyncio.gather(*(work() for _ in range(12)))
        assert done.total() == 720
        for user_id in (owner, other):
            await billing.unsettled(user_id)


async def test_everybody_is_made_due_some_at_a_time(real: InPostgresAndRedis) -> None:
    await rows(
        "WITH people AS (INSERT INTO users (id, mobile, name, chatrooms_version, created_at)"
        " SELECT gen_random_uuid(), '+9198' || number, 'Ann', 0, now() FROM generate_series(1, 1000) AS number"
        " RETURNING id) INSERT INTO billing_accounts (user_id, customers, checkouts, changes, attempt, failures)"
        " SELECT id, 0, 0, 0, 0, 0 FROM people"
    )
    assert await real.billing.make_due() == 1_000
    [row] = await rows("SELECT DISTINCT changes, due_at IS NOT NULL AS due FROM billing_accounts")
    assert (row["changes"], row["due"]) == (1, True)


async def test_with_the_user_all_goes(real: InPostgresAndRedis) -> None:
    billing = Billing(real)
    user_id, other = await billing.due(), await billing.due()
    for owner in (user_id, other):
        await billing.open_checkout(owner)
        await billing.finish(await billing.claimed(owner), subscription(owner), pro_until=FOREVER, due_in=NOW)
    late = await billing.claimed(user_id)
    await rows("DELETE FROM users WHERE id = $1", user_id)
    for table in ("billing_accounts", "checkouts", "subscriptions"):
        assert [row["user_id"] for row in await rows(f"TABLE {table}")] == [other]
    assert not await billing.finish(late, subscription(user_id), pro_until=FOREVER)
    await billing.port.retry(late, delay=NOW)
    assert await billing.port.add_event(event(customer_id=late.customer_id, user_id=user_id, checkout_id="cs_1")) == []
    assert await billing.taken() == [other]


async def test_deleting_users_amid_it_all_blocks_nobody(real: InPostgresAndRedis) -> None:
    """A deadlock would come as DatabaseUnavailable."""
    billing = Billing(real)
    for number in range(20):
        user_id = await billing.due()
        checkout = await billing.open_checkout(user_id)
        account = await billing.claimed(user_id)
        calls = [
            billing.finish(account, subscription(user_id), checkouts=[checkout], pro_until=FOREVER, due_in=NOW),
            real.users.delete(user_id),
            billing.port.add_event(event(customer_id=account.customer_id, checkout_id="cs_1", user_id=user_id)),
            billing.port.add_checkout(billing.checkout(user_id), due_in=HOUR),
            billing.begin(user_id),
        ]
        results = await asyncio.gather(*Random(number).sample(calls, 5), return_exceptions=True)
        begun = {"Checkout", "CheckoutLock", "CheckoutBusy", "UserNotFound", "AlreadySubscribed"}
        assert names(results).keys() <= {"bool", "NoneType", "list"} | begun
    for table in ("billing_accounts", "checkouts", "subscriptions", "users"):
        assert await rows(f"TABLE {table}") == []


@pytest.mark.parametrize("first", [0, 1])
async def test_deleting_a_user_and_storing_what_was_read_do_not_wait_for_each_other(
    real: InPostgresAndRedis, first: int
) -> None:
    billing = Billing(real)
    for _ in range(3):
        account = await billing.claimed()
        calls: list[Coroutine[Any, Any, object]] = [
            billing.finish(account, subscription(account.user_id)),
            real.users.delete(account.user_id),
        ]
        results = await real.race(calls[first], calls[1 - first], rows_of="users")
        assert names(results).keys() <= {"bool", "NoneType"}
        assert await rows("TABLE billing_accounts") == []
