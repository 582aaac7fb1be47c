"""Checkout: a session from its making to its payment, at once or once the bank has settled it."""

from __future__ import annotations

from local.stripe import billing as billing
from local.stripe import invoices as invoices
from local.stripe.calendar import DAY
from local.stripe.checkout_objects import checkout_session, line_item
from local.stripe.faults import Json, invalid
from local.stripe.forms import address, flag, inner, metadata, needed, number, rows, text, texts
from local.stripe.money import (
    Card,
    attempt,
    card_error,
    card_named,
    make_method,
    set_default_method,
    settle,
)
from local.stripe.objects import customer, payment_intent, price, product
from local.stripe.world import World, listed

EARLIEST_EXPIRY, LATEST_EXPIRY = 30 * 60, 24 * 3600


def create(world: World, params: Json) -> Json:
    mode = needed(params, "mode")
    if mode not in ("payment", "subscription"):
        raise invalid(f"Invalid mode: the stand-in knows payment and subscription, not {mode}.", "mode")
    priced = [_priced(world, row, f"line_items[{at}]") for at, row in enumerate(rows(params, "line_items"))]
    if not priced:
        raise invalid("Missing required param: line_items.", "line_items", "parameter_missing")
    _check_mode(world, mode, [one for one, _ in priced])
    owner = world.get("customer", given, "customer") if (given := text(params, "customer")) else None
    if owner and text(params, "customer_email"):
        raise invalid("You may only specify one of these parameters: customer, customer_email.", "customer_email")
    taxed = flag(inner(params, "automatic_tax"), "enabled")
    if taxed and owner and not owner["address"] and not inner(params, "customer_update").get("address"):
        raise invalid(
            "Automatic tax calculation in Checkout requires a valid address on the Customer. Add a valid address to the"
            " Customer or set either `customer_update[address]` to 'auto' or `customer_update[shipping]` to 'auto' to"
            " save the address entered in Checkout to the Customer.",
            "automatic_tax",
            "customer_tax_location_invalid",
        )
    expires = number(params, "expires_at") or world.now + LATEST_EXPIRY
    if not world.now + EARLIEST_EXPIRY - 60 <= expires <= world.now + LATEST_EXPIRY + 60:
        raise invalid("The `expires_at` timestamp must be between 30 minutes and 24 hours from now.", "expires_at")
    lines = [line_item(world, one, world.get("product", one["product"])["name"], count) for one, count in priced]
    subscribed, paid = inner(params, "subscription_data"), inner(params, "payment_intent_data")
    total = sum(line["amount_total"] for line in lines)
    total = 0 if number(subscribed, "trial_period_days") else total
    return checkout_session(
        world,
        allow_promotion_codes=flag(params, "allow_promotion_codes") if "allow_promotion_codes" in params else None,
        amount_subtotal=total,
        amount_total=total,
        automatic_tax={"enabled": taxed, "liability": {"type": "self"} if taxed else None,
                       "provider": "stripe" if taxed else None, "status": "complete" if taxed else None},
        cancel_url=address(params, "cancel_url"),
        client_reference_id=text(params, "client_reference_id"),
        currency=priced[0][0]["currency"],
        customer=owner["id"] if owner else None,
        customer_creation=_customer_creation(params) if mode == "payment" and not owner else None,
        customer_details=_details(owner["email"], owner["name"]) if owner else None,
        customer_email=text(params, "customer_email"),
        expires_at=expires,
        locale=text(params, "locale"),
        metadata=metadata(params),
        mode=mode,
        payment_method_types=texts(params, "payment_method_types") or ["card"],
        submit_type=text(params, "submit_type"),
        success_url=needed(params, "success_url") and address(params, "success_url"),
        _line_items=lines,
        _subscription_metadata=metadata(subscribed),
        _trial_days=number(subscribed, "trial_period_days"),
        _intent_metadata=metadata(paid),
    )  # fmt: skip


def line_items(world: World, session: Json) -> Json:
    return listed(session["_line_items"], f"/v1/checkout/sessions/{session['id']}/line_items")


def expire(world: World, session: Json) -> Json:
    if session["status"] != "open":
        raise invalid(
            'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session has a status of'
            f" {session['status']}."
        )
    with world.change(session):
        session.update(status="expired", _path=None)
    world.emit("checkout.session.expired", session)
    return session


def pay(world: World, session: Json, card: Card, *, email: str | None = None, name: str | None = None) -> Json:
    """What the button of the page does. Raises StripeError for a declined card; the session then stays open."""
    return pay_with(world, session, make_method(world, card, _filled(email=email, name=name)))


def pay_with(world: World, session: Json, method: Json) -> Json:
    if session["status"] != "open":
        raise invalid(f"This Checkout Session is {session['status']}.", None, "checkout_session_not_open")
    owner = world.get("customer", session["customer"], "customer") if session["customer"] else None
    typed, known = method["billing_details"], owner or {}
    email = typed["email"] or session["customer_email"] or known.get("email") or "customer@example.com"
    name = typed["name"] or known.get("name")
    if session["mode"] == "payment":
        status = _pay_once(world, session, method, owner, email, name)
    else:
        status = _subscribe(world, session, method, owner, email, name)
    with world.change(session):
        session.update(status="complete", customer_details=_details(email, name), _path=None)
        session["payment_status"] = status
    world.emit("checkout.session.completed", session)
    return session


def settle_payment(world: World, intent: Json, *, succeed: bool) -> Json:
    """The end of a payment that took its time, for its invoice and its Checkout too."""
    settle(world, intent, succeed=succeed)
    for invoice in world.where("invoice", status="open"):
        if invoice.get("_intent") == intent["id"]:
            invoices.after_payment(world, invoice, intent["status"])
    for session in world.where("checkout.session"):
        if intent["id"] in (session["payment_intent"], session.get("_async_intent")):
            with world.change(session):
                session["payment_status"] = "paid" if succeed else "unpaid"
            world.emit(f"checkout.session.async_payment_{'succeeded' if succeed else 'failed'}", session)
    return intent


def _pay_once(world: World, session: Json, method: Json, owner: Json | None, email: str, name: str | None) -> str:
    owner = owner or (customer(world, email=email, name=name) if session["customer_creation"] == "always" else None)
    intent = payment_intent(
        world,
        amount=session["amount_total"],
        currency=session["currency"],
        customer=owner["id"] if owner else None,
        metadata=dict(session["_intent_metadata"]),
        payment_method_types=session["payment_method_types"],
    )
    world.emit("payment_intent.created", intent)
    status = attempt(world, intent, method, present=True)
    session["payment_intent"] = intent["id"]
    if status not in ("succeeded", "processing"):
        raise card_error(world, intent)
    session["customer"] = owner["id"] if owner else None
    return "paid" if status == "succeeded" else "unpaid"


def _subscribe(world: World, session: Json, method: Json, owner: Json | None, email: str, name: str | None) -> str:
    trial = session["_trial_days"] or world.billing.trial_days
    if method_declined := _declined_beforehand(world, session, method, owner):
        raise card_error(world, method_declined)
    if owner is None:
        owner = customer(world, email=email, name=name)
        world.emit("customer.created", owner)
        session["customer"] = owner["id"]
    set_default_method(world, owner, method)
    priced = [(line["price"], line["quantity"]) for line in session["_line_items"]]
    sub = billing.start(
        world,
        owner,
        priced,
        method=method,
        trial_end=world.now + trial * DAY if trial else None,
        metadata=dict(session["_subscription_metadata"]),
        present=True,
    )
    world.billing.trial_days = 0
    session.update(subscription=sub["id"], invoice=sub["latest_invoice"])
    invoice = world.get("invoice", sub["latest_invoice"])
    session["_async_intent"] = invoice.get("_intent") if invoice["status"] == "open" else None
    if trial:
        session.update(amount_subtotal=0, amount_total=0)
        return "no_payment_required"
    return "paid" if invoice["status"] == "paid" else "unpaid"


def _declined_beforehand(world: World, session: Json, method: Json, owner: Json | None) -> Json | None:
    """A card that is declined on the page makes no subscription: its owner may try another one."""
    if card_named(method["_card"]).fate != "declined" and not world.billing.decline_next:
        return None
    owner_id = owner["id"] if owner else None
    intent = payment_intent(world, amount=session["amount_total"], currency=session["currency"], customer=owner_id)
    world.emit("payment_intent.created", intent)
    attempt(world, intent, method, present=True)
    return intent


def _customer_creation(params: Json) -> str:
    return text(params, "customer_creation") or "if_required"


def _priced(world: World, row: Json, at: str) -> tuple[Json, int]:
    count = number(row, "quantity") if "quantity" in row else 1
    if count is None or count < 1:
        raise invalid(f"Invalid quantity: {count}.", f"{at}[quantity]")
    if given := text(row, "price"):
        return world.get("price", given, f"{at}[price]"), count
    data = inner(row, "price_data")
    if not data:
        raise invalid("You must specify either `price` or `price_data`.", f"{at}[price]", "parameter_missing")
    recurring, named = inner(data, "recurring"), inner(data, "product_data")
    owner = text(data, "product") or product(world, name=text(named, "name") or "Product")["id"]
    made = price(
        world,
        amount=number(data, "unit_amount") or 0,
        currency=needed(data, "currency"),
        interval=text(recurring, "interval"),
        interval_count=number(recurring, "interval_count") or 1,
        product=world.get("product", owner, f"{at}[price_data][product]")["id"],
    )
    return made, count


def _check_mode(world: World, mode: str, prices: list[Json]) -> None:
    recurring = [one for one in prices if one["recurring"]]
    if mode == "subscription" and not recurring:
        raise invalid("You must provide at least one recurring price in `subscription` mode when using prices.", "mode")
    # Stripe refuses every recurring one; the price of the product was once sold both ways.
    if mode == "payment" and any(one["id"] != world.price for one in recurring):
        raise invalid(
            "You specified `payment` mode but passed a recurring price. Either switch to `subscription` mode or use"
            " only one-time prices.",
            "mode",
        )


def _details(email: str | None, name: str | None) -> Json:
    return {
        "address": None, "business_name": None, "email": email, "individual_name": None, "name": name, "phone": None,
        "tax_exempt": "none", "tax_ids": [],
    }  # fmt: skip


def _filled(**values: str | None) -> Json:
    return {name: value for name, value in values.items() if value}
