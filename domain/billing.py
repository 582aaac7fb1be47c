"""Tiers and what each allows, and the subscriptions that pay for Pro."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum

from domain.ids import UserId

PAST_DUE_GRACE = timedelta(days=7)
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
    """Not answered yet, at any moment."""
    per_minute: int | None = None
    """Fair use, counted in minutes that begin with a message."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a user has used of one UTC day. `total` None is unlimited; tokens are those the model reported.

    The day turns by itself: usage is stored per day, and yesterday's is simply not asked for.
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
    """Stripe's words."""

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
        """Nothing can be charged by it any more, so another may be begun beside it.

        An incomplete one may be: a bank takes days for a first payment that is under way.
        """
        return self in (self.INCOMPLETE_EXPIRED, self.CANCELED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A subscription as Stripe described it when it was last asked.

    A single payment for Pro, which the service before this one sold, is kept as one that has no
    period: its id is that of its checkout.
    """

    id: str
    user_id: UserId
    status: SubscriptionStatus
    price_id: str
    created_at: datetime
    current_period_end: datetime | None = None
    #: Set if it is to end by itself, at the period's end or earlier.
    cancel_at: datetime | None = None
    #: When the oldest invoice came due that is not paid.
    past_due_since: datetime | None = None

    def pro_until(self, prices: Collection[str]) -> datetime | None:
        """The moment up to which it makes its user Pro, if nothing changes; None if it does not."""
        if self.price_id not in prices:
            return None
        match self.status:
            case SubscriptionStatus.ACTIVE | SubscriptionStatus.TRIALING:
                return self.cancel_at or FOREVER
            case SubscriptionStatus.PAST_DUE if self.past_due_since:
                return min(self.cancel_at or FOREVER, self.past_due_since + PAST_DUE_GRACE)
            case _:
                return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A page of Stripe's on which a user may pay; `url` is None once it leads nowhere."""

    id: str
    user_id: UserId
    url: str | None = None
    expires_at: datetime
    #: The single payment made on it, if it was for one.
    payment_intent_id: str | None = None
    #: Whatever became of it, its customer's subscriptions tell it all: no need to look at it again.
    settled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BillingAccount:
    """What ties a user to Stripe. It is also the job of reading their subscriptions from there.

    `attempt` counts claims and is the fencing token. `changes` counts what has happened since that a
    reading should know of: one that began before the last change is not the last one. `customers` and
    `checkouts` count those made so far, so that making the next one can be repeated without making two.
    """

    user_id: UserId
    customer_id: str | None = None
    customers: int = 0
    checkouts: int = 0
    attempt: int = 0
    failures: int = 0
    changes: int = 0
