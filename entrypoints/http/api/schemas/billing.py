"""What /subscribe and /subscription give, and the allowance that a tier has."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from domain import billing
from domain.billing import Allowance, SubscriptionStatus, Tier
from entrypoints.http.api.schemas.common import Count, Reply, Schema, Timestamp, count

Total = Annotated[Count, Field(description="Messages a day; unlimited on Pro.")]
ResetsAt = Annotated[Timestamp, Field(description="When the allowance returns.")]


class DailyLimit(Schema):
    """The day's allowance after this message."""

    used: Annotated[int, Field(description="Messages sent today.", examples=[3])]
    total: Total
    resets_at: ResetsAt


class DailyUsage(Schema):
    """What is used of today's allowance. The day is that of UTC."""

    used: Annotated[int, Field(description="Messages sent today.", examples=[2])]
    total: Total
    remaining: Annotated[Count, Field(description="Messages left today.", examples=[3])]
    resets_at: ResetsAt
    input_tokens: Annotated[int, Field(description="Tokens the model has read for it today.", examples=[210])]
    output_tokens: Annotated[int, Field(description="Tokens the model has written.", examples=[840])]

    @classmethod
    def of(cls, allowance: Allowance) -> DailyUsage:
        return cls(
            used=allowance.used,
            total=count(allowance.total),
            remaining=count(allowance.remaining),
            resets_at=allowance.resets_at,
            input_tokens=allowance.input_tokens,
            output_tokens=allowance.output_tokens,
        )


class UrlReply(Schema):
    url: Annotated[
        str,
        Field(
            description="A page of Stripe's: open it in the user's browser.",
            examples=["https://checkout.stripe.com/c/pay/cs_test_a1B2"],
        ),
    ]


class Subscription(Schema):
    """The tier, and the subscription behind it."""

    tier: Tier
    status: Annotated[
        SubscriptionStatus | None,
        Field(description="Stripe's word; null if there never was a subscription.", examples=["active"]),
    ]
    current_period_end: Annotated[Timestamp | None, Field(description="Up to when it is paid for.")]
    cancel_at_period_end: Annotated[
        bool, Field(description="Pro ends by itself, at that time or earlier.", examples=[False])
    ]

    @classmethod
    def of(cls, tier: Tier, subscription: billing.Subscription | None) -> Subscription:
        return cls(
            tier=tier,
            status=subscription.status if subscription else None,
            current_period_end=subscription.current_period_end if subscription else None,
            cancel_at_period_end=subscription is not None and subscription.cancel_at is not None,
        )


class SubscriptionReply(Reply):
    data: Subscription
