"""Billing in memory: the accounts, and a Stripe that says what it was told to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from adapters.memory.accounts import MemoryUsers
from adapters.memory.store import Table
from application.ports.billing import BillingAccounts, CheckoutState, CustomerGone, PaymentEvent, PaymentGateway
from application.ports.runtime import Clock
from domain.billing import BillingAccount, Checkout, Subscription
from domain.errors import AlreadySubscribed, DomainError, UserNotFound, WebhookInvalid
from domain.ids import UserId

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Kept:
    account: BillingAccount
    checkout_busy_until: datetime = _NEVER
    due_at: datetime | None = None
    lease_until: datetime = _NEVER
    rung_at: datetime = _NEVER

    def is_claimable(self, now: datetime) -> bool:
        return self.due_at is not None and self.due_at <= now and self.lease_until <= now


class MemoryBillingAccounts(BillingAccounts):
    def __init__(self, users: MemoryUsers, clock: Clock) -> None:
        self._users = users
        self._clock = clock
        self.table: Table[UserId, _Kept] = Table()
        self.checkouts: Table[str, Checkout] = Table()
        self.stored: Table[UserId, list[Subscription]] = Table()
        self.events: Table[str, datetime] = Table()

    async def subscriptions(self, user_id: UserId) -> list[Subscription]:
        return sorted(self.stored.get(user_id) or [], key=lambda one: (one.created_at, one.id), reverse=True)

    async def customer(self, user_id: UserId) -> str | None:
        kept = self.table.get(user_id)
        return kept.account.customer_id if kept else None

    async def open_checkouts(self, user_id: UserId) -> list[Checkout]:
        return [one for one in self.checkouts.all() if one.user_id == user_id and one.url]

    async def begin_checkout(
        self, user_id: UserId, *, open_until: datetime, busy_for: timedelta
    ) -> BillingAccount | Checkout | None:
        lasting = [one for one in self.stored.get(user_id) or [] if not one.status.has_ended]
        if any(one.cancel_at is None or one.cancel_at > self._clock.now() for one in lasting):
            raise AlreadySubscribed
        mine = [one for one in self.checkouts.all() if one.user_id == user_id and one.url]
        if still_open := [one for one in mine if one.expires_at > open_until]:
            return max(still_open, key=lambda one: one.expires_at)
        return self._kept(user_id).account if await self.lock_checkout(user_id, busy_for=busy_for) else None

    async def lock_checkout(self, user_id: UserId, *, busy_for: timedelta) -> bool:
        if self._users.table.get(user_id) is None:
            raise UserNotFound
        kept = self._kept(user_id)
        if kept.checkout_busy_until > self._clock.now():
            return False
        self.table.put(user_id, replace(kept, checkout_busy_until=self._clock.now() + busy_for))
        return True

    async def add_customer(self, user_id: UserId, customer_id: str) -> bool:
        if any(one.account.customer_id == customer_id and one.account.user_id != user_id for one in self.table.all()):
            return False
        kept = self.table.get(user_id)
        if kept is None or kept.account.customer_id not in (None, customer_id):
            return False
        account = replace(kept.account, customer_id=customer_id, customers=kept.account.customers + 1)
        self.table.put(user_id, replace(kept, account=account))
        return True

    async def drop_customer(self, user_id: UserId, customer_id: str) -> None:
        kept = self._kept(user_id)
        if kept.account.customer_id == customer_id:
            self.table.put(user_id, replace(kept, account=replace(kept.account, customer_id=None)))

    async def add_checkout(self, checkout: Checkout, *, due_in: timedelta) -> None:
        self.checkouts.put(checkout.id, checkout)
        kept, due_at = self._kept(checkout.user_id), self._clock.now() + due_in
        account = replace(kept.account, checkouts=kept.account.checkouts + 1, changes=kept.account.changes + 1)
        due_at = min(kept.due_at or due_at, due_at)
        self.table.put(checkout.user_id, replace(kept, account=account, checkout_busy_until=_NEVER, due_at=due_at))

    async def unlock_checkout(self, user_id: UserId) -> None:
        self.table.put(user_id, replace(self._kept(user_id), checkout_busy_until=_NEVER))

    async def add_event(self, event: PaymentEvent) -> list[UserId]:
        if self.events.get(event.id):
            return []
        now = self._clock.now()
        self.events.put(event.id, now)
        if event.checkout_id and event.user_id and self._users.table.get(event.user_id):
            told = Checkout(id=event.checkout_id, user_id=event.user_id, expires_at=now)
            self.checkouts.put(told.id, self.checkouts.get(told.id) or told)
            owners = self._owners(event) | {event.user_id}
        else:
            owners = self._owners(event)
        for owner in owners:
            kept = self._kept(owner)
            account = replace(kept.account, changes=kept.account.changes + 1)
            self.table.put(owner, replace(kept, account=account, due_at=now, rung_at=now))
        return sorted(owners)

    def _owners(self, event: PaymentEvent) -> set[UserId]:
        accounts = [kept.account for kept in self.table.all()]
        by_customer = {one.user_id for one in accounts if event.customer_id and one.customer_id == event.customer_id}
        return by_customer | {
            one.user_id
            for one in self.checkouts.all()
            if one.id == event.checkout_id
            or (event.payment_intent_id and one.payment_intent_id == event.payment_intent_id)
        }

    async def claim(self, user_id: UserId, *, lease: timedelta) -> tuple[BillingAccount, list[Checkout]] | None:
        now, kept = self._clock.now(), self.table.get(user_id)
        if kept is None or not kept.is_claimable(now):
            return None
        account = replace(kept.account, attempt=kept.account.attempt + 1)
        self.table.put(user_id, replace(kept, account=account, lease_until=now + lease))
        mine = [one for one in self.checkouts.all() if one.user_id == user_id and not one.settled]
        return account, sorted(mine, key=lambda one: one.id)

    async def finish(
        self,
        account: BillingAccount,
        *,
        subscriptions: Sequence[Subscription],
        checkouts: Sequence[Checkout],
        pro_until: datetime | None,
        due_in: timedelta | None,
    ) -> bool:
        kept = self._held(account)
        if kept is None:
            return False
        now = self._clock.now()
        due_at = None if due_in is None else now + due_in
        if kept.account.changes != account.changes:
            due_at = now
        done = replace(kept, account=replace(kept.account, failures=0), due_at=due_at, lease_until=_NEVER)
        self.table.put(account.user_id, done)
        self.stored.put(account.user_id, list(subscriptions))
        for checkout in checkouts:
            self.checkouts.put(checkout.id, checkout)
        if user := self._users.table.get(account.user_id):
            self._users.table.put(user.id, replace(user, pro_until=pro_until))
        return True

    async def retry(self, account: BillingAccount, *, delay: timedelta) -> None:
        if kept := self._held(account):
            failed = replace(kept.account, failures=kept.account.failures + 1)
            if kept.account.changes != account.changes:
                delay = min(delay, timedelta(seconds=5))
            again = replace(kept, account=failed, due_at=self._clock.now() + delay, lease_until=_NEVER)
            self.table.put(account.user_id, again)

    async def make_due(self, user_id: UserId | None = None) -> int:
        made = [one for one in self.table.all() if user_id in (None, one.account.user_id)]
        for kept in made:
            account = replace(kept.account, changes=kept.account.changes + 1)
            self.table.put(account.user_id, replace(kept, account=account, due_at=self._clock.now(), rung_at=_NEVER))
        return len(made)

    async def take_due(self, *, limit: int, quiet: timedelta) -> list[UserId]:
        now = self._clock.now()
        due = [
            (one.due_at, one)
            for one in self.table.all()
            if one.due_at and one.is_claimable(now) and (one.rung_at < one.due_at or one.rung_at <= now - quiet)
        ]
        taken = [one for _, one in sorted(due, key=lambda pair: pair[0])[:limit]]
        for kept in taken:
            self.table.put(kept.account.user_id, replace(kept, rung_at=now))
        return [kept.account.user_id for kept in taken]

    async def purge_events(self, *, received_before: datetime) -> None:
        for event_id, received_at in self.events.items():
            if received_at < received_before:
                self.events.put(event_id, None)

    def _kept(self, user_id: UserId) -> _Kept:
        return self.table.get(user_id) or _Kept(BillingAccount(user_id=user_id))

    def _held(self, account: BillingAccount) -> _Kept | None:
        kept = self.table.get(account.user_id)
        held = kept and kept.account.attempt == account.attempt and kept.lease_until != _NEVER
        return kept if held else None


class MemoryPaymentGateway(PaymentGateway):
    """Says what its dictionaries hold. `error`, if set, is what every verb raises; the body of an event is its id."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.events: dict[str, PaymentEvent] = {}
        self.customers: dict[str, list[Subscription]] = {}
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
        checkout = Checkout(
            id=f"cs_{account.user_id.hex}_{account.checkouts}",
            user_id=account.user_id,
            url=f"https://pay.test/{account.user_id.hex}/{account.checkouts}",
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
            closed = replace(state.checkout, url=None, settled=True)
            self.states[checkout_id] = replace(state, checkout=closed)

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
        return [one for one in self.customers[customer_id] if one.user_id == user_id]

    def _called(self, verb: str) -> None:
        self.calls.append(verb)
        if self.error:
            raise self.error
