"""Billing in Postgres. The account's row is the lock, the job and the fence."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from adapters.postgres.mapping import to_entity, to_row
from adapters.postgres.statements import Statements
from adapters.postgres.tables import CheckoutRow, SubscriptionRow, UserRow
from application.ports.billing import (
    BillingAccounts,
    CheckoutBusy,
    CheckoutLock,
    CheckoutStart,
    ClaimedSync,
    PaymentEvent,
)
from application.ports.runtime import UnitOfWork
from domain.billing import BillingAccount, Checkout, Subscription, SubscriptionStatus
from domain.chat.history import FIRST_ID
from domain.errors import AlreadySubscribed, UserNotFound
from domain.ids import UserId

SQL = Statements("billing")
_BATCH = 500
_ENDED = [status.value for status in SubscriptionStatus if status.has_ended]


class PostgresBillingAccounts(BillingAccounts):
    def __init__(self, unit_of_work: UnitOfWork) -> None:
        self._unit_of_work = unit_of_work

    async def subscriptions(self, user_id: UserId) -> list[Subscription]:
        found = await SubscriptionRow.filter(user_id=user_id).order_by("-created_at", "-id")
        return [to_entity(Subscription, row) for row in found]

    async def customer(self, user_id: UserId) -> str | None:
        found = await SQL.customer(user_id=user_id)
        return found[0]["customer_id"] if found else None

    async def open_checkouts(self, user_id: UserId) -> list[Checkout]:
        found = await SQL.open_checkouts(user_id=user_id)
        return [to_entity(Checkout, row) for row in found]

    async def begin_checkout(self, user_id: UserId, *, open_until: datetime, lock_for: timedelta) -> CheckoutStart:
        # Looking and locking are two steps, so everything is looked at again once the lock is taken.
        lock: CheckoutLock | None = None
        while True:
            if await SQL.has_subscription(user_id=user_id, ended=_ENDED):
                if lock:
                    await self.unlock_checkout(user_id)
                raise AlreadySubscribed
            found = await SQL.open_checkout(user_id=user_id, open_until=open_until)
            if found:
                if lock:
                    await self.unlock_checkout(user_id)
                return to_entity(Checkout, found[0])
            if lock:
                return lock
            account = await self._lock(user_id, lock_for)
            if account is None:
                return CheckoutBusy()
            lock = CheckoutLock(account)

    async def lock_checkout(self, user_id: UserId, *, lock_for: timedelta) -> bool:
        return await self._lock(user_id, lock_for) is not None

    async def _lock(self, user_id: UserId, lock_for: timedelta) -> BillingAccount | None:
        try:
            locked = await SQL.lock_checkout(user_id=user_id, lock_for=lock_for)
        except asyncpg.ForeignKeyViolationError:
            raise UserNotFound from None
        return to_entity(BillingAccount, locked[0]) if locked else None

    async def unlock_checkout(self, user_id: UserId) -> None:
        await SQL.unlock_checkout(user_id=user_id)

    async def add_customer(self, user_id: UserId, customer_id: str) -> bool:
        try:
            kept = await SQL.add_customer(user_id=user_id, customer_id=customer_id)
        except asyncpg.UniqueViolationError:
            return False
        return bool(kept)

    async def drop_customer(self, user_id: UserId, customer_id: str) -> None:
        await SQL.drop_customer(user_id=user_id, customer_id=customer_id)

    async def add_checkout(self, checkout: Checkout, *, due_in: timedelta) -> None:
        await SQL.add_checkout(**to_row(checkout), due_in=due_in)

    async def add_event(self, event: PaymentEvent) -> list[UserId]:
        try:
            found = await SQL.add_event(**to_row(event))
        except asyncpg.ForeignKeyViolationError:  # the user was deleted concurrently
            return await self.add_event(event)
        return [UserId(row["user_id"]) for row in found]

    async def claim(self, user_id: UserId, *, lease: timedelta) -> ClaimedSync | None:
        claimed = await SQL.claim(user_id=user_id, lease=lease)
        if not claimed:
            return None
        found = await SQL.unsettled_checkouts(user_id=user_id)
        return ClaimedSync(to_entity(BillingAccount, claimed[0]), [to_entity(Checkout, row) for row in found])

    async def finish(
        self,
        account: BillingAccount,
        *,
        subscriptions: Sequence[Subscription],
        checkouts: Sequence[Checkout],
        pro_until: datetime | None,
        due_in: timedelta | None,
    ) -> bool:
        async with self._unit_of_work():
            held = await SQL.finish(
                user_id=account.user_id, attempt=account.attempt, change_count=account.change_count, due_in=due_in
            )
            if not held:
                return False
            await SubscriptionRow.filter(user_id=account.user_id).delete()
            await SubscriptionRow.bulk_create(
                [SubscriptionRow(**to_row(subscription)) for subscription in subscriptions]
            )
            for checkout in checkouts:
                await CheckoutRow.filter(id=checkout.id, user_id=account.user_id).update(
                    url=checkout.url,
                    expires_at=checkout.expires_at,
                    payment_intent_id=checkout.payment_intent_id,
                    settled=checkout.settled,
                )
            await UserRow.filter(id=account.user_id).update(pro_until=pro_until)
        return True

    async def retry(self, account: BillingAccount, *, delay: timedelta) -> None:
        await SQL.retry(
            user_id=account.user_id, attempt=account.attempt, change_count=account.change_count, delay=delay
        )

    async def make_due(self, user_id: UserId | None = None) -> int:
        # In batches, since events wait for the locks.
        made, first = 0, FIRST_ID
        while True:
            found = await SQL.make_due(first=first, only=user_id, limit=_BATCH)
            made += len(found)
            if len(found) < _BATCH:
                return made
            first = UUID(int=max(row["user_id"].int for row in found) + 1)

    async def take_due(self, *, limit: int, notified_before: timedelta) -> list[UserId]:
        taken = await SQL.take_due(limit=limit, notified_before=notified_before)
        return [UserId(row["user_id"]) for row in sorted(taken, key=lambda row: row["due_at"])]

    async def purge_checkouts(self, *, expired_before: datetime) -> None:
        while await SQL.purge_checkouts(expired_before=expired_before):
            pass

    async def purge_events(self, *, received_before: datetime) -> None:
        while await SQL.purge_events(received_before=received_before):
            pass
