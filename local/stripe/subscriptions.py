"""Steps of a subscription that cost nothing: becoming, warning, cancelling."""

from __future__ import annotations

from local.stripe.faults import Json
from local.stripe.world import World

LIVE = ("active", "trialing", "past_due", "unpaid", "incomplete", "paused")


def subscription_of(world: World, made: Json) -> Json | None:
    found = world.of("subscription").get(made.get("_subscription") or "")
    return found if found and found["status"] in LIVE else None


def become(world: World, sub: Json, status: str) -> None:
    with world.change(sub, "customer.subscription.updated"):
        sub["status"] = status


def warn_of_trial_end(world: World, sub: Json) -> None:
    sub["_warned"] = True
    world.emit("customer.subscription.trial_will_end", sub)


def plan_cancellation(world: World, sub: Json, *, at_period_end: bool, flagged: bool = True) -> None:
    """`flagged` is false for a portal in the flexible billing mode: only `cancel_at` then tells of it."""
    with world.change(sub, "customer.subscription.updated"):
        end = max(item["current_period_end"] for item in sub["items"]["data"])
        sub["cancel_at_period_end"] = at_period_end and flagged
        sub["cancel_at"] = end if at_period_end else None
        sub["canceled_at"] = world.now if at_period_end else None
        sub["cancellation_details"]["reason"] = "cancellation_requested" if at_period_end else None


def cancel(world: World, sub: Json, reason: str | None) -> Json:
    with world.change(sub):
        sub.update(status="canceled", ended_at=world.now, canceled_at=sub["canceled_at"] or world.now)
        if reason and not sub["cancellation_details"]["reason"]:
            sub["cancellation_details"]["reason"] = reason
    world.emit("customer.subscription.deleted", sub)
    for made in world.where("invoice"):
        if made.get("_subscription") == sub["id"] and made["status"] in ("draft", "open"):
            made.update(auto_advance=False, next_payment_attempt=None, _finalize_at=None)
    return sub
