"""The shapes of invoices, subscriptions and their lines."""

from __future__ import annotations

from typing import Any

from local.stripe.faults import Json
from local.stripe.objects import NO_TAX, new, plan_of
from local.stripe.world import World, listed


def invoice(world: World, customer: Json, **fields: Any) -> Json:
    nulls = (
        "account_tax_ids amount_paid_off_stripe application automatically_finalizes_at custom_fields customer_account"
        " default_payment_method default_source description due_date effective_at ending_balance footer from_invoice"
        " last_finalization_error latest_revision next_payment_attempt number on_behalf_of parent receipt_number"
        " rendering shipping_cost shipping_details statement_descriptor status_details test_clock threshold_reason"
        " webhooks_delivered_at"
    )
    moments = {"finalized_at": None, "marked_uncollectible_at": None, "paid_at": None, "voided_at": None}
    standard: Json = {
        "account_country": "US",
        "account_name": "Stand-in",
        "amount_due": 0,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_remaining": 0,
        "amount_shipping": 0,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": True,
        "automatic_tax": dict(NO_TAX),
        "billing_reason": "manual",
        "collection_method": "charge_automatically",
        "customer": customer["id"],
        "customer_address": customer["address"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "customer_phone": customer["phone"],
        "customer_shipping": customer["shipping"],
        "customer_tax_exempt": "none",
        "customer_tax_ids": [],
        "default_tax_rates": [],
        "discounts": [],
        "hosted_invoice_url": None,
        "invoice_pdf": None,
        "issuer": {"type": "self"},
        "payment_settings": {
            "default_mandate": None, "payment_method_options": None, "payment_method_types": None
        },
        "period_end": world.now,
        "period_start": world.now,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "starting_balance": 0,
        "status": "draft",
        "status_transitions": moments,
        "subtotal": 0,
        "subtotal_excluding_tax": 0,
        "total": 0,
        "total_discount_amounts": [],
        "total_excluding_tax": 0,
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
    }  # fmt: skip
    made = new(world, "invoice", nulls, **standard | fields)
    made["lines"] = listed([], f"/v1/invoices/{made['id']}/lines")
    return made


def invoice_line(
    world: World, invoice: Json, *, amount: int, description: str | None, period: tuple[int, int], quantity: int = 1,
    price: Json | None = None, item: Json | None = None,
) -> Json:  # fmt: skip
    """A line of a subscription's item, or of an invoice item."""
    if item and "subscription" in item:
        details: Json = {"invoice_item": None, "proration": False, "proration_details": {"credited_items": None}}
        details |= {"subscription": item["subscription"], "subscription_item": item["id"]}
        parent: Json = {"invoice_item_details": None, "subscription_item_details": details}
        parent["type"] = "subscription_item_details"
    else:
        details = {"invoice_item": item["id"] if item else None, "proration": False, "subscription": None}
        details["proration_details"] = {"credited_items": None}
        parent = {"invoice_item_details": details, "subscription_item_details": None, "type": "invoice_item_details"}
    priced = {"price": price["id"], "product": price["product"]} if price else None
    line: Json = {
        "id": world.new_id("line_item"),
        "object": "line_item",
        "amount": amount,
        "currency": invoice["currency"],
        "description": description,
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": invoice["id"],
        "livemode": invoice["livemode"],
        "metadata": {},
        "parent": parent,
        "period": {"end": period[1], "start": period[0]},
        "pretax_credit_amounts": [],
        "pricing": {"price_details": priced, "type": "price_details", "unit_amount_decimal": str(amount // quantity)},
        "quantity": quantity,
        "quantity_decimal": str(quantity),
        "subscription": item.get("subscription") if item else None,
        "subtotal": amount,
        "taxes": [],
    }
    invoice["lines"]["data"].append(line)
    invoice["lines"]["total_count"] += 1
    total = invoice["total"] + amount
    for name in (
        "amount_due",
        "amount_remaining",
        "subtotal",
        "subtotal_excluding_tax",
        "total",
        "total_excluding_tax",
    ):
        invoice[name] = total
    return line


def subscription(world: World, **fields: Any) -> Json:
    nulls = (
        "application application_fee_percent billing_cycle_anchor_config billing_thresholds cancel_at canceled_at"
        " customer_account days_until_due default_payment_method default_source description ended_at latest_invoice"
        " next_pending_invoice_item_invoice on_behalf_of pause_collection pending_invoice_item_interval"
        " pending_setup_intent pending_update presentment_details schedule status_details test_clock transfer_data"
        " trial_end trial_start"
    )
    paying = {"payment_method_options": None, "payment_method_types": None, "save_default_payment_method": "off"}
    invoicing = {"account_tax_ids": None, "custom_fields": None, "description": None, "footer": None}
    standard: Json = {
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": world.now,
        "billing_mode": {"flexible": {"proration_discounts": "included"}, "type": "flexible", "updated_at": world.now},
        "billing_schedules": [],
        "cancel_at_period_end": False,
        "cancellation_details": {"comment": None, "feedback": None, "feedback_option": None, "reason": None},
        "collection_method": "charge_automatically",
        "default_tax_rates": [],
        "discounts": [],
        "invoice_settings": invoicing | {"issuer": {"type": "self"}},
        "managed_payments": {"enabled": False},
        "payment_settings": paying,
        "start_date": world.now,
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
    }
    made = new(world, "subscription", nulls, **standard | fields)
    made["items"] = listed([], f"/v1/subscription_items?subscription={made['id']}")
    return made


def subscription_item(world: World, subscription: Json, price: Json, quantity: int, period: tuple[int, int]) -> Json:
    item: Json = {
        "id": world.new_id("subscription_item"),
        "object": "subscription_item",
        "billed_until": period[1],
        "billing_thresholds": None,
        "created": world.now,
        "current_period_end": period[1],
        "current_period_start": period[0],
        "current_trial": None,
        "discounts": [],
        "metadata": {},
        "plan": plan_of(price),
        "price": world.shown(price),
        "quantity": quantity,
        "subscription": subscription["id"],
        "tax_rates": [],
    }
    subscription["items"]["data"].append(item)
    subscription["items"]["total_count"] += 1
    return item
