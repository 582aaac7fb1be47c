"""Random verbs of billing, in random order: after each of them Postgres holds what the domain's rules say.

The same verb is called on Postgres and on memory, whose adapter only calls the verbs of BillingAccount, SyncSchedule,
Checkout and Subscription. Results and stored rows are compared after each step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from adapters.memory.accounts import MemoryUsers
from adapters.memory.billing import MemoryBillingAccounts
from adapters.memory.runtime import MemoryClock
from adapters.postgres.connection import rows
from application.ports.billing import BillingAccounts, CheckoutBusy, ClaimedSync, PaymentEvent
from domain.accounts import User
from domain.billing import BillingAccount, Checkout, Subscription, SubscriptionStatus, SyncSchedule
from domain.errors import DomainError
from domain.ids import UserId
from tests.contracts.conftest import InPostgresAndRedis
from tests.support.state_machine import Game, play

#: Time moves in steps of 100 s and everything ends between two steps, so it does not matter how long a game takes.
UNIT = timedelta(seconds=100)

owners = st.sampled_from([0, 0, 0, 1])
customers = st.sampled_from(["cus_1", "cus_2"])
indexes = st.sampled_from([0, 0, 0, 1, 2])
halves = st.sampled_from([UNIT * 0.5, UNIT * 1.5, UNIT * 5.5])
statuses = st.sampled_from([SubscriptionStatus.ACTIVE, SubscriptionStatus.CANCELED, SubscriptionStatus.INCOMPLETE])


class BillingGame(Game):
    """Two users. An index counts from the latest."""

    def __init__(self, real: InPostgresAndRedis, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.real = real
        self.clock = MemoryClock(real.clock.now())
        self.users = MemoryUsers()
        self.memory = MemoryBillingAccounts(self.users, self.clock)
        self.people: list[User] = []
        self.made = 0
        self.claims: list[BillingAccount] = []

    @initialize()
    def begin(self) -> None:
        self.run(empty())
        for _ in range(2):
            user = self.real.new_user()
            self.run(self.users.add(user))
            self.run(self.real.users.add(user))
            self.people.append(user)

    @rule(units=st.sampled_from([1, 1, 2, 6]))
    def wait(self, units: int) -> None:
        self.run(self.real.wait((UNIT * units).total_seconds()))
        sql = "UPDATE checkouts SET expires_at = expires_at - $1::interval"
        self.run(rows(sql, UNIT * units))
        self.run(rows("UPDATE subscriptions SET cancel_at = cancel_at - $1::interval", UNIT * units))
        self.clock.move(UNIT * units)

    @rule(owner=owners, lock_for=halves, left=st.sampled_from([UNIT * 0.25, UNIT * 2.25]))
    def begin_checkout(self, owner: int, lock_for: timedelta, left: timedelta) -> None:
        user_id = self.people[owner].id
        self.both(lambda port, now: port.begin_checkout(user_id, open_until=now + left, lock_for=lock_for))

    @rule(owner=owners, is_locking=st.booleans(), lock_for=halves)
    def lock(self, owner: int, is_locking: bool, lock_for: timedelta) -> None:
        user_id = self.people[owner].id
        if is_locking:
            self.both(lambda port, _: port.lock_checkout(user_id, lock_for=lock_for))
        elif self.memory.table.get(user_id):
            self.both(lambda port, _: port.unlock_checkout(user_id))

    @rule(owner=owners, expires_in=halves, due_in=halves, is_open=st.booleans())
    def add_checkout(self, owner: int, expires_in: timedelta, due_in: timedelta, is_open: bool) -> None:
        if self.memory.table.get(self.people[owner].id) is None:
            return  # who adds one has the lock, and so an account
        self.made += 1
        checkout_id, url = f"cs_{self.made}", "https://pay.test" if is_open else None

        def verb(port: BillingAccounts, now: datetime) -> Awaitable[object]:
            checkout = Checkout(id=checkout_id, user_id=self.people[owner].id, url=url, expires_at=now + expires_in)
            return port.add_checkout(checkout, due_in=due_in)

        self.both(verb)

    @rule(owner=owners, customer_id=customers, is_new=st.sampled_from([True, True, False]))
    def customer(self, owner: int, customer_id: str, is_new: bool) -> None:
        user_id = self.people[owner].id
        if is_new:
            self.both(lambda port, _: port.add_customer(user_id, customer_id))
        else:
            self.both(lambda port, _: port.drop_customer(user_id, customer_id))

    @rule(n=st.integers(0, 30), customer_id=customers, checkout=st.integers(0, 4), owner=st.sampled_from([None, 0, 1]))
    def event(self, n: int, customer_id: str, checkout: int, owner: int | None) -> None:
        event = PaymentEvent(
            id=f"evt_{n}",
            customer_id=customer_id,
            checkout_id=f"cs_{checkout}" if checkout else None,
            user_id=None if owner is None else self.people[owner].id,
        )
        self.both(lambda port, _: port.add_event(event))

    @rule(owner=owners, lease=halves)
    def claim(self, owner: int, lease: timedelta) -> None:
        user_id = self.people[owner].id
        claimed = self.both(lambda port, _: port.claim(user_id, lease=lease))
        if isinstance(claimed, ClaimedSync):
            self.claims.append(claimed.account)

    @precondition(lambda self: self.claims)
    @rule(n=indexes, status=statuses, ends_in=st.one_of(st.none(), halves), due_in=st.one_of(st.none(), halves))
    def finish(self, n: int, status: SubscriptionStatus, ends_in: timedelta | None, due_in: timedelta | None) -> None:
        account = self.claims[-1 - n % len(self.claims)]

        def verb(port: BillingAccounts, now: datetime) -> Awaitable[object]:
            bought = Subscription(
                id=f"sub_{account.user_id}",
                user_id=account.user_id,
                status=status,
                price_id="price_pro",
                created_at=now,
                cancel_at=None if ends_in is None else now + ends_in,
            )
            return port.finish(account, subscriptions=[bought], checkouts=[], pro_until=None, due_in=due_in)

        self.both(verb)

    @rule(owner=owners, status=statuses, due_in=halves)
    def sync(self, owner: int, status: SubscriptionStatus, due_in: timedelta) -> None:
        """From the notification to the next due time, which may come before another notification is due."""
        self.make_due(owner)
        self.take_due(UNIT * 2.5)
        self.claim(owner, UNIT * 1.5)
        if self.claims:
            self.finish(0, status, None, due_in)
        self.wait(1)
        self.take_due(UNIT * 2.5)

    @precondition(lambda self: self.claims)
    @rule(n=indexes, delay=st.sampled_from([UNIT * 0.02, UNIT * 1.5]))
    def fail(self, n: int, delay: timedelta) -> None:
        account = self.claims[-1 - n % len(self.claims)]
        self.both(lambda port, _: port.retry(account, delay=delay))
        self.wait(1)  # so that it does not matter how soon a short delay ends

    @rule(owner=st.sampled_from([None, 0, 1]))
    def make_due(self, owner: int | None) -> None:
        self.both(lambda port, _: port.make_due(None if owner is None else self.people[owner].id))

    @rule(notified_before=st.sampled_from([UNIT * 0.5, UNIT * 2.5]))
    def take_due(self, notified_before: timedelta) -> None:
        """All of them, for two may be due at the same time: then each order is right."""

        async def verb(port: BillingAccounts) -> list[UserId]:
            return sorted(await port.take_due(limit=2, notified_before=notified_before))

        self.both(lambda port, _: verb(port))

    # --- the two sides ---

    def both(self, verb: Callable[[BillingAccounts, datetime], Awaitable[object]]) -> object:
        """The result of the verb, which is the same on both sides."""
        return self.run(self.results(verb))

    async def results(self, verb: Callable[[BillingAccounts, datetime], Awaitable[object]]) -> object:
        self.clock.move(timedelta(milliseconds=1))  # as in Postgres, no two statements are at the same time
        expected = await result_of(verb(self.memory, self.clock.now()))
        found = await result_of(verb(self.real.billing, self.real.clock.now()))
        assert timeless(found) == timeless(expected)
        return found

    @invariant()
    def is_stored_the_same(self) -> None:
        self.run(self.compare())

    async def compare(self) -> None:
        now = self.clock.now()
        assert {
            row.account.user_id: in_units({**asdict(row.account), **asdict(row.schedule)}, now)
            | in_units({"locked": row.checkout_locked_until}, now)
            for row in self.memory.table.all()
        } == {row["user_id"]: stored(row) for row in await rows("SELECT *, now() FROM billing_accounts")}
        assert {checkout.id: in_units(asdict(checkout), now) for checkout in self.memory.checkouts.all()} == {
            row["id"]: in_units({name: row[name] for name in names_of(Checkout)}, row["now"])
            for row in await rows("SELECT *, now() FROM checkouts")
        }


def stored(row: Any) -> dict[str, object]:
    columns = {
        "customer_count": "customers",
        "checkout_count": "checkouts",
        "change_count": "changes",
        "notified_at": "rung_at",
    }
    names = [*names_of(BillingAccount), *names_of(SyncSchedule)]
    values = {name: row[columns.get(name, name)] for name in names}
    return in_units({**values, "locked": row["checkout_busy_until"]}, row["now"])


def names_of(entity: type[Any]) -> list[str]:
    return [field.name for field in fields(entity)]


def in_units(values: dict[str, Any], now: datetime) -> dict[str, object]:
    """With each time as how far away it is, in halves of a unit."""
    return {
        name: round((value - now) / (UNIT / 2)) if isinstance(value, datetime) else value
        for name, value in values.items()
    }


async def result_of(verb: Awaitable[object]) -> object:
    try:
        return await verb
    except DomainError as error:
        return type(error)


def timeless(value: object) -> object:
    if isinstance(value, CheckoutBusy):
        return CheckoutBusy
    if isinstance(value, Checkout):
        return replace(value, expires_at=datetime.max.replace(tzinfo=UTC))
    if isinstance(value, list):
        return [timeless(part) for part in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {name: timeless(getattr(value, name)) for name in names_of(type(value))}
    return value


async def empty() -> None:
    for table in ("users", "payment_events"):
        await rows(f"DELETE FROM {table}")  # noqa: S608 - one of these tables


async def test_postgres_follows_the_rules_of_billing(real: InPostgresAndRedis) -> None:
    try:
        await play(lambda loop: BillingGame(real, loop), games=20, steps=30)
    finally:
        await empty()
