"""Test cards and what happens to their payments: payment intents, charges, refunds and disputes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from local.standin import Json
from local.stripe.account import Account
from local.stripe.errors import StripeError, invalid, missing

Outcome = Literal["paid", "declined", "fails_later", "settles", "bounces"]


@dataclass(frozen=True)
class Card:
    name: str
    number: str
    label: str
    outcome: Outcome
    decline_code: str = "generic_decline"

    @property
    def kind(self) -> str:
        return "sepa_debit" if self.number[0].isalpha() else "card"


CARDS = {
    card.name: card
    for card in (
        Card("visa", "4242424242424242", "Pays", "paid"),
        Card("fails_later", "4000000000000341", "Pays now, fails at renewal", "fails_later"),
        Card("declined", "4000000000000002", "Is declined", "declined"),
        Card("insufficient", "4000000000009995", "Is declined: insufficient funds", "declined", "insufficient_funds"),
        Card("bank_debit", "AT611904300234573201", "Bank debit: settles later", "settles"),
        Card("bank_debit_fails", "AT861904300235473202", "Bank debit: fails later", "bounces"),
    )
}


def card_named(name: str) -> Card:
    """Raises StripeError for an unknown name."""
    if name not in CARDS:
        raise missing("PaymentMethod", name, "payment_method")
    return CARDS[name]


def _card_of(method: Json) -> Card:
    """An account saved by an earlier version may have other cards, all of which pay."""
    return CARDS.get(method["_card"], CARDS["visa"])


def create_method(account: Account, card: Card, *, email: str | None = None, name: str | None = None) -> Json:
    details = {"last4": card.number[-4:]}
    if card.kind == "card":
        details["brand"] = "visa"
    return account.create(
        "payment_method",
        customer=None,
        billing_details={"email": email, "name": name},
        type=card.kind,
        _card=card.name,
        **{card.kind: details},
    )


def set_default_method(account: Account, customer: Json, method: Json) -> None:
    if method["customer"] is None:
        method["customer"] = customer["id"]
        account.emit("payment_method.attached", method)
    with account.change(customer, "customer.updated"):
        customer["invoice_settings"]["default_payment_method"] = method["id"]


def default_method(account: Account, customer: Json) -> Json | None:
    return account.table("payment_method").get(customer["invoice_settings"]["default_payment_method"] or "")


# --- paying


def create_intent(account: Account, *, amount: int, currency: str, customer: str | None, **fields: object) -> Json:
    intent = account.create(
        "payment_intent",
        amount=amount,
        amount_received=0,
        currency=currency,
        customer=customer,
        last_payment_error=None,
        latest_charge=None,
        payment_method=None,
        status="requires_payment_method",
        **fields,
    )
    account.emit("payment_intent.created", intent)
    return intent


def attempt(account: Account, intent: Json, method: Json, *, in_checkout: bool = False) -> str:
    """Try to pay; returns the status of the intent. `fails_later` pays in a Checkout and fails anywhere else."""
    outcome = _card_of(method).outcome
    intent["payment_method"] = method["id"]
    if outcome == "declined" or (outcome == "fails_later" and not in_checkout):
        _fail(account, intent, method, _charge(account, intent, method, "failed"))
    elif outcome in ("settles", "bounces"):
        intent["_bounces"] = outcome == "bounces"
        seconds = account.billing.settle_seconds
        intent["_settle_at"] = None if seconds is None else account.now + int(seconds)
        charge = _charge(account, intent, method, "pending")
        account.emit("charge.pending", charge)
        with account.change(intent, "payment_intent.processing"):
            intent.update(status="processing", latest_charge=charge["id"])
    else:
        _succeed(account, intent, _charge(account, intent, method, "pending"))
    status: str = intent["status"]
    return status


def settle(account: Account, intent: Json, *, succeed: bool) -> None:
    """End a bank debit. Raises StripeError if the payment is not processing."""
    if intent["status"] != "processing":
        raise invalid(f"The payment is {intent['status']}, not processing.")
    intent["_settle_at"] = None
    charge = account.get("charge", intent["latest_charge"])
    if succeed:
        _succeed(account, intent, charge)
    else:
        _fail(account, intent, account.get("payment_method", intent["payment_method"]), charge)


def _charge(account: Account, intent: Json, method: Json, status: str) -> Json:
    return account.create(
        "charge",
        amount=intent["amount"],
        amount_captured=0,
        amount_refunded=0,
        captured=False,
        currency=intent["currency"],
        customer=intent["customer"],
        disputed=False,
        paid=False,
        payment_intent=intent["id"],
        payment_method=method["id"],
        refunded=False,
        status=status,
    )


def _succeed(account: Account, intent: Json, charge: Json) -> None:
    charge.update(status="succeeded", paid=True, captured=True, amount_captured=charge["amount"])
    account.emit("charge.succeeded", charge)
    with account.change(intent):
        intent.update(status="succeeded", latest_charge=charge["id"], amount_received=intent["amount"])
        intent["last_payment_error"] = None
    account.emit("payment_intent.succeeded", intent)


def _fail(account: Account, intent: Json, method: Json, charge: Json) -> None:
    code = _card_of(method).decline_code
    message = "Your card has insufficient funds." if code == "insufficient_funds" else "Your card was declined."
    charge.update(failure_code="card_declined", failure_message=message, status="failed")
    account.emit("charge.failed", charge)
    error = {"charge": charge["id"], "code": "card_declined", "decline_code": code, "message": message}
    with account.change(intent):
        intent.update(status="requires_payment_method", latest_charge=charge["id"], payment_method=None)
        intent["last_payment_error"] = error | {"type": "card_error"}
    account.emit("payment_intent.payment_failed", intent)


def declined(account: Account, intent: Json) -> StripeError:
    """The reply to a call whose payment was declined."""
    error = intent["last_payment_error"]
    more = {name: error[name] for name in ("charge", "code", "decline_code")}
    return StripeError(402, error["type"], error["message"], **more, payment_intent=account.shown(intent))


# --- refunds and disputes


def refund(account: Account, charge: Json, amount: int | None) -> Json:
    """All that is left without an `amount`. Raises StripeError for a charge that cannot be refunded."""
    left = charge["amount"] - charge["amount_refunded"]
    if not charge["captured"]:
        raise invalid(f"Charge {charge['id']} has not been captured.", "charge")
    if left == 0:
        raise invalid(f"Charge {charge['id']} has already been refunded.", None, "charge_already_refunded")
    if charge["disputed"]:
        raise invalid(f"Charge {charge['id']} has been charged back; cannot issue a refund.", None, "charge_disputed")
    amount = left if amount is None else amount
    if not 0 < amount <= left:
        raise invalid(f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})", "amount")
    made = account.create(
        "refund",
        amount=amount,
        charge=charge["id"],
        currency=charge["currency"],
        payment_intent=charge["payment_intent"],
        status="succeeded",
    )
    with account.change(charge, "charge.refunded"):
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    account.emit("refund.created", made)
    return made


def open_dispute(account: Account, charge: Json) -> Json:
    charge["disputed"] = True
    dispute = account.create(
        "dispute",
        amount=charge["amount"],
        charge=charge["id"],
        currency=charge["currency"],
        payment_intent=charge["payment_intent"],
        reason="fraudulent",
        status="needs_response",
    )
    account.emit("charge.dispute.created", dispute)
    account.emit("charge.dispute.funds_withdrawn", dispute)
    return dispute


def close_dispute(account: Account, dispute: Json, *, won: bool) -> Json:
    """Raises StripeError if it is closed already."""
    if dispute["status"] in ("won", "lost"):
        raise invalid("This dispute is already closed.", None, "dispute_already_closed")
    with account.change(dispute, "charge.dispute.closed"):
        dispute["status"] = "won" if won else "lost"
    if won:
        account.emit("charge.dispute.funds_reinstated", dispute)
    return dispute
