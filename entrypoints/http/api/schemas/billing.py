"""Replies of /subscribe and /subscription, and the daily allowance of a tier."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from domain import billing
from domain.billing import Allowance, SubscriptionStatus, Tier
from entrypoints.http.api.schemas.common import Count, Reply, ReplySchema, Timestamp, count, timestamp

Total = Annotated[Count, Field(description="Messages per day; unlimited on Pro.")]
ResetsAt = Annotated[Timestamp, Field(description="When the allowance resets.")]


class DailyLimit(ReplySchema):
    """The daily allowance after this message."""

    used: Annotated[int, Field(description="Messages sent today.", examples=[3])]
    total: Total
    resets_at: ResetsAt


class DailyUsage(ReplySchema):
    """Usage of the daily allowance. Days are UTC days."""

    used: Annotated[int, Field(description="Messages sent today.", examples=[2])]
    total: Total
    remaining: Annotated[Count, Field(description="Messages left today.", examples=[3])]
    resets_at: ResetsAt
    input_tokens: Annotated[int, Field(description="Input tokens used today.", examples=[210])]
    output_tokens: Annotated[int, Field(description="Output tokens used today.", examples=[840])]

    @classmethod
    def of(cls, allowance: Allowance) -> DailyUsage:
        return cls(
            used=allowance.used,
            total=count(allowance.total),
            remaining=count(allowance.remaining),
            resets_at=timestamp(allowance.resets_at),
            input_tokens=allowance.input_tokens,
            output_tokens=allowance.output_tokens,
        )


class UrlReply(ReplySchema):
    url: Annotated[
        str,
        Field(
            description="A Stripe page to open in the user's browser.",
            examples=["https://checkout.stripe.com/c/pay/cs_test_a1B2"],
        ),
    ]


class Subscription(ReplySchema):
    """The tier and its subscription."""

    tier: Tier
    status: Annotated[
        SubscriptionStatus | None,
        Field(description="Status at Stripe; null if there never was a subscription.", examples=["active"]),
    ]
    current_period_end: Annotated[Timestamp | None, Field(description="End of the paid period.")]
    cancel_at_period_end: Annotated[
        bool, Field(description="Whether Pro ends at that time or earlier.", examples=[False])
    ]

    @classmethod
    def of(cls, tier: Tier, subscription: billing.Subscription | None) -> Subscription:
        period_end = subscription.current_period_end if subscription else None
        return cls(
            tier=tier,
            status=subscription.status if subscription else None,
            current_period_end=timestamp(period_end) if period_end else None,
            cancel_at_period_end=subscription is not None and subscription.cancel_at is not None,
        )


class SubscriptionReply(Reply):
    data: Subscription
