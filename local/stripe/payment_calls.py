"""Stripe's REST calls about cards, payments, refunds and disputes."""

from __future__ import annotations

from local.stripe import objects as objects
from local.stripe.calls import call, get_by_id
from local.stripe.faults import Json, invalid
from local.stripe.forms import flag, inner, metadata, needed, number, text
from local.stripe.money import (
    attach,
    attempt,
    card_error,
    card_named,
    close_dispute,
    make_method,
    make_refund,
    method_of,
    set_default_method,
)
from local.stripe.world import World

for _kind, _path in (
    ("charge", "/charges"),
    ("dispute", "/disputes"),
    ("payment_intent", "/payment_intents"),
    ("payment_method", "/payment_methods"),
    ("refund", "/refunds"),
):
    get_by_id(_kind, _path)

# --- cards


@call("POST", "/payment_methods")
def create_payment_method(world: World, params: Json) -> Json:
    kind = needed(params, "type")
    details = inner(params, kind)
    given = text(details, "token") or text(details, "number") or text(details, "iban") or "visa"
    return make_method(world, card_named(given), inner(params, "billing_details"))


@call("GET", "/payment_methods")
def list_payment_methods(world: World, params: Json) -> Json:
    return world.page("payment_method", "/v1/payment_methods", params, "customer", "type")


@call("POST", "/payment_methods/:id/attach")
def attach_payment_method(world: World, params: Json, given: str) -> Json:
    method = method_of(world, given)
    attach(world, method, world.get("customer", needed(params, "customer"), "customer"))
    return method


@call("POST", "/payment_methods/:id/detach")
def detach_payment_method(world: World, params: Json, given: str) -> Json:
    method = world.get("payment_method", given)
    with world.change(method, "payment_method.detached"):
        method["customer"] = None
    return method


@call("POST", "/customers/:id/sources")
def create_source(world: World, params: Json, given: str) -> Json:
    method = method_of(world, needed(params, "source"))
    set_default_method(world, world.get("customer", given), method)
    return method


# --- payments


@call("POST", "/payment_intents")
def create_payment_intent(world: World, params: Json) -> Json:
    owner = text(params, "customer")
    made = objects.payment_intent(
        world,
        amount=number(params, "amount") or 0,
        capture_method=text(params, "capture_method") or "automatic_async",
        currency=needed(params, "currency"),
        customer=world.get("customer", owner, "customer")["id"] if owner else None,
        description=text(params, "description"),
        metadata=metadata(params),
    )
    world.emit("payment_intent.created", made)
    if given := text(params, "payment_method"):
        made.update(payment_method=method_of(world, given)["id"], status="requires_confirmation")
    return confirm(world, made) if flag(params, "confirm") else made


@call("GET", "/payment_intents")
def list_payment_intents(world: World, params: Json) -> Json:
    return world.page("payment_intent", "/v1/payment_intents", params, "customer")


@call("POST", "/payment_intents/:id/confirm")
def confirm_payment_intent(world: World, params: Json, given: str) -> Json:
    found = world.get("payment_intent", given)
    if method := text(params, "payment_method"):
        found["payment_method"] = method_of(world, method)["id"]
    return confirm(world, found)


@call("POST", "/payment_intents/:id/capture")
def capture_payment_intent(world: World, params: Json, given: str) -> Json:
    found = world.get("payment_intent", given)
    if found["status"] != "requires_capture":
        raise invalid("This PaymentIntent could not be captured.", None, "payment_intent_unexpected_state")
    with world.change(made := world.get("charge", found["latest_charge"]), "charge.captured"):
        made.update(captured=True, amount_captured=made["amount"])
    with world.change(found, "payment_intent.succeeded"):
        found.update(status="succeeded", amount_received=found["amount"], amount_capturable=0)
    return found


@call("POST", "/payment_intents/:id/cancel")
def cancel_payment_intent(world: World, params: Json, given: str) -> Json:
    found = world.get("payment_intent", given)
    with world.change(found, "payment_intent.canceled"):
        found.update(status="canceled", canceled_at=world.now, cancellation_reason=text(params, "cancellation_reason"))
    return found


def confirm(world: World, intent: Json) -> Json:
    """Raises StripeError when the card is declined."""
    if not intent["payment_method"]:
        raise invalid("You cannot confirm this PaymentIntent because it's missing a payment method.")
    attempt(world, intent, world.get("payment_method", intent["payment_method"]))
    if intent["status"] == "requires_payment_method":
        raise card_error(world, intent)
    return intent


@call("GET", "/charges")
def list_charges(world: World, params: Json) -> Json:
    return world.page("charge", "/v1/charges", params, "customer", "payment_intent")


# --- disputes and refunds


@call("POST", "/disputes/:id")
def update_dispute(world: World, params: Json, given: str) -> Json:
    found = world.get("dispute", given)
    with world.change(found, "charge.dispute.updated"):
        found["metadata"] = metadata(params, found["metadata"])
        found["evidence"] |= inner(params, "evidence")
        found["evidence_details"]["has_evidence"] = bool(found["evidence"])
    return found


@call("POST", "/disputes/:id/close")
def close(world: World, params: Json, given: str) -> Json:
    return close_dispute(world, world.get("dispute", given), won=False)


@call("POST", "/refunds/:id")
def update_refund(world: World, params: Json, given: str) -> Json:
    found = world.get("refund", given)
    with world.change(found, "refund.updated", "charge.refund.updated"):
        found["metadata"] = metadata(params, found["metadata"])
    return found


@call("POST", "/refunds")
def create_refund(world: World, params: Json) -> Json:
    given = text(params, "charge")
    if given is None:
        intent = world.get("payment_intent", needed(params, "payment_intent"), "payment_intent")
        if (given := intent["latest_charge"]) is None:
            raise invalid(f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.")
    made = world.get("charge", given, "charge")
    reason, about = text(params, "reason"), metadata(params)
    return make_refund(world, made, number(params, "amount"), reason=reason, metadata=about)


@call("GET", "/disputes")
def list_disputes(world: World, params: Json) -> Json:
    return world.page("dispute", "/v1/disputes", params, "charge", "payment_intent")


@call("GET", "/refunds")
def list_refunds(world: World, params: Json) -> Json:
    return world.page("refund", "/v1/refunds", params, "charge", "payment_intent")
