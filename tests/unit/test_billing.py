"""Subscriptions: what makes a user Pro and until when, checkouts, events and syncs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from adapters.memory.billing import MemoryBillingAccounts, MemoryPaymentGateway
from adapters.no_payments import NoPayments
from application.billing.subscriptions import UpgradeTier
from application.billing.syncing import Reconciled
from application.ports.billing import CheckoutState, PaymentEvent
from domain.accounts import MobileNumber, User
from domain.billing import FOREVER, BillingAccount, Checkout, Subscription, SubscriptionStatus, Tier
from domain.errors import (
    AlreadySubscribed,
    DatabaseUnavailable,
    DomainError,
    NotSubscribed,
    PaymentsRefused,
    PaymentsUnavailable,
    WebhookInvalid,
)
from domain.ids import UserId
from tests.unit.conftest import World

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
PRICE, FORMER_PRICE = "price_pro", "price_pro_of_last_year"
PRICES = {PRICE, FORMER_PRICE}
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
STRIPE = {
    "STRIPE_SECRET_KEY": "sk_test_1",
    "STRIPE_PRICE_ID": PRICE,
    "STRIPE_OTHER_PRICES": FORMER_PRICE,
    "STRIPE_WEBHOOK_SECRET": "whsec_1",
}


def subscription(user_id: UserId | None = None, **changes: Any) -> Subscription:
    values = {
        "id": f"sub_{uuid4().hex}",
        "user_id": user_id or UserId(uuid4()),
        "status": SubscriptionStatus.ACTIVE,
        "price_id": PRICE,
        "created_at": NOW,
    }
    return Subscription(**{**values, **changes})


class Gateway(MemoryPaymentGateway):
    """One that takes a moment, in which others do something; `meanwhile` is done once, after what was read."""

    def __init__(self, world: World) -> None:
        super().__init__(world.clock)
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def create_customer(self, user_id: UserId, *, name: str, number: int) -> str:
        await asyncio.sleep(0)
        return await super().create_customer(user_id, name=name, number=number)

    async def open_checkout(self, account: BillingAccount, customer_id: str) -> Checkout:
        await asyncio.sleep(0.01)
        return await super().open_checkout(account, customer_id)

    async def subscriptions(self, customer_id: str, user_id: UserId) -> list[Subscription]:
        found = await super().subscriptions(customer_id, user_id)
        if meanwhile := self.meanwhile:
            self.meanwhile = None
            await meanwhile()
        return found


class Shop:
    """A world that sells Pro, and a Stripe whose answers are set."""

    def __init__(self, **settings: str) -> None:
        self.world = World(**{**STRIPE, **settings})
        self.gateway = Gateway(self.world)
        self.world.replace(payment_gateway=self.gateway)
        self.container = self.world.container
        self.accounts = self.world.billing

    async def user(self, number: int = 0) -> User:
        return await self.world.user(f"+9198765{number:05d}")

    async def tier(self, user: User) -> Tier:
        return (await self.world.now(user)).tier(self.world.clock.now())

    async def upgrade(self, user: User) -> Checkout:
        return await self.container.upgrade_tier()(user=await self.world.now(user))

    async def customer(self, user: User) -> str:
        """After a first checkout."""
        await self.upgrade(user)
        customer_id = await self.accounts.customer(user.id)
        assert customer_id is not None
        return customer_id

    async def customer_of(self, user: User) -> str:
        customer_id = await self.accounts.customer(user.id)
        assert customer_id is not None
        return customer_id

    def event(self, **about: Any) -> str:
        """An event that Stripe sends; its id."""
        event = PaymentEvent(id=f"evt_{uuid4().hex}", **about)
        self.gateway.events[event.id] = event
        return event.id

    async def deliver(self, event_id: str, signature: str | None = "signed") -> None:
        await self.container.accept_webhook_event()(body=event_id.encode(), signature=signature)

    async def work(self) -> list[bool]:
        """What a worker does with the notifications it got."""
        done = []
        while self.world.syncs.notified:
            done.append(await self.read(UserId(self.world.syncs.notified.pop(0))))
        return done

    async def read(self, user_id: UserId) -> bool:
        return await self.container.sync_subscriptions()(user_id=user_id)

    async def tell(self, **about: Any) -> None:
        await self.deliver(self.event(**about))
        await self.work()

    def pay(self, checkout: Checkout, **changes: Any) -> Subscription:
        """What Stripe knows once a checkout was paid."""
        state = self.gateway.states[checkout.id]
        assert state.customer_id is not None
        bought = subscription(checkout.user_id, **changes)
        self.gateway.customers[state.customer_id].append(bought)
        self.gateway.states[checkout.id] = replace(state, checkout=replace(checkout, url=None, settled=True))
        return bought

    async def subscribe(self, user: User, **changes: Any) -> Subscription:
        """All of it, to the stored subscription."""
        checkout = await self.upgrade(user)
        bought = self.pay(checkout, **changes)
        await self.tell(checkout_id=checkout.id, user_id=user.id)
        return bought

    async def sold_elsewhere(self, user: User, *, customer_id: str | None = None, **changes: Any) -> str:
        """A single payment on a checkout that the service before this one opened; the checkout's id."""
        checkout = Checkout(id=f"cs_{uuid4().hex}", user_id=user.id, expires_at=NOW, payment_intent_id="pi_1")
        payment = subscription(user.id, id=checkout.id, **changes)
        checkout = replace(checkout, settled=payment.status.has_ended)
        self.gateway.states[checkout.id] = CheckoutState(checkout=checkout, customer_id=customer_id, payment=payment)
        await self.tell(checkout_id=checkout.id, user_id=user.id, customer_id=customer_id)
        return checkout.id


@pytest.fixture
def shop() -> Shop:
    return Shop()


class TestProUntil:
    @pytest.mark.parametrize("status", SubscriptionStatus)
    @pytest.mark.parametrize("price", [PRICE, FORMER_PRICE, "price_of_something_else", ""])
    @pytest.mark.parametrize("cancel_at", [None, NOW - DAY, NOW + DAY, NOW + 30 * DAY])
    @pytest.mark.parametrize("since", [None, NOW])
    def test_follows_from_what_stripe_said(
        self, status: SubscriptionStatus, price: str, cancel_at: datetime | None, since: datetime | None
    ) -> None:
        found = subscription(status=status, price_id=price, cancel_at=cancel_at, past_due_since=since)
        expected = None
        if price in PRICES:
            if status in ("active", "trialing"):
                expected = cancel_at or FOREVER
            elif status == "past_due" and since:
                expected = min(cancel_at or FOREVER, since + timedelta(days=7))
        assert found.pro_until(PRICES) == expected

    @pytest.mark.parametrize(
        ("after", "tier"),
        [
            (timedelta(), Tier.PRO),
            (7 * DAY - SECOND, Tier.PRO),
            (7 * DAY, Tier.BASIC),
            (7 * DAY + SECOND, Tier.BASIC),
        ],
    )
    def test_past_due_is_pro_for_seven_days(self, after: timedelta, tier: Tier) -> None:
        found = subscription(status=SubscriptionStatus.PAST_DUE, past_due_since=NOW)
        assert person(found.pro_until(PRICES)).tier(NOW + after) is tier

    def test_no_price_sold_no_pro(self) -> None:
        assert subscription().pro_until(()) is None

    def test_only_what_can_charge_nothing_has_ended(self) -> None:
        ended = {status.value for status in SubscriptionStatus if status.has_ended}
        assert ended == {"incomplete_expired", "canceled"}, "an incomplete one may have its first payment under way"


def person(pro_until: datetime | None) -> User:
    number = MobileNumber("+919876543210")
    return User(id=UserId(uuid4()), mobile=number, name="Ann", pro_until=pro_until, created_at=NOW)


@pytest.mark.parametrize(
    ("pro_until", "tier"),
    [
        (None, Tier.BASIC),
        (NOW - DAY, Tier.BASIC),
        (NOW - SECOND, Tier.BASIC),
        (NOW, Tier.BASIC),
        (NOW + SECOND, Tier.PRO),
        (FOREVER, Tier.PRO),
    ],
)
def test_a_users_tier_is_decided_by_the_time_alone(pro_until: datetime | None, tier: Tier) -> None:
    assert person(pro_until).tier(NOW) is tier


class TestUpgrading:
    async def test_opens_a_checkout_for_a_customer_of_the_user(self, shop: Shop) -> None:
        user = await shop.user()
        checkout = await shop.upgrade(user)
        assert checkout.url
        assert checkout.user_id == user.id
        assert list(shop.gateway.customers) == [await shop.accounts.customer(user.id)]
        assert await shop.tier(user) is Tier.BASIC, "nothing is paid yet"

    async def test_asked_again_it_is_the_same_page(self, shop: Shop) -> None:
        user = await shop.user()
        assert await shop.upgrade(user) == await shop.upgrade(user)
        assert Counter(shop.gateway.calls) == {"create_customer": 1, "open_checkout": 1}

    async def test_of_two_hundred_at_once_one_opens_it(self, shop: Shop) -> None:
        user = await shop.user()
        opened = await asyncio.gather(*(shop.upgrade(user) for _ in range(200)))
        assert len({checkout.id for checkout in opened}) == 1
        assert Counter(shop.gateway.calls) == {"create_customer": 1, "open_checkout": 1}
        assert (len(shop.gateway.customers), len(shop.gateway.states)) == (1, 1)

    async def test_users_have_their_own(self, shop: Shop) -> None:
        users = [await shop.user(number) for number in range(20)]
        opened = await asyncio.gather(*(shop.upgrade(user) for user in users for _ in range(5)))
        assert {checkout.user_id for checkout in opened} == {user.id for user in users}
        assert (len(shop.gateway.customers), len(shop.gateway.states)) == (20, 20)

    async def test_an_expired_page_is_replaced(self, shop: Shop) -> None:
        user = await shop.user()
        first = await shop.upgrade(user)
        shop.world.clock.move(timedelta(hours=23, minutes=54))
        assert await shop.upgrade(user) == first
        shop.world.clock.move(timedelta(minutes=2))
        second = await shop.upgrade(user)
        assert second.id != first.id, "four minutes are too short to pay in"
        assert shop.gateway.states[first.id].checkout.url is None, "and nobody is to pay on both"
        assert len(shop.gateway.customers) == 1

    async def test_a_pro_needs_none(self, shop: Shop) -> None:
        user = await shop.user()
        await shop.subscribe(user)
        assert await shop.tier(user) is Tier.PRO
        before = len(shop.gateway.calls)
        with pytest.raises(AlreadySubscribed):
            await shop.upgrade(user)
        assert len(shop.gateway.calls) == before

    @pytest.mark.parametrize("status", [one for one in SubscriptionStatus if not one.has_ended])
    async def test_nor_who_still_has_a_subscription_however_bad(self, shop: Shop, status: SubscriptionStatus) -> None:
        user = await shop.user()
        await shop.subscribe(user, status=status, past_due_since=NOW)
        shop.world.clock.move(8 * DAY)
        if status not in ("active", "trialing"):
            assert await shop.tier(user) is Tier.BASIC
        with pytest.raises(AlreadySubscribed):
            await shop.upgrade(user)

    @pytest.mark.parametrize("status", [one for one in SubscriptionStatus if one.has_ended])
    async def test_whose_has_ended_may_come_back(self, shop: Shop, status: SubscriptionStatus) -> None:
        user = await shop.user()
        first = await shop.subscribe(user, status=status)
        assert await shop.tier(user) is Tier.BASIC
        second = await shop.subscribe(user)
        assert await shop.tier(user) is Tier.PRO
        assert {one.id for one in await shop.accounts.subscriptions(user.id)} == {first.id, second.id}
        assert len(shop.gateway.customers) == 1

    @pytest.mark.parametrize("error", [PaymentsUnavailable, PaymentsRefused, DatabaseUnavailable])
    async def test_a_failure_is_reported_and_the_next_try_works(self, shop: Shop, error: type[DomainError]) -> None:
        user = await shop.user()
        shop.gateway.error = error()
        with pytest.raises(error):
            await shop.upgrade(user)
        shop.gateway.error = None
        assert (await shop.upgrade(user)).url

    async def test_a_customer_that_was_deleted_is_replaced(self, shop: Shop) -> None:
        user = await shop.user()
        first = await shop.customer(user)
        shop.world.clock.move(2 * DAY)
        del shop.gateway.customers[first]
        await shop.upgrade(user)
        second = await shop.accounts.customer(user.id)
        assert second is not None
        assert second != first
        assert list(shop.gateway.customers) == [second]

    async def test_a_customer_of_another_currency_is_replaced_once(self, shop: Shop) -> None:
        user = await shop.user()
        first = await shop.customer(user)
        shop.world.clock.move(2 * DAY)  # the first page has expired
        shop.gateway.mismatched.add(first)
        checkout = await shop.upgrade(user)
        second = await shop.accounts.customer(user.id)
        assert second not in (None, first)
        assert shop.gateway.states[checkout.id].customer_id == second
        assert second is not None
        shop.gateway.mismatched.add(second)
        shop.world.clock.move(2 * DAY)
        shop.gateway.calls.clear()
        await shop.upgrade(user)
        assert shop.gateway.calls.count("create_customer") == 1

    async def test_killed_in_between_it_goes_on_with_the_same(self, shop: Shop) -> None:
        class Killed(BaseException):
            pass

        class Dying:
            """The store of a process that dies: from one verb on nothing is stored any more."""

            def __init__(self, dies_at: str) -> None:
                self.dies_at, self.is_dead = dies_at, False

            def __getattr__(self, verb: str) -> Any:
                self.is_dead = self.is_dead or verb == self.dies_at
                if self.is_dead:
                    raise Killed
                return getattr(shop.accounts, verb)

        user = await shop.user()
        use_case = shop.container.upgrade_tier()
        for verb in ("add_customer", "add_checkout"):
            accounts: Any = Dying(verb)
            with pytest.raises(Killed):
                await replace(use_case, checkouts=accounts, customers=accounts)(user=user)
            shop.world.clock.move(timedelta(seconds=31))
        checkout = await shop.upgrade(user)
        assert shop.gateway.calls == ["create_customer"] * 2 + ["open_checkout"] * 2
        assert (len(shop.gateway.customers), list(shop.gateway.states)) == (1, [checkout.id])

    async def test_who_waits_too_long_for_another_may_try_again(self) -> None:
        shop = Shop(REQUEST_SECONDS="0.1")
        user = await shop.user()
        await shop.accounts.begin_checkout(user.id, open_until=NOW, lock_for=DAY)
        with pytest.raises(PaymentsUnavailable):
            await shop.upgrade(user)
        assert shop.gateway.calls == []

    async def test_a_customer_that_a_reading_found_meanwhile_is_taken(self, shop: Shop) -> None:
        user = await shop.user()
        use_case = shop.container.upgrade_tier()

        class Adopting(Gateway):
            async def create_customer(self, user_id: UserId, *, name: str, number: int) -> str:
                shop.gateway.customers["cus_found"] = []
                assert await shop.accounts.add_customer(user.id, "cus_found")
                return await shop.gateway.create_customer(user_id, name=name, number=number)

            async def open_checkout(self, account: BillingAccount, customer_id: str) -> Checkout:
                assert customer_id == "cus_found"
                return await shop.gateway.open_checkout(account, customer_id)

        assert (await replace(use_case, gateway=Adopting(shop.world))(user=user)).url
        assert await shop.accounts.customer(user.id) == "cus_found"

    async def test_where_nothing_is_sold_it_says_so(self) -> None:
        world = World()
        world.replace(payment_gateway=NoPayments())
        with pytest.raises(PaymentsUnavailable, match="not set up"):
            await world.container.upgrade_tier()(user=await world.user())
        with pytest.raises(PaymentsUnavailable, match="not set up"):
            await world.container.accept_webhook_event()(body=b"{}", signature="signed")
        assert isinstance(world.container.upgrade_tier(), UpgradeTier)


class TestPortal:
    async def test_is_for_customers(self, shop: Shop) -> None:
        user, other = await shop.user(), await shop.user(1)
        customer_id = await shop.customer(user)
        assert customer_id in await shop.container.open_portal()(user=user)
        with pytest.raises(NotSubscribed):
            await shop.container.open_portal()(user=other)

    async def test_is_closed_to_customers_that_were_deleted(self, shop: Shop) -> None:
        user = await shop.user()
        del shop.gateway.customers[await shop.customer(user)]
        with pytest.raises(NotSubscribed):
            await shop.container.open_portal()(user=user)

    async def test_fails_as_stripe_does(self, shop: Shop) -> None:
        user = await shop.user()
        await shop.customer(user)
        shop.gateway.error = PaymentsUnavailable()
        with pytest.raises(PaymentsUnavailable):
            await shop.container.open_portal()(user=user)


class TestStatus:
    async def test_of_whom_nothing_is_known(self, shop: Shop) -> None:
        user = await shop.user()
        assert await shop.container.get_subscription()(user=user) is None

    @pytest.mark.parametrize(
        "given",
        [
            [{}],
            [{"status": SubscriptionStatus.CANCELED}],
            [{}, {"status": SubscriptionStatus.CANCELED, "created_at": NOW + DAY}],
            [{}, {"price_id": "price_of_something_else", "created_at": NOW + DAY}],
            [{}, {"cancel_at": NOW + DAY, "created_at": NOW + DAY}],
            [{"cancel_at": NOW + 2 * DAY}, {"cancel_at": NOW + DAY, "created_at": NOW + DAY}],
            [{}, {"status": SubscriptionStatus.PAST_DUE, "past_due_since": NOW, "created_at": NOW + DAY}],
            [
                {"status": SubscriptionStatus.PAST_DUE, "past_due_since": NOW},
                {"status": SubscriptionStatus.UNPAID, "created_at": NOW + DAY},
            ],
            [
                {"status": SubscriptionStatus.CANCELED, "created_at": NOW + DAY},
                {"status": SubscriptionStatus.CANCELED, "created_at": NOW},
            ],
        ],
    )
    async def test_is_that_of_the_one_that_makes_pro_or_else_the_latest(
        self, shop: Shop, given: list[dict[str, Any]]
    ) -> None:
        """The first of each list, in whatever order Stripe lists them."""
        user = await shop.user()
        customer_id = await shop.customer(user)
        expected, *others = [subscription(user.id, **changes) for changes in given]
        for listed in ([expected, *others], [*others, expected]):
            shop.gateway.customers[customer_id] = listed
            await shop.tell(customer_id=customer_id)
            assert await shop.container.get_subscription()(user=user) == expected


class TestEvents:
    async def test_notifies_once_however_often_it_comes(self, shop: Shop) -> None:
        user = await shop.user()
        event_id = shop.event(customer_id=await shop.customer(user))
        await asyncio.gather(*(shop.deliver(event_id) for _ in range(100)))
        assert shop.world.syncs.notified == [user.id]

    async def test_of_nobody_known_notifies_nobody(self, shop: Shop) -> None:
        await shop.deliver(shop.event(customer_id="cus_of_the_till"))
        await shop.deliver("evt_of_no_interest")
        assert shop.world.syncs.notified == []

    @pytest.mark.parametrize("signature", [None, "", "forged"])
    async def test_not_signed_it_does_nothing(self, shop: Shop, signature: str | None) -> None:
        event_id = shop.event(customer_id=await shop.customer(await shop.user()))
        with pytest.raises(WebhookInvalid):
            await shop.deliver(event_id, signature)
        assert shop.world.syncs.notified == []
        await shop.deliver(event_id)
        assert len(shop.world.syncs.notified) == 1, "it was not kept"

    async def test_is_accepted_though_the_queue_is_broken(self, shop: Shop) -> None:
        user = await shop.user()
        shop.pay(await shop.upgrade(user))
        shop.world.syncs.broken = True
        await shop.tell(customer_id=await shop.accounts.customer(user.id))
        assert await shop.tier(user) is Tier.BASIC
        shop.world.clock.move(timedelta(seconds=11))
        assert await shop.container.resume_syncs()() == [user.id], "for this process to do"
        shop.world.syncs.broken = False
        shop.world.clock.move(timedelta(seconds=11))
        assert await shop.container.resume_syncs()() == []
        await shop.work()
        assert await shop.tier(user) is Tier.PRO


#: What is true after each of the six events of a life, by how the life ends.
LIVES = {
    "canceled": [
        {"status": "incomplete"},
        {"status": "trialing"},
        {"status": "active"},
        {"status": "past_due", "past_due_since": NOW - 8 * DAY},
        {"status": "active", "cancel_at": NOW + DAY},
        {"status": "canceled"},
    ],
    "recovered": [
        {"status": "incomplete"},
        {"status": "active"},
        {"status": "past_due", "past_due_since": NOW - DAY},
        {"status": "unpaid"},
        {"status": "canceled", "cancel_at": NOW - DAY},
        {"status": "active"},
    ],
}


class TestReading:
    @pytest.mark.parametrize("life", LIVES)
    async def test_in_whatever_order_events_come_the_tier_is_right_after_each(self, shop: Shop, life: str) -> None:
        """All 720 orders of six events, some of them twice or more; none comes before it happened."""
        user, random = await shop.user(), Random(life)
        customer_id = await shop.customer(user)
        states = [replace(subscription(user.id), **changes) for changes in LIVES[life]]  # type: ignore[arg-type]
        states = [replace(one, status=SubscriptionStatus(one.status)) for one in states]
        right = 0
        for order in permutations(range(6)):
            happened = -1
            events = [shop.event(customer_id=customer_id) for _ in order]
            for number in order:
                happened = max(happened, number)
                shop.gateway.customers[customer_id] = [states[happened]]
                again = random.choices(order[: order.index(number) + 1], k=random.randrange(3))
                for each in (number, *again):
                    await shop.deliver(events[each])
                await shop.work()
                assert (await shop.world.now(user)).pro_until == states[happened].pro_until(PRICES), order
            right += await shop.tier(user) is (Tier.BASIC if life == "canceled" else Tier.PRO)
        assert right == 720

    async def test_a_failure_is_tried_again_after_ever_longer_waits(self, shop: Shop) -> None:
        user = await shop.user()
        shop.pay(await shop.upgrade(user))
        await shop.deliver(shop.event(customer_id=await shop.accounts.customer(user.id)))
        shop.world.syncs.notified.clear()
        shop.gateway.error = PaymentsUnavailable()
        waits = []
        for _ in range(40):
            assert not await shop.read(user.id)
            kept = shop.accounts.table.get(user.id)
            assert kept is not None
            assert kept.schedule.due_at is not None
            waits.append((kept.schedule.due_at - shop.world.clock.now()).total_seconds())
            assert not await shop.read(user.id), "not yet"
            shop.world.clock.move(timedelta(seconds=waits[-1]))
        for number, wait in enumerate(waits):
            assert 1 <= wait <= min(900, 2 * 2**number)
        assert max(waits[10:]) > max(waits[:5])
        assert await shop.tier(user) is Tier.BASIC
        shop.gateway.error = None
        assert await shop.container.resume_syncs()() == []
        assert await shop.work() == [True]
        assert await shop.tier(user) is Tier.PRO

    @pytest.mark.parametrize("error", [PaymentsRefused(), DatabaseUnavailable()])
    async def test_whatever_the_failure_is_the_tier_stays(self, shop: Shop, error: DomainError) -> None:
        user = await shop.user()
        await shop.subscribe(user)
        shop.gateway.error = error
        await shop.tell(customer_id=await shop.accounts.customer(user.id))
        assert await shop.tier(user) is Tier.PRO
        assert len(await shop.accounts.subscriptions(user.id)) == 1

    async def test_stripe_that_hangs_is_a_failure(self, shop: Shop) -> None:
        user = await shop.user()
        customer_id = await shop.customer(user)

        async def hang() -> None:
            raise TimeoutError  # as asyncio.timeout() does after a minute

        shop.gateway.meanwhile = hang
        await shop.deliver(shop.event(customer_id=customer_id))
        assert await shop.work() == [False]
        kept = shop.accounts.table.get(user.id)
        assert kept is not None
        assert kept.account.failures == 1

    async def test_what_changes_meanwhile_is_read_again(self, shop: Shop) -> None:
        user = await shop.user()
        customer_id = await shop.customer(user)
        shop.gateway.customers[customer_id] = [subscription(user.id)]

        async def cancel() -> None:
            shop.gateway.customers[customer_id] = []
            await shop.deliver(shop.event(customer_id=customer_id))

        shop.gateway.meanwhile = cancel
        await shop.deliver(shop.event(customer_id=customer_id))
        shop.gateway.calls.clear()
        await shop.work()
        assert shop.gateway.calls.count("subscriptions") == 2
        assert await shop.tier(user) is Tier.BASIC

    async def test_a_slow_reader_does_not_overwrite_a_later_one(self, shop: Shop) -> None:
        user = await shop.user()
        customer_id = await shop.customer(user)
        shop.gateway.customers[customer_id] = [subscription(user.id)]
        go_on = asyncio.Event()
        shop.gateway.meanwhile = go_on.wait
        await shop.deliver(shop.event(customer_id=customer_id))
        slow = asyncio.create_task(shop.read(user.id))
        await asyncio.sleep(0)
        assert not await shop.read(user.id), "one at a time"
        shop.world.clock.move(timedelta(seconds=91))
        shop.gateway.customers[customer_id] = []
        assert await shop.read(user.id), "the lease ran out"
        go_on.set()
        assert not await slow
        assert await shop.tier(user) is Tier.BASIC

    async def test_what_is_not_due_is_not_read(self, shop: Shop) -> None:
        user = await shop.user()
        await shop.subscribe(user)
        shop.gateway.calls.clear()
        assert not await shop.read(user.id)
        assert not await shop.read(UserId(uuid4()))
        assert shop.gateway.calls == []

    async def test_of_many_notifications_at_once_one_reads(self, shop: Shop) -> None:
        user = await shop.user()
        await shop.deliver(shop.event(customer_id=await shop.customer(user)))
        shop.gateway.calls.clear()
        read = await asyncio.gather(*(shop.read(user.id) for _ in range(20)))
        assert Counter(read) == {True: 1, False: 19}
        assert shop.gateway.calls.count("subscriptions") == 1

    async def test_an_event_lost_for_good_is_made_up_for(self, shop: Shop) -> None:
        user = await shop.user()
        shop.pay(await shop.upgrade(user))
        shop.world.clock.move(timedelta(minutes=14))
        assert await shop.container.resume_syncs()() == []
        assert await shop.work() == []
        shop.world.clock.move(timedelta(minutes=2))
        await shop.container.resume_syncs()()
        await shop.work()
        assert await shop.tier(user) is Tier.PRO

    async def test_an_open_checkout_is_looked_at_until_it_ends(self, shop: Shop) -> None:
        user = await shop.user()
        checkout = await shop.upgrade(user)
        for _ in range(3):
            shop.world.clock.move(timedelta(minutes=16))
            await shop.container.resume_syncs()()
            assert await shop.work() == [True]
            assert await shop.upgrade(user) == checkout
        state = shop.gateway.states[checkout.id]
        shop.gateway.states[checkout.id] = replace(state, checkout=replace(checkout, url=None, settled=True))
        shop.world.clock.move(timedelta(minutes=16))
        await shop.container.resume_syncs()()
        assert await shop.work() == [True]
        shop.world.clock.move(timedelta(minutes=16))
        await shop.container.resume_syncs()()
        assert await shop.work() == [], "nothing is left to wait for"
        shop.world.clock.move(DAY)
        await shop.container.resume_syncs()()
        assert await shop.work() == [True], "an event about its customer may have been lost"

    async def test_a_subscription_is_looked_at_daily(self, shop: Shop) -> None:
        user = await shop.user()
        await shop.subscribe(user)
        shop.gateway.customers = {customer_id: [] for customer_id in shop.gateway.customers}
        shop.world.clock.move(timedelta(hours=23))
        await shop.container.resume_syncs()()
        assert await shop.work() == []
        shop.world.clock.move(timedelta(hours=2))
        await shop.container.resume_syncs()()
        assert await shop.work() == [True]
        assert await shop.tier(user) is Tier.BASIC

    async def test_of_several_subscriptions_the_best_counts(self, shop: Shop) -> None:
        user = await shop.user()
        customer_id = await shop.customer(user)
        shop.gateway.customers[customer_id] = [
            subscription(user.id, status=SubscriptionStatus.CANCELED),
            subscription(user.id, cancel_at=NOW + 2 * DAY),
            subscription(user.id, cancel_at=NOW + DAY),
        ]
        await shop.tell(customer_id=customer_id)
        assert (await shop.world.now(user)).pro_until == NOW + 2 * DAY

    async def test_anothers_subscription_on_the_same_customer_is_not_counted(self, shop: Shop) -> None:
        user = await shop.user()
        customer_id = await shop.customer(user)
        shop.gateway.customers[customer_id] = [subscription(UserId(uuid4()))]
        await shop.tell(customer_id=customer_id)
        assert await shop.tier(user) is Tier.BASIC

    async def test_with_the_customer_the_tier_goes(self, shop: Shop) -> None:
        user = await shop.user()
        await shop.subscribe(user)
        customer_id = await shop.accounts.customer(user.id)
        assert customer_id is not None
        del shop.gateway.customers[customer_id]
        await shop.tell(customer_id=customer_id)
        assert await shop.tier(user) is Tier.BASIC
        assert await shop.accounts.customer(user.id) is None
        await shop.subscribe(user)
        assert await shop.tier(user) is Tier.PRO, "with a new one"


class TestSinglePayments:
    """What the service before this one sold."""

    async def test_for_our_price_is_pro_for_ever(self, shop: Shop) -> None:
        user = await shop.user()
        await shop.sold_elsewhere(user, price_id=FORMER_PRICE)
        assert (await shop.world.now(user)).pro_until == FOREVER
        with pytest.raises(AlreadySubscribed):
            await shop.upgrade(user)

    async def test_given_back_it_is_over(self, shop: Shop) -> None:
        user = await shop.user()
        checkout_id = await shop.sold_elsewhere(user)
        state = shop.gateway.states[checkout_id]
        assert state.payment is not None
        returned = replace(state.payment, status=SubscriptionStatus.CANCELED)
        settled = replace(state.checkout, settled=True)
        shop.gateway.states[checkout_id] = replace(state, payment=returned, checkout=settled)
        await shop.tell(payment_intent_id="pi_1")
        assert await shop.tier(user) is Tier.BASIC
        assert (await shop.upgrade(user)).url

    async def test_that_was_given_back_unheard_is_noticed_within_a_day(self, shop: Shop) -> None:
        user = await shop.user()
        checkout_id = await shop.sold_elsewhere(user)
        state = shop.gateway.states[checkout_id]
        assert state.payment is not None
        returned = replace(state.payment, status=SubscriptionStatus.CANCELED)
        shop.gateway.states[checkout_id] = replace(state, payment=returned)
        shop.world.clock.move(DAY + SECOND)
        await shop.container.resume_syncs()()
        await shop.work()
        assert await shop.tier(user) is Tier.BASIC

    async def test_for_something_else_neither_upgrades_nor_keeps_from_it(self, shop: Shop) -> None:
        user = await shop.user()
        await shop.sold_elsewhere(user, price_id="price_of_something_else")
        assert await shop.tier(user) is Tier.BASIC
        assert await shop.container.get_subscription()(user=user) is None
        assert (await shop.upgrade(user)).url

    async def test_not_paid_it_is_nothing(self, shop: Shop) -> None:
        user = await shop.user()
        checkout = Checkout(id="cs_1", user_id=user.id, expires_at=NOW)
        shop.gateway.states["cs_1"] = CheckoutState(checkout=checkout)
        await shop.tell(checkout_id="cs_1", user_id=user.id)
        assert await shop.tier(user) is Tier.BASIC
        paid = subscription(user.id, id="cs_1")
        shop.gateway.states["cs_1"] = CheckoutState(checkout=checkout, payment=paid)
        shop.world.clock.move(timedelta(minutes=16))
        await shop.container.resume_syncs()()
        await shop.work()
        assert await shop.tier(user) is Tier.PRO

    async def test_of_somebody_else_or_nobody_is_no_upgrade(self, shop: Shop) -> None:
        user, other = await shop.user(), await shop.user(1)
        checkout_id = await shop.sold_elsewhere(other)
        await shop.tell(checkout_id=checkout_id, user_id=user.id)
        await shop.tell(checkout_id="cs_that_stripe_does_not_know", user_id=user.id)
        await shop.tell(checkout_id="cs_2", user_id=UserId(uuid4()))
        assert (await shop.tier(user), await shop.tier(other)) == (Tier.BASIC, Tier.PRO)
        assert all(one.settled for one in shop.accounts.checkouts.all() if one.user_id == user.id)

    async def test_its_customer_becomes_the_users(self, shop: Shop) -> None:
        user = await shop.user()
        shop.gateway.customers["cus_former"] = []
        await shop.sold_elsewhere(user, customer_id="cus_former", status=SubscriptionStatus.CANCELED)
        assert await shop.accounts.customer(user.id) == "cus_former"
        await shop.subscribe(user)
        assert list(shop.gateway.customers) == ["cus_former"]
        assert await shop.tier(user) is Tier.PRO

    async def test_a_subscription_of_such_a_customer_counts(self, shop: Shop) -> None:
        user = await shop.user()
        shop.gateway.customers["cus_former"] = [subscription(user.id)]
        await shop.sold_elsewhere(user, customer_id="cus_former", price_id="price_of_something_else")
        assert await shop.tier(user) is Tier.PRO

    async def test_but_not_if_it_is_anothers(self, shop: Shop) -> None:
        owner, user = await shop.user(), await shop.user(1)
        customer_id = await shop.customer(owner)
        shop.gateway.customers[customer_id] = [subscription(owner.id)]
        await shop.sold_elsewhere(user, customer_id=customer_id, status=SubscriptionStatus.CANCELED)
        assert await shop.accounts.customer(user.id) is None
        assert await shop.accounts.customer(owner.id) == customer_id
        assert (await shop.tier(owner), await shop.tier(user)) == (Tier.PRO, Tier.BASIC)

    async def test_nor_if_the_user_has_one(self, shop: Shop) -> None:
        user = await shop.user()
        customer_id = await shop.customer(user)
        await shop.sold_elsewhere(user, customer_id="cus_former")
        assert await shop.accounts.customer(user.id) == customer_id
        assert await shop.tier(user) is Tier.PRO


class TestPaused:
    """While the collection of payments is paused, Pro lasts as long as was paid for."""

    @pytest.mark.parametrize("status", [SubscriptionStatus.ACTIVE, SubscriptionStatus.TRIALING])
    async def test_pro_ends_with_the_last_paid_period(self, shop: Shop, status: SubscriptionStatus) -> None:
        user = await shop.user()
        await shop.subscribe(user, status=status, unpaid_from=NOW + 3 * DAY)
        assert await shop.tier(user) is Tier.PRO
        shop.world.clock.move(3 * DAY)
        assert await shop.tier(user) is Tier.BASIC
        with pytest.raises(AlreadySubscribed):  # collection may be resumed
            await shop.upgrade(user)

    def test_the_first_end_counts(self) -> None:
        paused = subscription(unpaid_from=NOW + 3 * DAY, cancel_at=NOW + DAY)
        assert paused.pro_until(PRICES) == NOW + DAY
        overdue = subscription(
            status=SubscriptionStatus.PAST_DUE, past_due_since=NOW, unpaid_from=NOW + DAY, cancel_at=None
        )
        assert overdue.pro_until(PRICES) == NOW + DAY


class TestMending:
    """A tier that changes without an event means that Stripe's events do not arrive."""

    async def mended(self, shop: Shop, user: User, caplog: pytest.LogCaptureFixture) -> bool:
        caplog.clear()
        await shop.container.reconcile_user()(user_id=user.id)
        return any(record.message.startswith("tier_mended: ") for record in caplog.records)

    async def test_it_is_logged_once(self, shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
        user = await shop.user()
        bought = shop.pay(await shop.upgrade(user))
        assert await self.mended(shop, user, caplog)
        assert await shop.tier(user) is Tier.PRO
        assert not await self.mended(shop, user, caplog)
        customer = await shop.customer_of(user)
        shop.gateway.customers[customer] = [replace(bought, status=SubscriptionStatus.CANCELED)]
        assert await self.mended(shop, user, caplog)

    async def test_what_an_event_announced_is_not(self, shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
        user = await shop.user()
        checkout = await shop.upgrade(user)
        shop.pay(checkout)
        await shop.deliver(shop.event(checkout_id=checkout.id, user_id=user.id))
        assert not await self.mended(shop, user, caplog)
        assert await shop.tier(user) is Tier.PRO

    async def test_nor_what_ended_in_time(self, shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
        user = await shop.user()
        await shop.subscribe(user, cancel_at=NOW + DAY)
        shop.world.clock.move(2 * DAY)
        assert not await self.mended(shop, user, caplog)


class TestRecovery:
    async def test_notifies_of_some_at_a_time(self, shop: Shop) -> None:
        users = [await shop.user(number) for number in range(25)]
        for user in users:
            await shop.customer(user)
        await shop.accounts.make_due()
        recover, notified = shop.container.resume_syncs(), shop.world.syncs.notified
        counts = []
        for _ in range(4):
            await recover()
            counts.append(len(notified))
        assert counts == [10, 20, 25, 25]
        assert set(notified) == {user.id for user in users}

    async def test_a_reader_that_died_is_replaced(self, shop: Shop) -> None:
        user = await shop.user()
        shop.pay(await shop.upgrade(user))
        await shop.deliver(shop.event(customer_id=await shop.accounts.customer(user.id)))
        assert await shop.accounts.claim(user.id, lease=timedelta(seconds=90))
        assert await shop.work() == [False]
        shop.world.clock.move(timedelta(seconds=91))
        await shop.container.resume_syncs()()
        assert await shop.work() == [True]
        assert await shop.tier(user) is Tier.PRO


class TestReconcile:
    async def test_one(self, shop: Shop) -> None:
        user = await shop.user()
        shop.pay(await shop.upgrade(user))
        reconcile = shop.container.reconcile_user()
        assert await reconcile(user_id=user.id)
        assert await shop.tier(user) is Tier.PRO
        assert not await reconcile(user_id=UserId(uuid4()))
        shop.gateway.error = PaymentsUnavailable()
        assert not await reconcile(user_id=user.id)

    async def test_all(self, shop: Shop) -> None:
        users = [await shop.user(number) for number in range(25)]
        for user in users:
            shop.pay(await shop.upgrade(user))
        assert await shop.container.reconcile_all()() == Reconciled(synced=25, failed=0)
        assert {await shop.tier(user) for user in users} == {Tier.PRO}

    async def test_what_could_not_be_read_stays_due(self, shop: Shop) -> None:
        users = [await shop.user(number) for number in range(12)]
        for user in users:
            shop.pay(await shop.upgrade(user))
        shop.gateway.error = PaymentsUnavailable()
        assert await shop.container.reconcile_all()() == Reconciled(synced=0, failed=12)
        shop.gateway.error = None
        shop.world.clock.move(timedelta(seconds=3))
        for _ in range(2):
            await shop.container.resume_syncs()()
        assert await shop.work() == [True] * 12
        assert {await shop.tier(user) for user in users} == {Tier.PRO}


async def test_ids_of_events_are_forgotten_after_a_month(shop: Shop) -> None:
    event_id = shop.event(customer_id="cus_1")
    await shop.deliver(event_id)
    shop.world.clock.move(29 * DAY)
    await shop.container.purge_expired()()
    assert isinstance(shop.accounts, MemoryBillingAccounts)
    assert [key for key, _ in shop.accounts.events.items()] == [event_id]
    shop.world.clock.move(2 * DAY)
    await shop.container.purge_expired()()
    assert shop.accounts.events.items() == []


async def test_settled_checkouts_are_forgotten_ninety_days_after_they_expired(shop: Shop) -> None:
    assert isinstance(shop.accounts, MemoryBillingAccounts)
    user = await shop.world.user()
    for settled in (False, True):
        checkout = Checkout(
            id=f"cs_{settled}", user_id=user.id, expires_at=shop.world.clock.now() + DAY, settled=settled
        )
        shop.accounts.checkouts.put(checkout.id, checkout)
    shop.world.clock.move(90 * DAY)
    await shop.container.purge_expired()()
    assert [key for key, _ in shop.accounts.checkouts.items()] == ["cs_False", "cs_True"]
    shop.world.clock.move(2 * DAY)
    await shop.container.purge_expired()()
    assert [key for key, _ in shop.accounts.checkouts.items()] == ["cs_False"]
