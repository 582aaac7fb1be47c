"""Stripe's REST calls: which there are, and what each asks of the account, with parameters from forms.py."""

from __future__ import annotations

import re
from collections.abc import Callable

from local.stripe import objects as objects
from local.stripe.faults import Json, StripeError, invalid
from local.stripe.forms import inner, metadata, needed, number, text, texts
from local.stripe.money import method_of, set_default_method
from local.stripe.subscriptions import LIVE, cancel
from local.stripe.world import World

Call = Callable[..., Json]  # (world, params, *ids); the reply is an object of the world, or a finished list

CALLS: list[tuple[str, re.Pattern[str], Call]] = []


def call(method: str, path: str) -> Callable[[Call], Call]:
    pattern = re.compile("^/v1" + path.replace(":id", "([^/]+)") + "/?$")

    def add(function: Call) -> Call:
        CALLS.append((method, pattern, function))
        return function

    return add


def perform(world: World, method: str, path: str, params: Json) -> Json:
    """Raises StripeError for what Stripe refuses."""
    for known, pattern, function in CALLS:
        if known == method and (match := pattern.match(path)):
            reply = function(world, params, *match.groups())
            world.changes += method != "GET"
            return reply if reply.get("object") == "list" else world.shown(reply, texts(params, "expand"))
    raise StripeError(404, "invalid_request_error", f"Unrecognized request URL ({method}: {path}).")


# --- customers


@call("POST", "/customers")
def create_customer(world: World, params: Json) -> Json:
    methods = [method_of(world, given) for name in ("payment_method", "source") if (given := text(params, name))]
    made = objects.customer(world, metadata=metadata(params))
    _fill_customer(world, made, params, created=True)
    world.emit("customer.created", made)
    for method in methods:
        set_default_method(world, made, method)
    return made


@call("GET", "/customers/:id")
def get_customer(world: World, params: Json, given: str) -> Json:
    return world.of("customer").get(given) or world.get("customer", given)  # a deleted one is shown as such


@call("GET", "/customers")
def list_customers(world: World, params: Json) -> Json:
    return world.page("customer", "/v1/customers", params, "email")


@call("POST", "/customers/:id")
def update_customer(world: World, params: Json, given: str) -> Json:
    found = world.get("customer", given)
    with world.change(found, "customer.updated"):
        _fill_customer(world, found, params)
    return found


@call("DELETE", "/customers/:id")
def delete_customer(world: World, params: Json, given: str) -> Json:
    found = world.get("customer", given)
    for sub in world.where("subscription", customer=given):
        if sub["status"] in LIVE:
            cancel(world, sub, None)
    world.emit("customer.deleted", found)
    deleted = {"id": given, "object": "customer", "deleted": True}
    world.of("customer")[given] = deleted
    return deleted


def _fill_customer(world: World, made: Json, params: Json, *, created: bool = False) -> None:
    for name in ("email", "name", "phone", "description"):
        if name in params:
            made[name] = text(params, name)
    for name in ("address", "shipping"):
        if name in params:
            made[name] = (dict(objects.NO_ADDRESS) if name == "address" else {}) | inner(params, name)
    if "metadata" in params:
        made["metadata"] = metadata(params, made["metadata"])
    if given := text(inner(params, "invoice_settings"), "default_payment_method"):
        method = world.of("payment_method").get(given)
        if not created and (method is None or method["customer"] != made["id"]):
            raise invalid(
                f"The customer does not have a payment method with the ID {given}. The payment method must be attached"
                " to the customer.",
                "invoice_settings[default_payment_method]",
                "resource_missing",
            )
        if method:
            made["invoice_settings"]["default_payment_method"] = given


# --- products and prices


@call("POST", "/products")
def create_product(world: World, params: Json) -> Json:
    description = text(params, "description")
    made = objects.product(world, name=needed(params, "name"), description=description, metadata=metadata(params))
    world.emit("product.created", made)
    return made


@call("GET", "/products/:id")
def get_product(world: World, params: Json, given: str) -> Json:
    return world.get("product", given)


@call("POST", "/prices")
def create_price(world: World, params: Json) -> Json:
    recurring = inner(params, "recurring")
    if not (owner := text(params, "product")):
        name = needed(inner(params, "product_data"), "name")
        owner = objects.product(world, name=name)["id"]
    made = objects.price(
        world,
        amount=number(params, "unit_amount") or 0,
        currency=needed(params, "currency"),
        interval=text(recurring, "interval"),
        interval_count=number(recurring, "interval_count") or 1,
        metadata=metadata(params),
        nickname=text(params, "nickname"),
        product=world.get("product", owner, "product")["id"],
    )
    world.emit("price.created", made)
    world.emit("plan.created", objects.plan_of(made)) if made["recurring"] else None
    return made


@call("GET", "/prices/:id")
def get_price(world: World, params: Json, given: str) -> Json:
    return world.get("price", given)


@call("GET", "/prices")
def list_prices(world: World, params: Json) -> Json:
    return world.page("price", "/v1/prices", params, "product")


# --- events


@call("GET", "/events")
def list_events(world: World, params: Json) -> Json:
    wanted = texts(params, "types") or texts(params, "type")
    items = [event for event in reversed(world.of("event").values())
             if not wanted or any(_fits(event["type"], pattern) for pattern in wanted)]  # fmt: skip
    if (delivered := params.get("delivery_success")) is not None:
        items = [event for event in items if (event["pending_webhooks"] == 0) == (delivered == "true")]
    return world.page("event", "/v1/events", params, items=items)


def _fits(type_: str, pattern: str) -> bool:
    return type_ == pattern or (pattern.endswith("*") and type_.startswith(pattern[:-1]))


def given_of(params: Json, *names: str) -> dict[str, str]:
    return {name: value for name in names if (value := text(params, name)) is not None}


def get_by_id(kind: str, path: str) -> None:
    @call("GET", f"{path}/:id")
    def get(world: World, params: Json, given: str) -> Json:
        return world.get(kind, given)


get_by_id("event", "/events")
