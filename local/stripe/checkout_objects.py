"""The shapes of Checkout and of the customer portal, and of cards."""

from __future__ import annotations

import secrets
from typing import Any

from local.stripe.faults import Json
from local.stripe.objects import NO_ADDRESS, new
from local.stripe.world import World

CHECKOUT_SECONDS = 24 * 3600


def checkout_session(world: World, **fields: Any) -> Json:
    nulls = (
        "after_expiration allow_promotion_codes allowed_payment_method_types amount_subtotal amount_total"
        " billing_address_collection cancel_url client_reference_id client_secret collected_information consent"
        " consent_collection currency currency_conversion customer customer_account customer_creation customer_details"
        " customer_email excluded_payment_method_types integration_identifier invoice invoice_creation locale"
        " name_collection optional_items origin_context payment_intent payment_link"
        " payment_method_configuration_details permissions presentment_details recovered_from"
        " redirect_on_completion return_url saved_payment_method_options setup_intent shipping_address_collection"
        " shipping_cost submit_type subscription success_url tax_id_collection url wallet_options"
    )
    texts = {"after_submit": None, "shipping_address": None, "submit": None, "terms_of_service_acceptance": None}
    branding = {
        "background_color": "#ffffff", "border_style": "rounded", "button_color": "#0074d4", "display_name": "Stand-in",
        "font_family": "default", "icon": None, "logo": None,
    }  # fmt: skip
    standard: Json = {
        "adaptive_pricing": {"enabled": False},
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "branding_settings": branding,
        "custom_fields": [],
        "custom_text": texts,
        "discounts": [],
        "expires_at": world.now + CHECKOUT_SECONDS,
        "managed_payments": {"enabled": False},
        "payment_method_collection": "if_required" if fields["mode"] == "payment" else "always",
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "payment_status": "unpaid",
        "phone_number_collection": {"enabled": False},
        "shipping_options": [],
        "status": "open",
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted_page",
    }
    made = new(world, "checkout.session", nulls, **standard | fields)
    made["_path"] = f"/c/pay/{made['id']}"
    return made


def line_item(world: World, price: Json, description: str, quantity: int) -> Json:
    amount = (price["unit_amount"] or 0) * quantity
    return {
        "id": world.new_id("item"),
        "object": "item",
        "adjustable_quantity": None,
        "amount_discount": 0,
        "amount_subtotal": amount,
        "amount_tax": 0,
        "amount_total": amount,
        "currency": price["currency"],
        "description": description,
        "metadata": {},
        "price": world.shown(price),
        "quantity": quantity,
    }


def portal_session(world: World, customer: Json, return_url: str | None) -> Json:
    made = new(
        world,
        "billing_portal.session",
        "after_expiration customer_account flow locale on_behalf_of url",
        configuration="bpc_standin",
        customer=customer["id"],
        return_url=return_url,
    )
    del made["metadata"]  # it has none
    made["_path"] = f"/p/session/{made['id']}"
    return made


def payment_method(
    world: World, *, kind: str, card: str, brand: str, last4: str, billing: Json | None = None, **fields: Any
) -> Json:
    """`card` is the stand-in's own name of it, which says what becomes of its payments."""
    details: Json = {"bank_name": "STAND-IN BANK", "fingerprint": secrets.token_hex(8), "last4": last4}
    if kind == "card":
        checks = {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"}
        details = {
            "brand": brand,
            "checks": checks,
            "country": "US",
            "display_brand": brand,
            "exp_month": 12,
            "exp_year": 2040,
            "fingerprint": secrets.token_hex(8),
            "funding": "credit",
            "generated_from": None,
            "last4": last4,
            "networks": {"available": [brand], "preferred": None},
            "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": True},
            "wallet": None,
        }
    who: Json = {"address": dict(NO_ADDRESS), "email": None, "name": None, "phone": None, "tax_id": None}
    return new(
        world,
        "payment_method",
        "customer customer_account",
        **{"allow_redisplay": "unspecified", "billing_details": who | (billing or {}), "type": kind, kind: details},
        **fields,
        _card=card,
    )
