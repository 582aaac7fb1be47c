"""Invoices: drafts, payments that succeed, take time or fail, and what each means for the subscription."""

from __future__ import annotations

from local.standin import Json
from local.stripe.account import Account, listed
from local.stripe.calendar import DAY
from local.stripe.errors import invalid
from local.stripe.payments import attempt, create_intent, default_method

RETRY_DAYS = (3, 5, 7)  # after a failed renewal, each counted from the attempt before
LIVE = ("active", "trialing", "past_due", "unpaid", "incomplete")


def create_invoice(account: Account, sub: Json, reason: str, period: tuple[int, int], *, free: bool = False) -> Json:
    """A draft for one period of a subscription."""
    lines = [_line(account, item, period, free=free) for item in sub["items"]["data"]]
    total = sum(line["amount"] for line in lines)
    details = {"metadata": dict(sub["metadata"]), "subscription": sub["id"]}
    invoice = account.create(
        "invoice",
        amount_due=total,
        amount_paid=0,
        amount_remaining=total,
        attempt_count=0,
        billing_reason=reason,
        currency=sub["currency"],
        customer=sub["customer"],
        lines=listed(lines),
        next_payment_attempt=None,
        parent={"subscription_details": details, "type": "subscription_details"},
        period_end=period[1],
        period_start=period[0],
        status="draft",
        status_transitions={"finalized_at": None, "paid_at": None},
        total=total,
        _subscription=sub["id"],
    )
    with account.change(sub):
        sub["latest_invoice"] = invoice["id"]
    account.emit("invoice.created", invoice)
    return invoice


def _line(account: Account, item: Json, period: tuple[int, int], *, free: bool) -> Json:
    price, quantity = item["price"], item["quantity"]
    product = account.get("product", price["product"])["name"]
    return {
        "id": account.new_id("line_item"),
        "object": "line_item",
        "amount": 0 if free else (price["unit_amount"] or 0) * quantity,
        "currency": price["currency"],
        "description": f"Trial period for {product}" if free else f"{quantity} × {product}",
        "period": {"end": period[1], "start": period[0]},
        "quantity": quantity,
    }


def pay(account: Account, invoice: Json, method: Json | None = None, *, in_checkout: bool = False) -> None:
    """Try to pay, by default with the subscription's card. Raises StripeError for an invoice that is not open."""
    if invoice["status"] == "draft":
        _finalize(account, invoice)
    if invoice["status"] != "open":
        raise invalid("Invoice is already paid" if invoice["status"] == "paid" else f"Invoice is {invoice['status']}")
    if not invoice["total"]:
        _mark_paid(account, invoice)
        return
    method = method or _method_for(account, invoice)
    if method is None:
        status = "requires_payment_method"
    else:
        intent = account.get("payment_intent", invoice["_intent"])
        status = attempt(account, intent, method, in_checkout=in_checkout)
    invoice["attempt_count"] += 1
    after_payment(account, invoice, status)


def after_payment(account: Account, invoice: Json, status: str) -> None:
    """Apply the status of the payment intent to the invoice and its subscription."""
    sub = _subscription_of(account, invoice)
    if status == "succeeded":
        _mark_paid(account, invoice)
    elif status == "processing":
        if sub and sub["status"] == "incomplete":
            set_status(account, sub, "active")
    else:
        _plan_next_attempt(account, invoice, sub)
        account.emit("invoice.payment_failed", invoice)
        if sub and sub["status"] in ("active", "trialing", "past_due"):
            if invoice["next_payment_attempt"] is not None:
                set_status(account, sub, "past_due")
            elif account.billing.dunning_end == "canceled":
                cancel(account, sub, "payment_failed")
            else:
                set_status(account, sub, account.billing.dunning_end)


def set_aside(account: Account, invoice: Json, behavior: str) -> None:
    """What becomes of an invoice while the collection of payments is paused; as a draft it stays as it is."""
    if behavior != "keep_as_draft":
        with account.change(invoice):
            invoice["status"] = {"void": "void", "mark_uncollectible": "uncollectible"}[behavior]


def set_status(account: Account, sub: Json, status: str) -> None:
    with account.change(sub, "customer.subscription.updated"):
        sub["status"] = status


def cancel(account: Account, sub: Json, reason: str | None) -> Json:
    with account.change(sub):
        sub.update(status="canceled", ended_at=account.now, canceled_at=sub["canceled_at"] or account.now)
        sub["cancellation_details"]["reason"] = sub["cancellation_details"]["reason"] or reason
    account.emit("customer.subscription.deleted", sub)
    for invoice in account.where("invoice", _subscription=sub["id"]):
        if invoice["status"] in ("draft", "open"):
            invoice.update(next_payment_attempt=None, _finalize_at=None)
    return sub


def _finalize(account: Account, invoice: Json) -> None:
    with account.change(invoice):
        invoice.update(status="open", _finalize_at=None)
        invoice["status_transitions"]["finalized_at"] = account.now
    account.emit("invoice.finalized", invoice)
    if invoice["total"]:
        intent = create_intent(
            account, amount=invoice["amount_due"], currency=invoice["currency"], customer=invoice["customer"]
        )
        invoice["_intent"] = intent["id"]


def _mark_paid(account: Account, invoice: Json) -> None:
    with account.change(invoice):
        invoice.update(status="paid", amount_paid=invoice["total"], amount_remaining=0, next_payment_attempt=None)
        invoice["status_transitions"]["paid_at"] = account.now
    account.emit("invoice.paid", invoice)
    account.emit("invoice.payment_succeeded", invoice)
    sub = _subscription_of(account, invoice)
    owes = any(account.where("invoice", status="open", _subscription=invoice["_subscription"]))
    if sub and sub["status"] in ("incomplete", "past_due", "unpaid") and not owes:
        set_status(account, sub, "active")


def _subscription_of(account: Account, invoice: Json) -> Json | None:
    sub = account.table("subscription").get(invoice["_subscription"])
    return sub if sub and sub["status"] in LIVE else None


def _method_for(account: Account, invoice: Json) -> Json | None:
    sub = _subscription_of(account, invoice)
    if sub and sub["default_payment_method"]:
        return account.get("payment_method", sub["default_payment_method"])
    return default_method(account, account.get("customer", invoice["customer"]))


def _plan_next_attempt(account: Account, invoice: Json, sub: Json | None) -> None:
    tried = invoice["attempt_count"] - 1
    retried = sub is not None and invoice["billing_reason"] != "subscription_create" and tried < len(RETRY_DAYS)
    with account.change(invoice):
        invoice["next_payment_attempt"] = account.now + RETRY_DAYS[tried] * DAY if retried else None
