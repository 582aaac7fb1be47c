"""Tiers and what each allows, and the subscriptions that pay for Pro."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum

from domain.ids import UserId

PAST_DUE_GRACE = timedelta(days=7)
#: How soon a failed sync is repeated if something has changed since it began.
CHANGED_RETRY_DELAY = timedelta(seconds=5)
FOREVER = datetime(9999, 12, 31, tzinfo=UTC)


class Tier(StrEnum):
    BASIC = "Basic"
    PRO = "Pro"


@dataclass(frozen=True, slots=True)
class SendingLimits:
    """How many messages a user may send; None is unlimited."""

    daily: int | None = None
    """In a UTC day."""
    in_flight: int | None = None
    """Not answered yet."""
    per_minute: int | None = None
    """Fair use. A minute begins with the first message after the last minute."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a user has used of one UTC day. `total` None is unlimited; tokens are those the model reported.

    Usage is stored per day, so nothing has to be reset at midnight.
    """

    day: date
    used: int
    total: int | None
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def remaining(self) -> int | None:
        return None if self.total is None else max(0, self.total - self.used)

    @property
    def resets_at(self) -> datetime:
        return datetime.combine(self.day + timedelta(days=1), time(), UTC)


class SubscriptionStatus(StrEnum):
    """Stripe's statuses."""

    INCOMPLETE = "incomplete"
    INCOMPLETE_EXPIRED = "incomplete_expired"
    TRIALING = "trialing"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    UNPAID = "unpaid"
    PAUSED = "paused"
    CANCELED = "canceled"

    @property
    def has_ended(self) -> bool:
        """It can charge nothing any more, so another may begin.

        An incomplete one has not ended: its first payment may be on its way for days.
        """
        return self in (self.INCOMPLETE_EXPIRED, self.CANCELED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A subscription as last read from Stripe.

    A single payment for Pro, which the former service sold, is stored as one without a period; its id is that of its
    checkout.
    """

    id: str
    user_id: UserId
    status: SubscriptionStatus
    price_id: str
    created_at: datetime
    current_period_end: datetime | None = None
    #: When it will end, if it is set to.
    cancel_at: datetime | None = None
    #: The end of the last paid period, while the collection of payments is paused (`pause_collection`).
    unpaid_from: datetime | None = None
    #: When the oldest unpaid invoice came due.
    past_due_since: datetime | None = None

    def pro_until(self, prices: Collection[str]) -> datetime | None:
        """The moment up to which it makes its user Pro, if nothing changes; None if it does not."""
        if self.price_id not in prices:
            return None
        match self.status:
            case SubscriptionStatus.ACTIVE | SubscriptionStatus.TRIALING:
                return min(self.cancel_at or FOREVER, self.unpaid_from or FOREVER)
            case SubscriptionStatus.PAST_DUE if self.past_due_since:
                grace_ends = self.past_due_since + PAST_DUE_GRACE
                return min(self.cancel_at or FOREVER, self.unpaid_from or FOREVER, grace_ends)
            case _:
                return None

    def may_charge(self, now: datetime) -> bool:
        """Whether a second subscription would charge the user twice."""
        return not self.status.has_ended and (self.cancel_at is None or self.cancel_at > now)


def pro_until(subscriptions: Iterable[Subscription], prices: Collection[str]) -> datetime | None:
    """The moment up to which all of a user's subscriptions together make them Pro."""
    return max((until for bought in subscriptions if (until := bought.pro_until(prices))), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A page at Stripe on which a user may pay; `url` is None once the page is closed."""

    id: str
    user_id: UserId
    url: str | None = None
    expires_at: datetime
    #: The single payment made on it, if it was for one.
    payment_intent_id: str | None = None
    #: Nothing more can happen on it: its customer's subscriptions tell the rest.
    settled: bool = False

    def is_open(self, until: datetime) -> bool:
        return self.url is not None and self.expires_at > until

    def closed(self) -> Checkout:
        return replace(self, url=None, settled=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class BillingAccount:
    """What ties a user to Stripe. It is also the job of reading their subscriptions from there, a sync.

    `attempt` counts claims and is the fencing token. `change_count` counts what a sync should know of: one that began
    before the last change is not the last one. `customer_count` and `checkout_count` count those made so far, so that
    making the next one can be repeated without making two.
    """

    user_id: UserId
    customer_id: str | None = None
    customer_count: int = 0
    checkout_count: int = 0
    attempt: int = 0
    failures: int = 0
    change_count: int = 0
    #: Stripe has sent an event since the last sync began.
    announced: bool = False

    def with_customer(self, customer_id: str) -> BillingAccount | None:
        """None if there is another already."""
        if self.customer_id not in (None, customer_id):
            return None
        return replace(self, customer_id=customer_id, customer_count=self.customer_count + 1)

    def without_customer(self) -> BillingAccount:
        return replace(self, customer_id=None)

    def changed(self, *, announced: bool = False) -> BillingAccount:
        """With one more change; `announced` if an event reported it."""
        return replace(self, change_count=self.change_count + 1, announced=self.announced or announced)

    def with_checkout(self) -> BillingAccount:
        return replace(self.changed(), checkout_count=self.checkout_count + 1)

    def claimed(self) -> BillingAccount:
        return replace(self, attempt=self.attempt + 1)

    def synced(self, *, has_changed: bool) -> BillingAccount:
        return replace(self, failures=0, announced=self.announced and has_changed)

    def failed(self) -> BillingAccount:
        return replace(self, failures=self.failures + 1)


@dataclass(frozen=True, slots=True)
class SyncSchedule:
    """When an account is to be read from Stripe next, and who is doing it. Without `due_at` nothing is to be done."""

    due_at: datetime | None = None
    lease_until: datetime | None = None
    notified_at: datetime | None = None

    @property
    def is_held(self) -> bool:
        """An expired lease that nobody took still holds."""
        return self.lease_until is not None

    def is_claimable(self, now: datetime) -> bool:
        is_free = self.lease_until is None or self.lease_until <= now
        return is_free and self.due_at is not None and self.due_at <= now

    def wants_notification(self, now: datetime, *, notified_before: timedelta) -> bool:
        """Whether a worker should be notified: of this time nobody was, or that is too long ago."""
        if self.due_at is None or not self.is_claimable(now):
            return False
        return self.notified_at is None or self.notified_at < self.due_at or self.notified_at <= now - notified_before

    def due_by(self, at: datetime) -> SyncSchedule:
        return replace(self, due_at=min(self.due_at or at, at))

    def claimed(self, until: datetime) -> SyncSchedule:
        return replace(self, lease_until=until)

    def released(self, due_at: datetime | None) -> SyncSchedule:
        return replace(self, due_at=due_at, lease_until=None)


def next_sync(now: datetime, due_in: timedelta | None, *, has_changed: bool) -> datetime | None:
    """When to read again after a sync; at once if something has changed since it began."""
    if has_changed:
        return now
    return None if due_in is None else now + due_in


def next_try(now: datetime, delay: timedelta, *, has_changed: bool) -> datetime:
    """When to read again after a failure; soon if something has changed since it began."""
    return now + (min(delay, CHANGED_RETRY_DELAY) if has_changed else delay)
