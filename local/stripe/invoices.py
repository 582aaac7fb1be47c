"""Invoices: drafts, payments that succeed, take their time or fail, and what each means for the subscription."""

from __future__ import annotations

from local.stripe.billing_objects import invoice, invoice_line
from local.stripe.calendar import DAY
from local.stripe.faults import Json, invalid
from local.stripe.money import attempt, default_method, method_of
from local.stripe.objects import payment_intent
from local.stripe.subscriptions import become, cancel, subscription_of
from local.stripe.world import World

RETRY_DAYS = (3, 5, 7)  # after a failed renewal, each counted from the attempt before


def subscription_invoice(world: World, sub: Json, reason: str, period: tuple[int, int], *, free: bool = False) -> Json:
    """A draft for one period."""
    made = invoice(
        world,
        world.get("customer", sub["customer"]),
        billing_reason=reason,
        currency=sub["currency"],
        period_start=period[0],
        period_end=period[1],
        parent={
            "quote_details": None,
            "subscription_details": {"metadata": dict(sub["metadata"]), "subscription": sub["id"]},
            "type": "subscription_details",
        },
        _subscription=sub["id"],
    )
    for item in sub["items"]["data"]:
        price, quantity = item["price"], item["quantity"]
        product = world.get("product", price["product"])["name"]
        amount = 0 if free else (price["unit_amount"] or 0) * quantity
        text = (
            f"Trial period for {product}" if free else f"{quantity} × {product} (at ${price['unit_amount'] / 100:.2f})"
        )
        invoice_line(
            world, made, amount=amount, description=text, period=period, quantity=quantity, price=price, item=item
        )
    with world.change(sub):
        sub["latest_invoice"] = made["id"]
    world.emit("invoice.created", made)
    return made


def finalize(world: World, made: Json) -> Json:
    """Raises StripeError unless it is a draft."""
    if made["status"] != "draft":
        raise invalid("This invoice is already finalized, you can't re-finalize a non-draft invoice.")
    owner = world.get("customer", made["customer"])
    with world.change(made):
        made.update(status="open", number=f"{owner['invoice_prefix']}-{owner['next_invoice_sequence']:04}")
        made.update(effective_at=world.now, _finalize_at=None, _path=f"/i/{made['id']}")
        made["status_transitions"]["finalized_at"] = world.now
    owner["next_invoice_sequence"] += 1
    world.emit("invoice.finalized", made)
    if made["total"]:
        intent = payment_intent(
            world,
            amount=made["amount_due"],
            currency=made["currency"],
            customer=made["customer"],
            description="Subscription creation" if made["billing_reason"] == "subscription_create" else "Invoice",
            setup_future_usage="off_session" if made["billing_reason"] == "subscription_create" else None,
        )
        made["_intent"] = intent["id"]
        _paid_with(world, made, intent)
        world.emit("payment_intent.created", intent)
    return made


def pay(world: World, made: Json, method: Json | None = None, *, present: bool = False) -> str:
    """Tries to. Returns paid, processing, or else what the payment intent is; without a card it only counts."""
    if made["status"] == "draft":
        finalize(world, made)
    if made["status"] != "open":
        raise invalid("Invoice is already paid" if made["status"] == "paid" else f"Invoice is {made['status']}")
    if not made["total"]:
        _mark_paid(world, made)
        return "paid"
    sub = subscription_of(world, made)
    method = method or _method_for(world, made, sub)
    if method is None:
        status = "requires_payment_method"
    else:
        status = attempt(world, world.get("payment_intent", made["_intent"]), method, present=present)
    with world.change(made):
        made.update(attempted=True, attempt_count=made["attempt_count"] + 1)
    after_payment(world, made, status)
    return "paid" if status == "succeeded" else status


def after_payment(world: World, made: Json, status: str) -> None:
    """What a payment's outcome means for its invoice and subscription."""
    sub = subscription_of(world, made)
    if status == "succeeded":
        _mark_paid(world, made)
    elif status == "processing":
        if sub and sub["status"] == "incomplete":
            become(world, sub, "active")
    else:
        if status == "requires_action":
            world.emit("invoice.payment_action_required", made)
        _plan_next_attempt(world, made, sub)
        world.emit("invoice.payment_failed", made)
        if sub and sub["status"] in ("active", "trialing", "past_due"):
            if made["next_payment_attempt"] is None:
                _end_dunning(world, sub)
            else:
                become(world, sub, "past_due")


def void(world: World, made: Json) -> Json:
    with world.change(made):
        made.update(status="void", next_payment_attempt=None, amount_remaining=0)
        made["status_transitions"]["voided_at"] = world.now
    world.emit("invoice.voided", made)
    return made


def _mark_paid(world: World, made: Json) -> None:
    with world.change(made):
        made.update(status="paid", amount_paid=made["total"], amount_remaining=0, attempted=True)
        made.update(next_payment_attempt=None, auto_advance=False)
        made["status_transitions"]["paid_at"] = world.now
    for payment in world.where("invoice_payment", invoice=made["id"]):
        payment.update(status="paid", amount_paid=made["total"])
        payment["status_transitions"]["paid_at"] = world.now
        world.emit("invoice_payment.paid", payment)
    world.emit("invoice.paid", made)
    world.emit("invoice.payment_succeeded", made)
    sub = subscription_of(world, made)
    if sub and sub["status"] in ("incomplete", "past_due", "unpaid") and not _owes(world, sub):
        become(world, sub, "active")


def _owes(world: World, sub: Json) -> bool:
    return any(
        other["_subscription"] == sub["id"]
        for other in world.where("invoice", status="open")
        if "_subscription" in other
    )


def _method_for(world: World, made: Json, sub: Json | None) -> Json | None:
    if sub and sub["default_payment_method"]:
        return method_of(world, sub["default_payment_method"])
    return default_method(world, world.get("customer", made["customer"]))


def _paid_with(world: World, made: Json, intent: Json) -> None:
    world.add(
        {
            "id": world.new_id("invoice_payment"),
            "object": "invoice_payment",
            "amount_paid": None,
            "amount_requested": made["amount_due"],
            "created": world.now,
            "currency": made["currency"],
            "invoice": made["id"],
            "is_default": True,
            "livemode": made["livemode"],
            "payment": {"payment_intent": intent["id"], "type": "payment_intent"},
            "status": "open",
            "status_transitions": {"canceled_at": None, "paid_at": None},
        }
    )


def _plan_next_attempt(world: World, made: Json, sub: Json | None) -> None:
    tried = made["attempt_count"] - 1
    retried = sub is not None and made["billing_reason"] != "subscription_create" and tried < len(RETRY_DAYS)
    with world.change(made):
        made["next_payment_attempt"] = world.now + RETRY_DAYS[tried] * DAY if retried else None


def _end_dunning(world: World, sub: Json) -> None:
    if world.billing.dunning_end == "canceled":
        cancel(world, sub, "payment_failed")
    else:
        become(world, sub, world.billing.dunning_end)
