"""A subscription's periods: its start, its renewals, its trial, and taking it up again."""

from __future__ import annotations

from local.stripe.billing_objects import subscription, subscription_item
from local.stripe.calendar import DAY, HOUR, period_after
from local.stripe.faults import Json, invalid
from local.stripe.invoices import pay, subscription_invoice, void
from local.stripe.money import default_method
from local.stripe.subscriptions import cancel, warn_of_trial_end
from local.stripe.world import World

DRAFT_SECONDS = HOUR  # a renewal's invoice may be changed for so long before it is charged
INCOMPLETE_SECONDS = 23 * HOUR


def start(
    world: World, customer: Json, priced: list[tuple[Json, int]], *, method: Json | None, trial_end: int | None = None,
    metadata: Json | None = None, present: bool = False, pause_without_card: bool = False,
) -> Json:  # fmt: skip
    """A new subscription with its first invoice, paid if it can be; then it is active or trialing, else incomplete."""
    recurring = priced[0][0]["recurring"]
    period = (world.now, trial_end or period_after(world.now, recurring, 1))
    sub = subscription(
        world,
        currency=priced[0][0]["currency"],
        customer=customer["id"],
        default_payment_method=method["id"] if method else None,
        metadata=metadata or {},
        status="trialing" if trial_end else "incomplete",
        billing_cycle_anchor=trial_end or world.now,
        trial_start=world.now if trial_end else None,
        trial_end=trial_end,
        _periods=0 if trial_end else 1,
    )
    if pause_without_card:
        sub["trial_settings"]["end_behavior"]["missing_payment_method"] = "pause"
    for price, quantity in priced:
        subscription_item(world, sub, price, quantity, period)
    customer["currency"] = sub["currency"]
    world.emit("customer.subscription.created", sub)
    first = subscription_invoice(world, sub, "subscription_create", period, free=trial_end is not None)
    pay(world, first, method, present=present)
    if trial_end and trial_end - world.now <= 3 * DAY:
        warn_of_trial_end(world, sub)
    return sub


def renew(world: World, sub: Json) -> None:
    """The next period begins now, with a draft that is charged an hour later."""
    recurring = sub["items"]["data"][0]["price"]["recurring"]
    sub["_periods"] += 1
    began = sub["items"]["data"][0]["current_period_end"]
    period = (began, period_after(sub["billing_cycle_anchor"], recurring, sub["_periods"]))
    with world.change(sub, "customer.subscription.updated"):
        for item in sub["items"]["data"]:
            item.update(current_period_start=period[0], current_period_end=period[1], billed_until=period[1])
        if sub["status"] == "trialing":
            sub["status"] = "active"
        made = subscription_invoice(world, sub, "subscription_cycle", period)
        if sub["status"] == "unpaid":  # its invoices stay drafts
            made["auto_advance"] = False
        else:
            made["_finalize_at"] = made["automatically_finalizes_at"] = world.now + DRAFT_SECONDS
            made["next_payment_attempt"] = world.now + DRAFT_SECONDS


def end_trial(world: World, sub: Json) -> None:
    owner = world.get("customer", sub["customer"])
    has_card = sub["default_payment_method"] or default_method(world, owner)
    behaviour = sub["trial_settings"]["end_behavior"]["missing_payment_method"]
    if not has_card and behaviour == "pause":
        with world.change(sub):
            sub["status"] = "paused"
            sub["status_details"] = {"paused": {"subscription": {"type": "trial_end_without_payment_method"}}}
        world.emit("customer.subscription.paused", sub)
    elif not has_card and behaviour == "cancel":
        cancel(world, sub, None)
    else:
        renew(world, sub)


def end_trial_now(world: World, sub: Json) -> None:
    for item in sub["items"]["data"]:
        item["current_period_end"] = world.now
    sub.update(trial_end=world.now, billing_cycle_anchor=world.now)
    end_trial(world, sub)


def resume(world: World, sub: Json) -> None:
    """Raises StripeError unless it is paused."""
    if sub["status"] != "paused":
        raise invalid("Only paused subscriptions can be resumed.")
    with world.change(sub):
        sub.update(status="active", status_details=None, billing_cycle_anchor=world.now, _periods=0)
        sub["items"]["data"][0]["current_period_end"] = world.now
    world.emit("customer.subscription.resumed", sub)
    renew(world, sub)


def expire_incomplete(world: World, sub: Json) -> None:
    with world.change(sub, "customer.subscription.updated"):
        sub.update(status="incomplete_expired", ended_at=world.now)
    void(world, world.get("invoice", sub["latest_invoice"]))
