"""Checkout: a session from its creation to its payment, at once or when the bank has settled it."""

from __future__ import annotations

from local.standin import Json
from local.stripe import invoices, subscriptions
from local.stripe.account import Account
from local.stripe.calendar import DAY, HOUR
from local.stripe.errors import invalid
from local.stripe.forms import flag, inner, metadata, number, required, rows, text, url
from local.stripe.payments import Card, attempt, create_intent, create_method, declined, set_default_method, settle

EARLIEST_EXPIRY, LATEST_EXPIRY = HOUR // 2, DAY


def create(account: Account, params: Json) -> Json:
    """Raises StripeError for parameters that Stripe refuses."""
    mode = required(params, "mode")
    if mode not in ("payment", "subscription"):
        raise invalid(f"Invalid mode: the stand-in supports payment and subscription, not {mode}.", "mode")
    lines = [_line(account, mode, row, f"line_items[{at}]") for at, row in enumerate(rows(params, "line_items"))]
    if not lines:
        raise invalid("Missing required param: line_items.", "line_items", "parameter_missing")
    customer_id = text(params, "customer")
    customer = account.get("customer", customer_id, "customer") if customer_id else None
    if mode == "subscription" and customer and customer.get("currency") not in (None, lines[0]["currency"]):
        raise invalid(
            "You cannot combine currencies on a single customer. This customer has an active subscription, subscription"
            f" schedule, discount, quote, or invoice item with currency {customer['currency']}."
        )
    taxed = flag(inner(params, "automatic_tax"), "enabled")
    if taxed and customer and not customer["address"] and not inner(params, "customer_update").get("address"):
        raise invalid(
            "Automatic tax calculation in Checkout requires a valid address on the Customer. Add a valid address to the"
            " Customer or set either `customer_update[address]` to 'auto' or `customer_update[shipping]` to 'auto' to"
            " save the address entered in Checkout to the Customer.",
            "automatic_tax",
            "customer_tax_location_invalid",
        )
    session = account.create(
        "checkout.session",
        allow_promotion_codes=flag(params, "allow_promotion_codes") if "allow_promotion_codes" in params else None,
        amount_total=sum(line["amount_total"] for line in lines),
        automatic_tax={"enabled": taxed},
        cancel_url=url(params, "cancel_url"),
        client_reference_id=text(params, "client_reference_id"),
        currency=lines[0]["currency"],
        customer=customer_id,
        expires_at=_expiry(account, params),
        invoice=None,
        metadata=metadata(params),
        mode=mode,
        payment_intent=None,
        payment_status="unpaid",
        status="open",
        subscription=None,
        success_url=required(params, "success_url") and url(params, "success_url"),
        url=None,
        _line_items=lines,
        _subscription_metadata=metadata(inner(params, "subscription_data")),
    )
    session["_path"] = f"/c/pay/{session['id']}"
    return session


def _line(account: Account, mode: str, row: Json, at: str) -> Json:
    quantity = number(row, "quantity") if "quantity" in row else 1
    if quantity is None or quantity < 1:
        raise invalid(f"Invalid quantity: {quantity}.", f"{at}[quantity]")
    price = account.get("price", required(row, "price"), f"{at}[price]")
    if mode == "subscription" and not price["recurring"]:
        raise invalid("You specified `subscription` mode but passed a one-time price.", f"{at}[price]")
    return {
        "id": account.new_id("item"),
        "object": "item",
        "amount_total": (price["unit_amount"] or 0) * quantity,
        "currency": price["currency"],
        "description": account.get("product", price["product"])["name"],
        "price": account.shown(price),
        "quantity": quantity,
    }


def _expiry(account: Account, params: Json) -> int:
    expires = number(params, "expires_at") or account.now + LATEST_EXPIRY
    if not account.now + EARLIEST_EXPIRY - 60 <= expires <= account.now + LATEST_EXPIRY + 60:
        raise invalid("The `expires_at` timestamp must be between 30 minutes and 24 hours from now.", "expires_at")
    return expires


def expire(account: Account, session: Json) -> Json:
    if session["status"] != "open":
        raise invalid(
            'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session has a status of'
            f" {session['status']}."
        )
    with account.change(session):
        session.update(status="expired", url=None, _path=None)
    account.emit("checkout.session.expired", session)
    return session


def pay(account: Account, session: Json, card: Card, *, email: str | None = None, name: str | None = None) -> Json:
    """What the button of the page does. Raises StripeError for a declined card; the session then stays open."""
    if session["status"] != "open":
        raise invalid(f"This Checkout Session is {session['status']}.", None, "checkout_session_not_open")
    method = create_method(account, card, email=email, name=name)
    if session["mode"] == "payment":
        status = _pay_once(account, session, method)
    else:
        status = _subscribe(account, session, card, method)
    with account.change(session):
        session.update(status="complete", payment_status=status, url=None, _path=None)
    account.emit("checkout.session.completed", session)
    return session


def _pay_once(account: Account, session: Json, method: Json) -> str:
    intent = _intent(account, session)
    status = attempt(account, intent, method, in_checkout=True)
    session["payment_intent"] = intent["id"]
    if status not in ("succeeded", "processing"):
        raise declined(account, intent)
    return "paid" if status == "succeeded" else "unpaid"


def _subscribe(account: Account, session: Json, card: Card, method: Json) -> str:
    if card.outcome == "declined":  # creates no subscription: the customer may try another card
        intent = _intent(account, session)
        attempt(account, intent, method, in_checkout=True)
        raise declined(account, intent)
    customer = account.get("customer", session["customer"] or _new_customer(account, method), "customer")
    session["customer"] = customer["id"]
    set_default_method(account, customer, method)
    trial, account.billing.trial_days = account.billing.trial_days, 0
    sub = subscriptions.start(
        account,
        customer,
        [(line["price"], line["quantity"]) for line in session["_line_items"]],
        method,
        trial_end=account.now + trial * DAY if trial else None,
        metadata=dict(session["_subscription_metadata"]),
    )
    session.update(subscription=sub["id"], invoice=sub["latest_invoice"])
    if trial:
        session["amount_total"] = 0
        return "no_payment_required"
    return "paid" if account.get("invoice", sub["latest_invoice"])["status"] == "paid" else "unpaid"


def _intent(account: Account, session: Json) -> Json:
    amount, currency, customer = (session[name] for name in ("amount_total", "currency", "customer"))
    return create_intent(account, amount=amount, currency=currency, customer=customer)


def _new_customer(account: Account, method: Json) -> str:
    return str(create_customer(account, **method["billing_details"])["id"])


def create_customer(account: Account, **fields: object) -> Json:
    settings = {"default_payment_method": None}
    optional = {"address": None, "currency": None, "email": None, "name": None, "phone": None}
    customer = account.create("customer", **optional | fields, invoice_settings=settings)
    account.emit("customer.created", customer)
    return customer


def settle_payment(account: Account, intent: Json, *, succeed: bool) -> Json:
    """End a bank debit, for its invoice and its Checkout too."""
    settle(account, intent, succeed=succeed)
    paid_for = {intent["id"]}
    for invoice in account.where("invoice", status="open", _intent=intent["id"]):
        paid_for.add(invoice["id"])
        invoices.after_payment(account, invoice, intent["status"])
    for session in account.where("checkout.session", payment_status="unpaid"):
        if paid_for & {session["payment_intent"], session["invoice"]}:
            with account.change(session):
                session["payment_status"] = "paid" if succeed else "unpaid"
            account.emit(f"checkout.session.async_payment_{'succeeded' if succeed else 'failed'}", session)
    return intent
