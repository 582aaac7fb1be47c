"""Subscriptions: their start, their renewals, and cancelling at the end of the period."""

from __future__ import annotations

from local.standin import Json
from local.stripe.account import Account, listed
from local.stripe.calendar import HOUR, months_after
from local.stripe.invoices import create_invoice, pay, set_aside

DRAFT_SECONDS = HOUR  # how long a renewal's invoice stays a draft before it is charged


def start(
    account: Account, customer: Json, priced: list[tuple[Json, int]], method: Json, *, trial_end: int | None,
    metadata: Json,
) -> Json:  # fmt: skip
    """A subscription bought in a Checkout: trialing, or active once its first invoice is paid or its debit begun."""
    period = (account.now, trial_end or months_after(account.now, 1))
    customer["currency"] = priced[0][0]["currency"]  # of all that it ever pays by subscription
    sub = account.create(
        "subscription",
        billing_cycle_anchor=trial_end or account.now,
        cancel_at=None,
        cancel_at_period_end=False,
        canceled_at=None,
        cancellation_details={"reason": None},
        currency=priced[0][0]["currency"],
        customer=customer["id"],
        default_payment_method=method["id"],
        ended_at=None,
        items=listed([]),
        latest_invoice=None,
        metadata=metadata,
        pause_collection=None,
        start_date=account.now,
        status="trialing" if trial_end else "incomplete",
        trial_end=trial_end,
        _periods=0 if trial_end else 1,
    )
    sub["items"] = listed([_item(account, sub, price, quantity, period) for price, quantity in priced])
    account.emit("customer.subscription.created", sub)
    invoice = create_invoice(account, sub, "subscription_create", period, free=trial_end is not None)
    pay(account, invoice, method, in_checkout=True)
    return sub


def _item(account: Account, sub: Json, price: Json, quantity: int, period: tuple[int, int]) -> Json:
    return {
        "id": account.new_id("subscription_item"),
        "object": "subscription_item",
        "created": account.now,
        "current_period_end": period[1],
        "current_period_start": period[0],
        "metadata": {},
        "price": account.shown(price),
        "quantity": quantity,
        "subscription": sub["id"],
    }


def renew(account: Account, sub: Json) -> None:
    """Begin the next period, with a draft that is charged an hour later. A trial ends in the same way."""
    sub["_periods"] += 1
    items = sub["items"]["data"]
    # Counted from the anchor: after a short month the day of the month is the anchor's again.
    period = (items[0]["current_period_end"], months_after(sub["billing_cycle_anchor"], sub["_periods"]))
    with account.change(sub, "customer.subscription.updated"):
        for item in items:
            item.update(current_period_start=period[0], current_period_end=period[1])
        if sub["status"] == "trialing":
            sub["status"] = "active"
        invoice = create_invoice(account, sub, "subscription_cycle", period)
        if pause := sub.get("pause_collection"):
            set_aside(account, invoice, pause["behavior"])
        elif sub["status"] != "unpaid":  # its invoices stay drafts
            invoice["_finalize_at"] = invoice["next_payment_attempt"] = account.now + DRAFT_SECONDS


def plan_cancellation(account: Account, sub: Json, *, at_period_end: bool, flagged: bool = True) -> None:
    """Without `flagged` only `cancel_at` is set, as the portal does in the flexible billing mode."""
    with account.change(sub, "customer.subscription.updated"):
        end = max(item["current_period_end"] for item in sub["items"]["data"])
        sub["cancel_at_period_end"] = at_period_end and flagged
        sub["cancel_at"] = end if at_period_end else None
        sub["canceled_at"] = account.now if at_period_end else None
        sub["cancellation_details"]["reason"] = "cancellation_requested" if at_period_end else None
