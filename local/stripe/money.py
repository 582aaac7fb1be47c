"""Test cards and what becomes of their payments: payment intents, charges, refunds and disputes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from local.stripe.checkout_objects import payment_method
from local.stripe.faults import Json, StripeError, invalid
from local.stripe.objects import charge, dispute, refund
from local.stripe.world import World

Fate = Literal["paid", "declined", "fails_later", "needs_action", "disputed", "inquired", "settles", "bounces"]


@dataclass(frozen=True)
class Card:
    name: str
    number: str
    label: str
    fate: Fate
    tokens: tuple[str, ...]  # without their pm_card_ or tok_
    brand: str = "visa"
    decline_code: str = "generic_decline"

    @property
    def kind(self) -> str:
        return "sepa_debit" if self.number[0].isalpha() else "card"


CARDS = (
    Card("visa", "4242424242424242", "Pays", "paid", ("visa", "bypassPending", "us")),
    Card("mastercard", "5555555555554444", "Pays, another brand", "paid", ("mastercard",), "mastercard"),
    Card("fails_later", "4000000000000341", "Pays now, fails at renewal", "fails_later", ("chargeCustomerFail",)),
    Card("declined", "4000000000000002", "Is declined", "declined", ("chargeDeclined", "visa_chargeDeclined")),
    Card("insufficient", "4000000000009995", "Is declined: insufficient funds", "declined",
         ("chargeDeclinedInsufficientFunds", "visa_chargeDeclinedInsufficientFunds"),
         decline_code="insufficient_funds"),
    Card("action", "4000002500003155", "Pays now, wants its owner's consent at renewal", "needs_action",
         ("authenticationRequired", "threeDSecure2Required", "threeDSecureRequired")),
    Card("disputed", "4000000000000259", "Pays and is disputed as fraud", "disputed", ("createDispute",)),
    Card("inquired", "4000000000001976", "Pays and is inquired about", "inquired", ("createDisputeInquiry",)),
    Card("bank_debit", "AT611904300234573201", "Bank debit: settles later", "settles", (), "sepa"),
    Card("bank_debit_fails", "AT861904300235473202", "Bank debit: fails later", "bounces", (), "sepa"),
)  # fmt: skip
_BOUNCING_ACCOUNTS = ("AT861904300235473202", "IT60X0542811101000000123456")


def card_named(given: str) -> Card:
    """By the stand-in's name, a number, or Stripe's own test tokens. Raises StripeError for any other."""
    token = given.removeprefix("pm_card_").removeprefix("tok_")
    number = given.replace(" ", "")
    for card in CARDS:
        if given == card.name or number == card.number or (token != given and token in card.tokens):
            return card
    if number in _BOUNCING_ACCOUNTS:
        return card_named("bank_debit_fails")
    if number[:2].isalpha() and number[2:4].isdigit():  # an IBAN
        return card_named("bank_debit")
    raise StripeError(
        400,
        "invalid_request_error",
        f"No such PaymentMethod: '{given}'",
        code="resource_missing",
        param="payment_method",
    )


def make_method(world: World, card: Card, billing: Json | None = None) -> Json:
    return payment_method(
        world, kind=card.kind, card=card.name, brand=card.brand, last4=card.number[-4:], billing=billing
    )


def method_of(world: World, given: str) -> Json:
    """An existing payment method, or a new one of a test token. Raises StripeError."""
    found = world.of("payment_method").get(given)
    return found or make_method(world, card_named(given))


def attach(world: World, method: Json, customer: Json) -> None:
    if method["customer"] == customer["id"]:
        return
    if method["customer"]:
        raise invalid("The payment method you provided has already been attached to a customer.")
    method["customer"] = customer["id"]
    world.emit("payment_method.attached", method)


def set_default_method(world: World, customer: Json, method: Json) -> None:
    attach(world, method, customer)
    with world.change(customer, "customer.updated"):
        customer["invoice_settings"]["default_payment_method"] = method["id"]


def default_method(world: World, customer: Json) -> Json | None:
    given = customer["invoice_settings"]["default_payment_method"] or customer["default_source"]
    return world.of("payment_method").get(given) if given else None


# --- paying


def attempt(world: World, intent: Json, method: Json, *, present: bool = False) -> str:
    """The status after trying. `present`: the customer sits at a Checkout, so that what asks for consent gets it."""
    fate = card_named(method["_card"]).fate
    if world.billing.decline_next > 0:
        world.billing.decline_next -= 1
        fate = "declined"
    if fate in ("fails_later", "needs_action") and present:
        fate = "paid"
    intent["payment_method"] = method["id"]
    intent["_disputed"] = fate if fate in ("disputed", "inquired") else None
    if fate in ("declined", "fails_later"):
        _fail(world, intent, method)
    elif fate == "needs_action":
        with world.change(intent, "payment_intent.requires_action"):
            intent["status"] = "requires_action"
            intent["next_action"] = {"type": "use_stripe_sdk", "use_stripe_sdk": {}}
    elif fate in ("settles", "bounces"):
        intent["_bounces"] = fate == "bounces"
        seconds = world.billing.settle_seconds
        intent["_settle_at"] = None if seconds is None else world.now + int(seconds)
        made = _charge(world, intent, method, status="pending")
        world.emit("charge.pending", made)
        with world.change(intent, "payment_intent.processing"):
            intent.update(status="processing", latest_charge=made["id"], next_action=None)
    else:
        _succeed(world, intent, _charge(world, intent, method, status="succeeded"))
    status: str = intent["status"]
    return status


def settle(world: World, intent: Json, *, succeed: bool) -> None:
    """The bank's word on a payment under way. Raises StripeError if there is none."""
    if intent["status"] != "processing":
        raise invalid(f"The payment is {intent['status']}, not processing.")
    intent["_settle_at"] = None
    made = world.get("charge", intent["latest_charge"])
    method = world.get("payment_method", intent["payment_method"])
    if succeed:
        _succeed(world, intent, made)
    else:
        _fail(world, intent, method, made)


def _charge(world: World, intent: Json, method: Json, *, status: str, **fields: object) -> Json:
    kind = method["type"]
    details = {name: method[kind][name] for name in ("brand", "exp_month", "exp_year", "last4") if name in method[kind]}
    return charge(
        world,
        amount=intent["amount"],
        currency=intent["currency"],
        customer=intent["customer"],
        description=intent["description"],
        metadata=dict(intent["metadata"]),
        payment_intent=intent["id"],
        payment_method=method["id"],
        payment_method_details={kind: details, "type": kind},
        billing_details=dict(method["billing_details"]),
        status=status,
        **fields,
    )


def _succeed(world: World, intent: Json, made: Json) -> None:
    made.update(status="succeeded", paid=True, captured=True, amount_captured=made["amount"])
    made["outcome"] = _outcome("approved_by_network", "Payment complete.", "authorized")
    if intent["capture_method"] == "manual":
        made.update(captured=False, amount_captured=0)
    world.emit("charge.succeeded", made)
    if intent["capture_method"] == "manual":
        with world.change(intent, "payment_intent.amount_capturable_updated"):
            intent.update(status="requires_capture", latest_charge=made["id"], amount_capturable=made["amount"])
        return
    with world.change(intent):
        intent.update(status="succeeded", latest_charge=made["id"], amount_received=intent["amount"])
        intent.update(next_action=None, last_payment_error=None)
    world.emit("payment_intent.succeeded", intent)
    if intent.get("_disputed"):
        open_dispute(world, made, inquiry=intent["_disputed"] == "inquired")


def _fail(world: World, intent: Json, method: Json, made: Json | None = None) -> None:
    code = card_named(method["_card"]).decline_code
    message = "Your card has insufficient funds." if code == "insufficient_funds" else "Your card was declined."
    failure = {"failure_code": "card_declined", "failure_message": message, "status": "failed", "paid": False}
    made = made or _charge(world, intent, method, status="failed")
    made.update(
        failure, outcome=_outcome("declined_by_network", "The bank declined the payment.", "issuer_declined", code)
    )
    world.emit("charge.failed", made)
    error: Json = {"charge": made["id"], "code": "card_declined", "decline_code": code, "message": message}
    error |= {"doc_url": "https://docs.stripe.com/error-codes/card-declined", "type": "card_error"}
    with world.change(intent):
        intent.update(status="requires_payment_method", latest_charge=made["id"], payment_method=None)
        intent["last_payment_error"] = error | {"payment_method": world.shown(method)}
    world.emit("payment_intent.payment_failed", intent)


def _outcome(network: str, message: str, kind: str, reason: str | None = None) -> Json:
    outcome: Json = {"advice_code": None, "network_advice_code": None, "network_decline_code": None}
    outcome |= {"network_status": network, "reason": reason, "risk_level": "normal", "risk_score": 7}
    return outcome | {"seller_message": message, "type": kind}


def card_error(world: World, intent: Json) -> StripeError:
    """What a call answers whose payment was declined, or wants its owner's consent."""
    error = intent["last_payment_error"] or {
        "type": "card_error",
        "code": "authentication_required",
        "decline_code": "authentication_required",
        "message": "Your card was declined. This transaction requires authentication.",
    }
    more = {name: value for name, value in error.items() if name not in ("type", "message")}
    return StripeError(402, error["type"], error["message"], **more, payment_intent=world.shown(intent))


# --- giving back


def make_refund(world: World, made: Json, amount: int | None, **fields: object) -> Json:
    """Raises StripeError when the charge is not there to be given back."""
    if not made["captured"]:
        raise invalid(f"Charge {made['id']} has not been captured.", "charge")
    left = made["amount"] - made["amount_refunded"]
    if left == 0:
        raise invalid(f"Charge {made['id']} has already been refunded.", None, "charge_already_refunded")
    if made["disputed"] and not fields.pop("although_disputed", False):
        raise invalid(f"Charge {made['id']} has been charged back; cannot issue a refund.", None, "charge_disputed")
    amount = left if amount is None else amount
    if not 0 < amount <= left:
        raise invalid(f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})", "amount")
    given = refund(
        world,
        amount=amount,
        charge=made["id"],
        currency=made["currency"],
        customer=made["customer"],
        payment_intent=made["payment_intent"],
        payment_method=made["payment_method"],
        **fields,
    )
    with world.change(made, "charge.refunded"):
        made["amount_refunded"] += amount
        made["refunded"] = made["amount_refunded"] == made["amount"]
    world.emit("refund.created", given)
    world.emit("refund.updated", given)
    world.emit("charge.refund.updated", given)
    return given


def open_dispute(world: World, made: Json, *, reason: str = "fraudulent", inquiry: bool = False) -> Json:
    details = {"brand": "visa", "case_type": "inquiry" if inquiry else "chargeback", "network_reason_code": "10.4"}
    made["disputed"] = True
    given = dispute(
        world,
        amount=made["amount"],
        charge=made["id"],
        currency=made["currency"],
        is_charge_refundable=inquiry,
        payment_intent=made["payment_intent"],
        payment_method_details={"card": details | {"network": "visa"}, "type": "card"},
        reason=reason,
        status="warning_needs_response" if inquiry else "needs_response",
    )
    world.emit("charge.dispute.created", given)
    if not inquiry:
        world.emit("charge.dispute.funds_withdrawn", given)
    return given


def close_dispute(world: World, given: Json, *, won: bool) -> Json:
    """Raises StripeError when it is closed already."""
    if given["status"] in ("won", "lost", "warning_closed"):
        raise invalid("This dispute is already closed.", None, "dispute_already_closed")
    inquiry = given["status"].startswith("warning_")
    with world.change(given, "charge.dispute.closed"):
        given["status"] = "warning_closed" if inquiry else "won" if won else "lost"
        given["is_charge_refundable"] = inquiry
    if won and not inquiry:
        world.emit("charge.dispute.funds_reinstated", given)
    return given
