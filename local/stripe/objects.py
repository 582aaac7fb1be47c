"""The shapes of Stripe's objects in API version 2026-10-28: every field that its types name, mostly null."""

from __future__ import annotations

import secrets
from typing import Any

from local.stripe.faults import Json
from local.stripe.world import World

NO_TAX: Json = {"disabled_reason": None, "enabled": False, "liability": None, "provider": None, "status": None}
NO_ADDRESS: Json = {"city": None, "country": None, "line1": None, "line2": None, "postal_code": None, "state": None}


def new(world: World, kind: str, nulls: str = "", **fields: Any) -> Json:
    """Kept in the world; `nulls` are the fields that are null unless given."""
    always = {"id": world.new_id(kind), "object": kind, "created": world.now, "livemode": world.billing.livemode}
    return world.add(always | {"metadata": {}} | dict.fromkeys(nulls.split()) | fields)


def customer(world: World, **fields: Any) -> Json:
    nulls = (
        "address business_name currency customer_account default_source description discount email individual_name name"
        " phone shipping test_clock"
    )
    settings = {"custom_fields": None, "default_payment_method": None, "footer": None, "rendering_options": None}
    standard: Json = {
        "balance": 0,
        "delinquent": False,
        "invoice_prefix": secrets.token_hex(4).upper(),
        "invoice_settings": settings,
        "next_invoice_sequence": 1,
        "preferred_locales": [],
        "tax_exempt": "none",
    }
    return new(world, "customer", nulls, **standard | fields)


def product(world: World, **fields: Any) -> Json:
    nulls = (
        "default_price description package_dimensions shippable statement_descriptor tax_code tax_details unit_label"
        " url"
    )
    standard: Json = {
        "active": True,
        "images": [],
        "marketing_features": [],
        "name": "",
        "type": "service",
        "updated": world.now,
    }
    return new(world, "product", nulls, **standard | fields)


def price(
    world: World, *, amount: int, currency: str, interval: str | None, interval_count: int = 1, **fields: Any
) -> Json:
    recurring: Json | None = None
    if interval:
        recurring = {"interval": interval, "interval_count": interval_count, "meter": None}
        recurring |= {"trial_period_days": None, "usage_type": "licensed"}
    standard: Json = {
        "active": True,
        "billing_scheme": "per_unit",
        "currency": currency,
        "recurring": recurring,
        "tax_behavior": "unspecified",
        "type": "recurring" if interval else "one_time",
        "unit_amount": amount,
        "unit_amount_decimal": str(amount),
    }
    nulls = "custom_unit_amount lookup_key nickname tiers_mode transform_quantity"
    return new(world, "price", nulls, **standard | fields)


def plan_of(price: Json) -> Json:
    """The former name of a recurring price, which subscription items still repeat."""
    same = ("id", "active", "billing_scheme", "created", "currency", "livemode", "metadata", "nickname", "product")
    recurring = price["recurring"] or {"interval": "month", "interval_count": 1}
    plan: Json = {name: price[name] for name in same} | {"object": "plan", "amount": price["unit_amount"]}
    plan |= {"amount_decimal": price["unit_amount_decimal"], "interval": recurring["interval"]}
    plan |= {"interval_count": recurring["interval_count"], "meter": None, "tiers_mode": None}
    return plan | {"transform_usage": None, "trial_period_days": None, "usage_type": "licensed"}


def payment_intent(world: World, **fields: Any) -> Json:
    nulls = (
        "application application_fee_amount automatic_payment_methods canceled_at cancellation_reason customer"
        " customer_account description last_payment_error latest_charge next_action on_behalf_of payment_method"
        " payment_method_configuration_details processing receipt_email review setup_future_usage shipping source"
        " statement_descriptor statement_descriptor_suffix transfer_data transfer_group"
    )
    standard: Json = {
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "capture_method": "automatic_async",
        "confirmation_method": "automatic",
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "status": "requires_payment_method",
    }
    made = new(world, "payment_intent", nulls, **standard | fields)
    made["client_secret"] = f"{made['id']}_secret_{secrets.token_hex(12)}"
    return made


def charge(world: World, **fields: Any) -> Json:
    nulls = (
        "application application_fee application_fee_amount authorization_code balance_transaction customer description"
        " failure_balance_transaction failure_code failure_message on_behalf_of payment_intent payment_method"
        " payment_method_details receipt_email receipt_number receipt_url review shipping source source_transfer"
        " statement_descriptor statement_descriptor_suffix transfer_data transfer_group"
    )
    billing = {"address": dict(NO_ADDRESS), "email": None, "name": None, "phone": None, "tax_id": None}
    standard: Json = {
        "amount_captured": 0,
        "amount_refunded": 0,
        "billing_details": billing,
        "calculated_statement_descriptor": "STAND-IN",
        "captured": False,
        "disputed": False,
        "fraud_details": {},
        "outcome": None,
        "paid": False,
        "radar_options": {},
        "refunded": False,
    }
    return new(world, "charge", nulls, **standard | fields)


def refund(world: World, **fields: Any) -> Json:
    nulls = (
        "balance_transaction customer customer_account description payment_intent payment_method reason receipt_number"
        " source_transfer_reversal transfer_reversal"
    )
    details = {"card": {"reference_status": "pending", "reference_type": "acquirer_reference_number"}, "type": "card"}
    made = new(world, "refund", nulls, **{"destination_details": details, "status": "succeeded"} | fields)
    del made["livemode"]  # the one object without it
    return made


def dispute(world: World, **fields: Any) -> Json:
    details = {
        "due_by": world.now + 7 * 86_400,
        "enhanced_eligibility": {},
        "has_evidence": False,
        "past_due": False,
        "submission_count": 0,
        "submission_method": "not_submitted",
    }
    standard: Json = {
        "balance_transactions": [],
        "enhanced_eligibility_types": [],
        "evidence": {},
        "evidence_details": details,
        "intended_submission_method": None,
        "network_reason_code": "10.4",
    }
    return new(world, "dispute", "", **standard | fields)
