"""Stripe's webhook events: their signature, and what is read from them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime

import stripe

from adapters.stripe.objects import printable, user_named_in
from application.ports.billing import PaymentEvent
from domain.errors import WebhookInvalid

SIGNED_SECONDS = 300
_SIGNED_AT = re.compile(r"(?:^|,)t=([^,]*)")
_SECONDS = re.compile(r"[0-9]{1,12}")
_EVENTS = {
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "checkout.session.expired",
    "customer.deleted",
    "invoice.paid",
    "invoice.payment_failed",
    "charge.refunded",
    "charge.dispute.created",
    "charge.dispute.closed",
}
#: Of an event destination that is set to send thin events. They name an object of another kind than we read.
_THIN_EVENT = "v2.core.event"
_SUBSCRIPTION_EVENTS = "customer.subscription."


def check_signature(body: bytes, signature: str, *, secrets: Sequence[str], now: datetime) -> None:
    """Raises WebhookInvalid unless Stripe signed these bytes within SIGNED_SECONDS of now."""
    if not any(_is_signed(body, signature, secret) for secret in secrets):
        raise WebhookInvalid
    # Stripe's library checks the past only, so it would accept a date far ahead forever. Of two times it takes the
    # first that it can read: "t=+1,t=2" must not be signed at one time and recent by the other.
    times = _SIGNED_AT.findall(signature)
    if len(times) != 1 or not _SECONDS.fullmatch(times[0]) or abs(now.timestamp() - int(times[0])) > SIGNED_SECONDS:
        raise WebhookInvalid


def _is_signed(body: bytes, signature: str, secret: str) -> bool:
    try:
        stripe.WebhookSignature.verify_header(body, signature, secret)
    except (stripe.SignatureVerificationError, ValueError, TypeError):  # not UTF-8, or a header that is not ASCII
        return False
    return True


def read_event(body: bytes, *, is_live: bool) -> PaymentEvent | None:
    """None for an event that can change nobody's tier, or of the other mode. Raises WebhookInvalid."""
    try:
        event = json.loads(body)
        if isinstance(event, dict) and event.get("object") == _THIN_EVENT:
            return None
        kind, payload, is_event_live = event["type"], event["data"]["object"], event["livemode"]
        if not (isinstance(kind, str) and isinstance(payload, dict)):
            raise TypeError
        event_id = printable(event["id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise WebhookInvalid from None
    if event_id is None:
        raise WebhookInvalid
    if is_event_live is not is_live or not (kind in _EVENTS or kind.startswith(_SUBSCRIPTION_EVENTS)):
        return None
    is_checkout, metadata = kind.startswith("checkout.session."), payload.get("metadata")
    if not isinstance(metadata, dict):
        metadata = None
    return PaymentEvent(
        id=event_id,
        customer_id=printable(payload.get("id" if kind == "customer.deleted" else "customer")),
        payment_intent_id=printable(payload.get("payment_intent")),
        checkout_id=printable(payload.get("id")) if is_checkout else None,
        user_id=user_named_in(payload.get("client_reference_id"), metadata) if is_checkout else None,
    )
