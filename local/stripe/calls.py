"""Stripe's REST calls: those that the product makes, and those that a person makes in Stripe's dashboard."""

from __future__ import annotations

import re
from collections.abc import Callable

from local.standin import Json
from local.stripe import checkout
from local.stripe.account import Account
from local.stripe.errors import StripeError, invalid, missing
from local.stripe.forms import flag, inner, metadata, number, required, text, texts, url
from local.stripe.invoices import LIVE, cancel
from local.stripe.subscriptions import plan_cancellation

ENDED = ("canceled", "incomplete_expired")


def perform(account: Account, method: str, path: str, params: Json) -> Json:
    """The reply to a call. Raises StripeError for what Stripe refuses."""
    for known, pattern, call in CALLS:
        if known == method and (match := pattern.fullmatch(path)):
            reply = call(account, params, *match.groups())
            account.changes += method != "GET"
            return reply if reply["object"] == "list" else account.shown(reply, texts(params, "expand"))
    raise StripeError(404, "invalid_request_error", f"Unrecognized request URL ({method}: {path}).")


# --- customers


def create_customer(account: Account, params: Json) -> Json:
    return checkout.create_customer(
        account, email=text(params, "email"), name=text(params, "name"), metadata=metadata(params)
    )


def get_customer(account: Account, params: Json, customer_id: str) -> Json:
    # A deleted customer is found, as an object that says so.
    return account.table("customer").get(customer_id) or account.get("customer", customer_id)


def delete_customer(account: Account, params: Json, customer_id: str) -> Json:
    customer = account.get("customer", customer_id)
    for sub in account.where("subscription", customer=customer_id):
        if sub["status"] in LIVE:
            cancel(account, sub, None)
    account.emit("customer.deleted", customer)
    return account.add({"id": customer_id, "object": "customer", "deleted": True})


# --- prices


def create_price(account: Account, params: Json) -> Json:
    recurring = text(inner(params, "recurring"), "interval")
    if recurring not in (None, "month"):
        raise invalid("The stand-in renews by the month.", "recurring[interval]")
    name = required(inner(params, "product_data"), "name")
    return add_price(
        account,
        name,
        amount=number(params, "unit_amount") or 0,
        currency=required(params, "currency"),
        recurring=recurring is not None,
    )


def add_price(account: Account, name: str, *, amount: int, currency: str, recurring: bool, **fields: object) -> Json:
    product = account.create("product", active=True, name=name)
    return account.create(
        "price",
        active=True,
        currency=currency,
        product=product["id"],
        recurring={"interval": "month", "interval_count": 1} if recurring else None,
        unit_amount=amount,
        **fields,
    )


def get_price(account: Account, params: Json, price_id: str) -> Json:
    return account.get("price", price_id)


# --- Checkout and the portal


def get_session(account: Account, params: Json, session_id: str) -> Json:
    return account.get("checkout.session", session_id)


def list_sessions(account: Account, params: Json) -> Json:
    return account.page(account.newest("checkout.session", params, "customer", "status"), params)


def expire_session(account: Account, params: Json, session_id: str) -> Json:
    return checkout.expire(account, account.get("checkout.session", session_id))


def create_portal_session(account: Account, params: Json) -> Json:
    customer = account.get("customer", required(params, "customer"), "customer")
    session = account.create(
        "billing_portal.session", customer=customer["id"], return_url=url(params, "return_url"), url=None
    )
    session["_path"] = f"/p/session/{session['id']}"
    return session


# --- subscriptions


def get_subscription(account: Account, params: Json, subscription_id: str) -> Json:
    return account.get("subscription", subscription_id)


def list_subscriptions(account: Account, params: Json) -> Json:
    """Without a `status` all that have not ended."""
    status = text(params, "status")
    found = [
        sub
        for sub in account.newest("subscription", params, "customer")
        if status in ("all", sub["status"]) or (status is None and sub["status"] not in ENDED)
    ]
    return account.page(found, params)


def update_subscription(account: Account, params: Json, subscription_id: str) -> Json:
    sub = account.get("subscription", subscription_id)
    if sub["status"] in ENDED:
        raise invalid("A canceled subscription can only update its cancellation_details and metadata.")
    if "cancel_at_period_end" in params:
        plan_cancellation(account, sub, at_period_end=flag(params, "cancel_at_period_end"))
    return sub


def cancel_subscription(account: Account, params: Json, subscription_id: str) -> Json:
    sub = account.get("subscription", subscription_id)
    if sub["status"] in ENDED:
        raise missing("subscription", subscription_id)
    return cancel(account, sub, "cancellation_requested")


# --- invoices and disputes


def list_invoices(account: Account, params: Json) -> Json:
    sub = text(params, "subscription")
    found = account.newest("invoice", params, "customer", "status")
    return account.page([invoice for invoice in found if sub in (None, invoice["_subscription"])], params)


def list_disputes(account: Account, params: Json) -> Json:
    return account.page(account.newest("dispute", params, "charge", "payment_intent"), params)


#: (account, params, *ids) -> an object of the account, or a list made by `Account.page`
Call = Callable[..., Json]
CALLS: list[tuple[str, re.Pattern[str], Call]] = [
    (method, re.compile("/v1" + path.replace(":id", "([^/]+)") + "/?"), call)
    for method, path, call in (
        ("POST", "/customers", create_customer),
        ("GET", "/customers/:id", get_customer),
        ("DELETE", "/customers/:id", delete_customer),
        ("POST", "/prices", create_price),
        ("GET", "/prices/:id", get_price),
        ("POST", "/checkout/sessions", checkout.create),
        ("GET", "/checkout/sessions", list_sessions),
        ("GET", "/checkout/sessions/:id", get_session),
        ("POST", "/checkout/sessions/:id/expire", expire_session),
        ("POST", "/billing_portal/sessions", create_portal_session),
        ("GET", "/subscriptions", list_subscriptions),
        ("GET", "/subscriptions/:id", get_subscription),
        ("POST", "/subscriptions/:id", update_subscription),
        ("DELETE", "/subscriptions/:id", cancel_subscription),
        ("GET", "/invoices", list_invoices),
        ("GET", "/disputes", list_disputes),
    )
]
