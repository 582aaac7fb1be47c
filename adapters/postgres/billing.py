"""Billing in Postgres. The account's row is the lock, the job and the fence."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from adapters.postgres.connection import rows
from adapters.postgres.mapping import to_entity, to_row
from adapters.postgres.tables import CheckoutRow, PaymentEventRow, SubscriptionRow, UserRow
from application.ports.billing import BillingAccounts, PaymentEvent
from application.ports.runtime import UnitOfWork
from domain.billing import BillingAccount, Checkout, Subscription, SubscriptionStatus
from domain.errors import AlreadySubscribed, UserNotFound
from domain.ids import UserId

_FIRST, _AT_A_TIME = UUID(int=0), 500
_ENDED = [status.value for status in SubscriptionStatus if status.has_ended]

# One statement, so an event is kept and has its effect, or neither. A payment belongs to whoever its
# checkout does; only a checkout is believed when it names a user itself.
_ADD_EVENT = """
WITH kept AS (
    INSERT INTO payment_events (id, received_at) VALUES ($1, now()) ON CONFLICT (id) DO NOTHING RETURNING id
),
named AS (
    SELECT users.id AS user_id FROM kept, users WHERE users.id = $5 AND $4::text IS NOT NULL
),
opened AS (
    INSERT INTO checkouts (id, user_id, expires_at, settled) SELECT $4, user_id, now(), false FROM named
    ON CONFLICT (id) DO NOTHING
),
owners AS (
    SELECT user_id FROM kept, billing_accounts WHERE customer_id = $2
    UNION SELECT user_id FROM kept, checkouts WHERE payment_intent_id = $3
    UNION SELECT user_id FROM kept, checkouts WHERE checkouts.id = $4
    UNION SELECT user_id FROM named
)
INSERT INTO billing_accounts AS account (user_id, customers, checkouts, changes, attempt, failures, due_at, rung_at)
SELECT user_id, 0, 0, 1, 0, 0, now(), now() FROM owners ORDER BY user_id
ON CONFLICT (user_id) DO UPDATE SET changes = account.changes + 1, due_at = now(), rung_at = now()
RETURNING user_id
"""


class PostgresBillingAccounts(BillingAccounts):
    def __init__(self, unit_of_work: UnitOfWork) -> None:
        self._unit_of_work = unit_of_work

    async def subscriptions(self, user_id: UserId) -> list[Subscription]:
        found = await SubscriptionRow.filter(user_id=user_id).order_by("-created_at", "-id")
        return [to_entity(Subscription, row) for row in found]

    async def customer(self, user_id: UserId) -> str | None:
        found = await rows("SELECT customer_id FROM billing_accounts WHERE user_id = $1", user_id)
        return found[0]["customer_id"] if found else None

    async def open_checkouts(self, user_id: UserId) -> list[Checkout]:
        found = await rows("SELECT * FROM checkouts WHERE user_id = $1 AND url IS NOT NULL", user_id)
        return [to_entity(Checkout, row) for row in found]

    async def begin_checkout(
        self, user_id: UserId, *, open_until: datetime, busy_for: timedelta
    ) -> BillingAccount | Checkout | None:
        # Looking and taking are two steps, so what was looked at is looked at again once it is taken.
        taken: BillingAccount | None = None
        while True:
            if await rows(
                "SELECT FROM subscriptions WHERE user_id = $1 AND status <> ALL ($2)"
                " AND (cancel_at IS NULL OR cancel_at > now()) LIMIT 1",
                user_id,
                _ENDED,
            ):
                if taken:
                    await self.abandon_checkout(user_id)
                raise AlreadySubscribed
            found = await rows(
                "SELECT * FROM checkouts WHERE user_id = $1 AND url IS NOT NULL AND expires_at > $2"
                " ORDER BY expires_at DESC LIMIT 1",
                user_id,
                open_until,
            )
            if found:
                if taken:
                    await self.abandon_checkout(user_id)
                return to_entity(Checkout, found[0])
            if taken:
                return taken
            taken = await self._hold(user_id, busy_for)
            if taken is None:
                return None

    async def hold_checkouts(self, user_id: UserId, *, busy_for: timedelta) -> bool:
        return await self._hold(user_id, busy_for) is not None

    async def _hold(self, user_id: UserId, busy_for: timedelta) -> BillingAccount | None:
        try:
            held = await rows(
                "INSERT INTO billing_accounts AS account"
                " (user_id, customers, checkouts, changes, attempt, failures, checkout_busy_until)"
                " VALUES ($1, 0, 0, 0, 0, 0, now() + $2) ON CONFLICT (user_id) DO UPDATE SET"
                " checkout_busy_until = excluded.checkout_busy_until"
                " WHERE account.checkout_busy_until IS NULL OR account.checkout_busy_until <= now() RETURNING *",
                user_id,
                busy_for,
            )
        except asyncpg.ForeignKeyViolationError:
            raise UserNotFound from None
        return to_entity(BillingAccount, held[0]) if held else None

    async def add_customer(self, user_id: UserId, customer_id: str) -> bool:
        try:
            kept = await rows(
                "UPDATE billing_accounts SET customer_id = $2, customers = customers + 1 WHERE user_id = $1"
                " AND coalesce(customer_id, $2) = $2 RETURNING user_id",
                user_id,
                customer_id,
            )
        except asyncpg.UniqueViolationError:
            return False
        return bool(kept)

    async def drop_customer(self, user_id: UserId, customer_id: str) -> None:
        await rows(
            "UPDATE billing_accounts SET customer_id = NULL WHERE user_id = $1 AND customer_id = $2",
            user_id,
            customer_id,
        )

    async def add_checkout(self, checkout: Checkout, *, due_in: timedelta) -> None:
        await rows(
            "WITH account AS ("
            "   UPDATE billing_accounts SET checkouts = checkouts + 1, changes = changes + 1,"
            "   checkout_busy_until = NULL, due_at = least(due_at, now() + $7) WHERE user_id = $2 RETURNING user_id"
            " ) INSERT INTO checkouts (id, user_id, url, expires_at, payment_intent_id, settled)"
            " SELECT $1, user_id, $3, $4, $5, $6 FROM account"
            " ON CONFLICT (id) DO UPDATE SET url = excluded.url, expires_at = excluded.expires_at",
            checkout.id,
            checkout.user_id,
            checkout.url,
            checkout.expires_at,
            checkout.payment_intent_id,
            checkout.settled,
            due_in,
        )

    async def abandon_checkout(self, user_id: UserId) -> None:
        await rows("UPDATE billing_accounts SET checkout_busy_until = NULL WHERE user_id = $1", user_id)

    async def add_event(self, event: PaymentEvent) -> list[UserId]:
        about = (event.customer_id, event.payment_intent_id, event.checkout_id, event.user_id)
        try:
            found = await rows(_ADD_EVENT, event.id, *about)
        except asyncpg.ForeignKeyViolationError:  # the user was deleted this very moment
            return await self.add_event(event)
        return [UserId(row["user_id"]) for row in found]

    async def claim(self, user_id: UserId, *, lease: timedelta) -> tuple[BillingAccount, list[Checkout]] | None:
        claimed = await rows(
            "UPDATE billing_accounts SET attempt = attempt + 1, lease_until = now() + $2 WHERE user_id = $1"
            " AND due_at <= now() AND (lease_until IS NULL OR lease_until <= now()) RETURNING *",
            user_id,
            lease,
        )
        if not claimed:
            return None
        found = await rows("SELECT * FROM checkouts WHERE user_id = $1 AND NOT settled ORDER BY id", user_id)
        return to_entity(BillingAccount, claimed[0]), [to_entity(Checkout, row) for row in found]

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
            held = await rows(
                "UPDATE billing_accounts SET lease_until = NULL, failures = 0,"
                " due_at = CASE WHEN changes = $3 THEN now() + $4 ELSE now() END"
                " WHERE user_id = $1 AND attempt = $2 AND lease_until IS NOT NULL RETURNING user_id",
                account.user_id,
                account.attempt,
                account.changes,
                due_in,
            )
            if not held:
                return False
            await SubscriptionRow.filter(user_id=account.user_id).delete()
            await SubscriptionRow.bulk_create([SubscriptionRow(**to_row(one)) for one in subscriptions])
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
        await rows(
            "UPDATE billing_accounts SET lease_until = NULL, failures = failures + 1,"
            " due_at = now() + CASE WHEN changes = $4 THEN $3 ELSE least($3, interval '5 s') END"
            " WHERE user_id = $1 AND attempt = $2 AND lease_until IS NOT NULL",
            account.user_id,
            account.attempt,
            delay,
            account.changes,
        )

    async def make_due(self, user_id: UserId | None = None) -> int:
        # Locked in the order of their ids, as events lock them, and not all at once: events wait for them.
        made, last = 0, _FIRST
        while True:
            found = await rows(
                "WITH next AS (SELECT user_id FROM billing_accounts WHERE user_id >= $1 AND ($2::uuid IS NULL"
                "   OR user_id = $2) ORDER BY user_id LIMIT $3 FOR UPDATE)"
                " UPDATE billing_accounts AS account SET changes = changes + 1, due_at = now(), rung_at = NULL"
                " FROM next WHERE account.user_id = next.user_id RETURNING account.user_id",
                last,
                user_id,
                _AT_A_TIME,
            )
            made += len(found)
            if len(found) < _AT_A_TIME:
                return made
            last = UUID(int=max(row["user_id"].int for row in found) + 1)

    async def take_due(self, *, limit: int, quiet: timedelta) -> list[UserId]:
        taken = await rows(
            "UPDATE billing_accounts SET rung_at = now() WHERE user_id IN ("
            "   SELECT user_id FROM billing_accounts WHERE due_at <= now()"
            "   AND (lease_until IS NULL OR lease_until <= now())"
            "   AND (rung_at IS NULL OR rung_at < due_at OR rung_at <= now() - $2::interval)"
            "   ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED"
            " ) RETURNING user_id, due_at",
            limit,
            quiet,
        )
        return [UserId(row["user_id"]) for row in sorted(taken, key=lambda row: row["due_at"])]

    async def purge_events(self, *, received_before: datetime) -> None:
        await PaymentEventRow.filter(received_at__lt=received_before).delete()
