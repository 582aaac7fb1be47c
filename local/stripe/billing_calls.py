"""Stripe's REST calls about Checkout, the portal, subscriptions and invoices."""

from __future__ import annotations

from local.stripe import billing as billing
from local.stripe import billing_objects as objects
from local.stripe import checkout as checkout
from local.stripe import invoices as invoices
from local.stripe.calendar import DAY
from local.stripe.calls import call, get_by_id, given_of
from local.stripe.checkout_objects import portal_session
from local.stripe.faults import Json, StripeError, invalid
from local.stripe.forms import address, flag, inner, metadata, needed, number, rows, text
from local.stripe.money import card_error, default_method, method_of
from local.stripe.objects import new
from local.stripe.subscriptions import cancel, plan_cancellation
from local.stripe.world import World

get_by_id("invoice", "/invoices")
get_by_id("invoice_payment", "/invoice_payments")

# --- Checkout and the portal


@call("POST", "/checkout/sessions")
def create_session(world: World, params: Json) -> Json:
    return checkout.create(world, params)


@call("GET", "/checkout/sessions/:id")
def get_session(world: World, params: Json, given: str) -> Json:
    return world.get("checkout.session", given)


@call("GET", "/checkout/sessions")
def list_sessions(world: World, params: Json) -> Json:
    names = ("customer", "status", "payment_intent", "subscription")
    return world.page("checkout.session", "/v1/checkout/sessions", params, *names)


@call("POST", "/checkout/sessions/:id/expire")
def expire_session(world: World, params: Json, given: str) -> Json:
    return checkout.expire(world, world.get("checkout.session", given))


@call("GET", "/checkout/sessions/:id/line_items")
def session_line_items(world: World, params: Json, given: str) -> Json:
    items = world.get("checkout.session", given)["_line_items"]
    return world.page("item", f"/v1/checkout/sessions/{given}/line_items", params, items=items)


@call("GET", "/payment_pages/:id")
def get_payment_page(world: World, params: Json, given: str) -> Json:
    return world.get("checkout.session", given)


@call("POST", "/payment_pages/:id/confirm")
def confirm_payment_page(world: World, params: Json, given: str) -> Json:
    """Undocumented: Checkout's own page calls it, and so does `stripe trigger`."""
    session = world.get("checkout.session", given)
    return checkout.pay_with(world, session, method_of(world, needed(params, "payment_method")))


@call("POST", "/billing_portal/sessions")
def create_portal_session(world: World, params: Json) -> Json:
    owner = world.get("customer", needed(params, "customer"), "customer")
    return portal_session(world, owner, address(params, "return_url"))


# --- subscriptions


@call("POST", "/subscriptions")
def create_subscription(world: World, params: Json) -> Json:
    owner = world.get("customer", needed(params, "customer"), "customer")
    priced = [(world.get("price", needed(row, "price"), "items"), number(row, "quantity") or 1)
              for row in rows(params, "items")]  # fmt: skip
    if not priced:
        raise invalid("Missing required param: items.", "items", "parameter_missing")
    if any(not price["recurring"] for price, _ in priced):
        raise invalid(
            "The price specified is set to `type=one_time` but this field only accepts recurring prices.", "items"
        )
    days = number(params, "trial_period_days")
    trial_end = world.now + days * DAY if days else number(params, "trial_end")
    given = text(params, "default_payment_method")
    method = method_of(world, given) if given else None
    if not (method or default_method(world, owner) or trial_end):
        raise invalid(
            "This customer has no attached payment source or default payment method. Please consider adding a default"
            " payment method.",
            None,
            "resource_missing",
        )
    behaviour = inner(inner(params, "trial_settings"), "end_behavior").get("missing_payment_method")
    return billing.start(
        world, owner, priced, method=method, trial_end=trial_end, metadata=metadata(params),
        pause_without_card=behaviour == "pause",
    )  # fmt: skip


@call("GET", "/subscriptions/:id")
def get_subscription(world: World, params: Json, given: str) -> Json:
    return world.get("subscription", given)


@call("GET", "/subscriptions")
def list_subscriptions(world: World, params: Json) -> Json:
    status, price = text(params, "status"), text(params, "price")
    found = []
    for sub in reversed(list(world.where("subscription", **given_of(params, "customer")))):
        ended = sub["status"] in ("canceled", "incomplete_expired")
        wanted = (
            sub["status"] == status
            or status == "all"
            or (status is None and not ended)
            or (status == "ended" and ended)
        )
        if wanted and (price is None or any(item["price"]["id"] == price for item in sub["items"]["data"])):
            found.append(sub)
    return world.page("subscription", "/v1/subscriptions", params, items=found)


@call("POST", "/subscriptions/:id")
def update_subscription(world: World, params: Json, given: str) -> Json:
    sub = world.get("subscription", given)
    if sub["status"] in ("canceled", "incomplete_expired"):
        raise invalid("A canceled subscription can only update its cancellation_details and metadata.", None)
    if "cancel_at_period_end" in params:
        plan_cancellation(world, sub, at_period_end=flag(params, "cancel_at_period_end"))
    if params.get("cancel_at") == "":
        plan_cancellation(world, sub, at_period_end=False)
    if params.get("trial_end") == "now" and sub["status"] == "trialing":
        billing.end_trial_now(world, sub)
    with world.change(sub, "customer.subscription.updated"):
        if "metadata" in params:
            sub["metadata"] = metadata(params, sub["metadata"])
        if method := text(params, "default_payment_method"):
            sub["default_payment_method"] = world.get("payment_method", method, "default_payment_method")["id"]
    return sub


@call("DELETE", "/subscriptions/:id")
def cancel_subscription(world: World, params: Json, given: str) -> Json:
    sub = world.get("subscription", given)
    if sub["status"] in ("canceled", "incomplete_expired"):
        raise StripeError(
            404, "invalid_request_error", f"No such subscription: '{given}'", code="resource_missing", param="id"
        )
    return cancel(world, sub, "cancellation_requested")


@call("POST", "/subscriptions/:id/resume")
def resume_subscription(world: World, params: Json, given: str) -> Json:
    billing.resume(world, sub := world.get("subscription", given))
    return sub


# --- invoices


@call("GET", "/invoices")
def list_invoices(world: World, params: Json) -> Json:
    sub = text(params, "subscription")
    items = [
        one
        for one in reversed(list(world.where("invoice", **given_of(params, "customer", "status"))))
        if sub is None or one.get("_subscription") == sub
    ]
    return world.page("invoice", "/v1/invoices", params, items=items)


@call("GET", "/invoice_payments")
def list_invoice_payments(world: World, params: Json) -> Json:
    intent, invoice = text(inner(params, "payment"), "payment_intent"), text(params, "invoice")
    found = [
        payment
        for payment in reversed(list(world.where("invoice_payment", **({"invoice": invoice} if invoice else {}))))
        if intent is None or payment["payment"]["payment_intent"] == intent
    ]
    return world.page("invoice_payment", "/v1/invoice_payments", params, items=found)


@call("POST", "/invoiceitems")
def create_invoice_item(world: World, params: Json) -> Json:
    owner = world.get("customer", needed(params, "customer"), "customer")
    made = new(
        world,
        "invoiceitem",
        "invoice parent test_clock",
        amount=number(params, "amount") or 0,
        currency=needed(params, "currency"),
        customer=owner["id"],
        date=world.now,
        description=text(params, "description"),
        quantity=1,
    )
    world.emit("invoiceitem.created", made)
    return made


@call("POST", "/invoices")
def create_invoice(world: World, params: Json) -> Json:
    owner = world.get("customer", needed(params, "customer"), "customer")
    items = [item for item in world.where("invoiceitem", customer=owner["id"]) if item["invoice"] is None]
    included = items if text(params, "pending_invoice_items_behavior") == "include" else []
    made = objects.invoice(
        world,
        owner,
        collection_method=text(params, "collection_method") or "charge_automatically",
        currency=included[0]["currency"] if included else "usd",
        description=text(params, "description"),
        metadata=metadata(params),
    )
    for item in included:
        item["invoice"] = made["id"]
        about = {"amount": item["amount"], "description": item["description"], "period": (world.now, world.now)}
        objects.invoice_line(world, made, item=item, **about)
    world.emit("invoice.created", made)
    return made


@call("POST", "/invoices/:id")
def update_invoice(world: World, params: Json, given: str) -> Json:
    found = world.get("invoice", given)
    with world.change(found, "invoice.updated"):
        found["metadata"] = metadata(params, found["metadata"])
    return found


@call("DELETE", "/invoices/:id")
def delete_invoice(world: World, params: Json, given: str) -> Json:
    found = world.get("invoice", given)
    if found["status"] != "draft":
        raise invalid("You can only delete draft invoices.")
    world.emit("invoice.deleted", found)
    world.of("invoice")[given] = {"id": given, "object": "invoice", "deleted": True}
    return world.of("invoice")[given]


@call("POST", "/invoices/:id/finalize")
def finalize_invoice(world: World, params: Json, given: str) -> Json:
    return invoices.finalize(world, world.get("invoice", given))


@call("POST", "/invoices/:id/send")
def send_invoice(world: World, params: Json, given: str) -> Json:
    found = world.get("invoice", given)
    if found["status"] == "draft":
        invoices.finalize(world, found)
    world.emit("invoice.sent", found)
    return found


@call("POST", "/invoices/:id/pay")
def pay_invoice(world: World, params: Json, given: str) -> Json:
    found = world.get("invoice", given)
    method = text(params, "payment_method")
    status = invoices.pay(world, found, method_of(world, method) if method else None)
    if status not in ("paid", "processing"):
        raise card_error(world, world.get("payment_intent", found["_intent"]))
    return found


@call("POST", "/invoices/:id/void")
def void_invoice(world: World, params: Json, given: str) -> Json:
    return invoices.void(world, world.get("invoice", given))


@call("POST", "/invoices/:id/mark_uncollectible")
def mark_uncollectible(world: World, params: Json, given: str) -> Json:
    found = world.get("invoice", given)
    with world.change(found, "invoice.marked_uncollectible"):
        found["status"] = "uncollectible"
        found["status_transitions"]["marked_uncollectible_at"] = world.now
    return found
