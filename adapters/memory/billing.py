"""Billing in memory: the accounts, and a Stripe whose answers a test sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from operator import attrgetter

from adapters.memory.accounts import MemoryUsers
from adapters.memory.store import Table
from application.ports.billing import (
    BillingAccounts,
    CheckoutBusy,
    CheckoutLock,
    CheckoutStart,
    CheckoutState,
    ClaimedSync,
    CustomerGone,
    CustomerMismatched,
    PaymentEvent,
    PaymentGateway,
)
from application.ports.runtime import Clock
from domain.billing import BillingAccount, Checkout, Subscription, SyncSchedule, next_sync, next_try
from domain.errors import AlreadySubscribed, DomainError, UserNotFound, WebhookInvalid
from domain.ids import UserId


@dataclass(frozen=True, slots=True)
class _Row:
    account: BillingAccount
    schedule: SyncSchedule = field(default_factory=SyncSchedule)
    checkout_locked_until: datetime | None = None


class MemoryBillingAccounts(BillingAccounts):
    def __init__(self, users: MemoryUsers, clock: Clock) -> None:
        self._users = users
        self._clock = clock
        self.table: Table[UserId, _Row] = Table()
        self.checkouts: Table[str, Checkout] = Table()
        self.stored: Table[UserId, list[Subscription]] = Table()
        self.events: Table[str, datetime] = Table()

    async def subscriptions(self, user_id: UserId) -> list[Subscription]:
        return sorted(self.stored.get(user_id) or [], key=attrgetter("created_at", "id"), reverse=True)

    async def customer(self, user_id: UserId) -> str | None:
        row = self.table.get(user_id)
        return row.account.customer_id if row else None

    async def open_checkouts(self, user_id: UserId) -> list[Checkout]:
        return [checkout for checkout in self._checkouts_of(user_id) if checkout.url]

    async def begin_checkout(self, user_id: UserId, *, open_until: datetime, lock_for: timedelta) -> CheckoutStart:
        if any(subscription.may_charge(self._clock.now()) for subscription in self.stored.get(user_id) or []):
            raise AlreadySubscribed
        if still_open := [checkout for checkout in self._checkouts_of(user_id) if checkout.is_open(open_until)]:
            return max(still_open, key=attrgetter("expires_at"))
        if await self.lock_checkout(user_id, lock_for=lock_for):
            return CheckoutLock(self._row(user_id).account)
        return CheckoutBusy()

    async def lock_checkout(self, user_id: UserId, *, lock_for: timedelta) -> bool:
        if self._users.table.get(user_id) is None:
            raise UserNotFound
        row, now = self._row(user_id), self._clock.now()
        if row.checkout_locked_until and row.checkout_locked_until > now:
            return False
        self.table.put(user_id, replace(row, checkout_locked_until=now + lock_for))
        return True

    async def unlock_checkout(self, user_id: UserId) -> None:
        self.table.put(user_id, replace(self._row(user_id), checkout_locked_until=None))

    async def add_customer(self, user_id: UserId, customer_id: str) -> bool:
        accounts = [row.account for row in self.table.all()]
        if any(account.customer_id == customer_id and account.user_id != user_id for account in accounts):
            return False
        row = self.table.get(user_id)
        account = row.account.with_customer(customer_id) if row else None
        if row is None or account is None:
            return False
        self.table.put(user_id, replace(row, account=account))
        return True

    async def drop_customer(self, user_id: UserId, customer_id: str) -> None:
        row = self.table.get(user_id)
        if row and row.account.customer_id == customer_id:
            self.table.put(user_id, replace(row, account=row.account.without_customer()))

    async def add_checkout(self, checkout: Checkout, *, due_in: timedelta) -> None:
        known = self.checkouts.get(checkout.id) or checkout  # an event may have come first
        self.checkouts.put(checkout.id, replace(known, url=checkout.url, expires_at=checkout.expires_at))
        row = self._row(checkout.user_id)
        schedule = row.schedule.due_by(self._clock.now() + due_in)
        self.table.put(checkout.user_id, _Row(row.account.with_checkout(), schedule))

    async def add_event(self, event: PaymentEvent) -> list[UserId]:
        if self.events.get(event.id):
            return []
        now = self._clock.now()
        self.events.put(event.id, now)
        owners = self._owners(event)
        if event.checkout_id and event.user_id and self._users.table.get(event.user_id):
            if self.checkouts.get(event.checkout_id) is None:
                named = Checkout(id=event.checkout_id, user_id=event.user_id, expires_at=now)
                self.checkouts.put(named.id, named)
            owners.add(event.user_id)
        for owner in owners:
            self._make_due(self._row(owner), notified_at=now, announced=True)
        return sorted(owners)

    def _owners(self, event: PaymentEvent) -> set[UserId]:
        accounts = [row.account for row in self.table.all()]
        by_customer = {
            account.user_id for account in accounts if event.customer_id and account.customer_id == event.customer_id
        }
        return by_customer | {
            checkout.user_id
            for checkout in self.checkouts.all()
            if checkout.id == event.checkout_id
            or (event.payment_intent_id and checkout.payment_intent_id == event.payment_intent_id)
        }

    async def claim(self, user_id: UserId, *, lease: timedelta) -> ClaimedSync | None:
        now, row = self._clock.now(), self.table.get(user_id)
        if row is None or not row.schedule.is_claimable(now):
            return None
        row = replace(row, account=row.account.claimed(), schedule=row.schedule.claimed(now + lease))
        self.table.put(user_id, row)
        unsettled = [checkout for checkout in self._checkouts_of(user_id) if not checkout.settled]
        return ClaimedSync(row.account, sorted(unsettled, key=attrgetter("id")))

    async def finish(
        self,
        account: BillingAccount,
        *,
        subscriptions: Sequence[Subscription],
        checkouts: Sequence[Checkout],
        pro_until: datetime | None,
        due_in: timedelta | None,
    ) -> bool:
        row = self._held(account)
        if row is None:
            return False
        has_changed = row.account.change_count != account.change_count
        schedule = row.schedule.released(next_sync(self._clock.now(), due_in, has_changed=has_changed))
        self.table.put(
            account.user_id, replace(row, account=row.account.synced(has_changed=has_changed), schedule=schedule)
        )
        self.stored.put(account.user_id, list(subscriptions))
        for checkout in checkouts:
            self.checkouts.put(checkout.id, checkout)
        if user := self._users.table.get(account.user_id):
            self._users.table.put(user.id, replace(user, pro_until=pro_until))
        return True

    async def retry(self, account: BillingAccount, *, delay: timedelta) -> None:
        if row := self._held(account):
            has_changed = row.account.change_count != account.change_count
            schedule = row.schedule.released(next_try(self._clock.now(), delay, has_changed=has_changed))
            self.table.put(account.user_id, replace(row, account=row.account.failed(), schedule=schedule))

    async def make_due(self, user_id: UserId | None = None) -> int:
        rows = [row for row in self.table.all() if user_id in (None, row.account.user_id)]
        for row in rows:
            self._make_due(row, notified_at=None)
        return len(rows)

    async def take_due(self, *, limit: int, notified_before: timedelta) -> list[UserId]:
        now = self._clock.now()
        due = [row for row in self.table.all() if row.schedule.wants_notification(now, notified_before=notified_before)]
        taken = sorted(due, key=attrgetter("schedule.due_at"))[:limit]
        for row in taken:
            self.table.put(row.account.user_id, replace(row, schedule=replace(row.schedule, notified_at=now)))
        return [row.account.user_id for row in taken]

    async def purge_checkouts(self, *, expired_before: datetime) -> None:
        for checkout in self.checkouts.all():
            if checkout.settled and checkout.expires_at < expired_before:
                self.checkouts.put(checkout.id, None)

    async def purge_events(self, *, received_before: datetime) -> None:
        for event_id, received_at in self.events.items():
            if received_at < received_before:
                self.events.put(event_id, None)

    def _row(self, user_id: UserId) -> _Row:
        return self.table.get(user_id) or _Row(BillingAccount(user_id=user_id))

    def _held(self, account: BillingAccount) -> _Row | None:
        row = self.table.get(account.user_id)
        return row if row and row.account.attempt == account.attempt and row.schedule.is_held else None

    def _make_due(self, row: _Row, *, notified_at: datetime | None, announced: bool = False) -> None:
        schedule = replace(row.schedule, due_at=self._clock.now(), notified_at=notified_at)
        self.table.put(
            row.account.user_id, replace(row, account=row.account.changed(announced=announced), schedule=schedule)
        )

    def _checkouts_of(self, user_id: UserId) -> list[Checkout]:
        return [checkout for checkout in self.checkouts.all() if checkout.user_id == user_id]


class MemoryPaymentGateway(PaymentGateway):
    """Answers from its dictionaries. Every verb raises `error` if it is set; the body of an event is its id."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.events: dict[str, PaymentEvent] = {}
        self.customers: dict[str, list[Subscription]] = {}
        #: Those that pay in another currency than the price's.
        self.mismatched: set[str] = set()
        self.states: dict[str, CheckoutState] = {}
        self.error: DomainError | None = None
        self.calls: list[str] = []

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def read_event(self, body: bytes, signature: str | None, *, now: datetime) -> PaymentEvent | None:
        if signature != "signed":
            raise WebhookInvalid
        return self.events.get(body.decode())

    async def create_customer(self, user_id: UserId, *, name: str, number: int) -> str:
        self._called("create_customer")
        customer_id = f"cus_{user_id.hex}_{number}"
        self.customers.setdefault(customer_id, [])
        return customer_id

    async def open_checkout(self, account: BillingAccount, customer_id: str) -> Checkout:
        self._called("open_checkout")
        if customer_id not in self.customers:
            raise CustomerGone
        if customer_id in self.mismatched:
            raise CustomerMismatched
        checkout = Checkout(
            id=f"cs_{account.user_id.hex}_{account.checkout_count}",
            user_id=account.user_id,
            url=f"https://pay.test/{account.user_id.hex}/{account.checkout_count}",
            expires_at=self._clock.now() + timedelta(days=1),
        )
        self.states.setdefault(checkout.id, CheckoutState(checkout=checkout, customer_id=customer_id))
        return self.states[checkout.id].checkout

    async def open_portal(self, customer_id: str) -> str:
        self._called("open_portal")
        if customer_id not in self.customers:
            raise CustomerGone
        return f"https://pay.test/portal/{customer_id}"

    async def close_checkout(self, checkout_id: str) -> None:
        self._called("close_checkout")
        if state := self.states.get(checkout_id):
            self.states[checkout_id] = replace(state, checkout=state.checkout.closed())

    async def delete_customer(self, customer_id: str) -> None:
        self._called("delete_customer")
        if self.customers.pop(customer_id, None) is None:
            raise CustomerGone

    async def checkout(self, checkout_id: str, user_id: UserId) -> CheckoutState | None:
        self._called("checkout")
        state = self.states.get(checkout_id)
        return state if state and state.checkout.user_id == user_id else None

    async def subscriptions(self, customer_id: str, user_id: UserId) -> list[Subscription]:
        self._called("subscriptions")
        if customer_id not in self.customers:
            raise CustomerGone
        return [bought for bought in self.customers[customer_id] if bought.user_id == user_id]

    def _called(self, verb: str) -> None:
        self.calls.append(verb)
        if self.error:
            raise self.error
