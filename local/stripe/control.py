"""/control: what tests and the curious tell Stripe's stand-in and ask of it. The table of calls is in stripe.py."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, replace
from typing import Any

from sanic import Blueprint, HTTPResponse, Request
from sanic import json as json_response

from local.stripe.calendar import DAY, HOUR, months_after
from local.stripe.checkout import expire, pay, settle_payment
from local.stripe.clock import advance
from local.stripe.events import Letter
from local.stripe.faults import Json, StripeError, invalid
from local.stripe.invoices import pay as pay_invoice_now
from local.stripe.money import (
    card_named,
    close_dispute,
    make_method,
    make_refund,
    open_dispute,
    set_default_method,
)
from local.stripe.objects import plan_of
from local.stripe.standin import StandIn
from local.stripe.subscriptions import LIVE
from local.stripe.world import World, shuffled


def control(stand_in: StandIn) -> Blueprint:
    room = Blueprint("control", url_prefix="/control")
    world, courier = stand_in.world, stand_in.courier

    def settings() -> HTTPResponse:
        delivery = asdict(courier.settings) | {"secret": "…" if courier.settings.secret else ""}
        return json_response(
            {
                "now": world.now,
                "ahead": math.floor(world.offset),
                "price": world.price,
                "billing": asdict(world.billing),
                "delivery": delivery,
                "objects": {kind: len(items) for kind, items in world.kinds.items()},
            }
        )

    @room.get("/")
    async def overview(_: Request) -> HTTPResponse:
        return settings()

    @room.post("/reset")
    async def reset(_: Request) -> HTTPResponse:
        stand_in.reset()
        return json_response({})

    @room.put("/delivery")
    async def change_delivery(request: Request) -> HTTPResponse:
        courier.change(**_given(request))
        return settings()

    @room.put("/billing")
    async def change_billing(request: Request) -> HTTPResponse:
        world.billing = replace(world.billing, **_given(request))
        world.changes += 1
        return settings()

    @room.post("/clock")
    async def move_clock(request: Request) -> HTTPResponse:
        done = advance(world, _moment(world, _given(request)))
        return json_response({"now": world.now, "done": done})

    # --- events

    @room.get("/events")
    async def read_events(request: Request) -> HTTPResponse:
        rows = [courier.as_json(letter) for letter in courier.letters.values()]
        filters = {name: request.args.get(name) for name in ("type", "state", "object", "customer")}
        found = [row for row in rows if all(value in (None, row[name]) for name, value in filters.items())]
        return json_response({"events": found})

    @room.post("/events")
    async def send_event(request: Request) -> HTTPResponse:
        given = _given(request)
        item = given["object"]
        item = copy.deepcopy(_object(world, item)) if isinstance(item, str) else item
        event = world.emit(given["type"], item | given.get("set", {}), given.get("previous"))
        event.update(given.get("event", {}))
        return json_response(event, 201)

    @room.post("/events/release")
    async def release(request: Request) -> HTTPResponse:
        given = _given(request)
        held = [letter for letter in courier.letters.values() if letter.state == "held"]
        if types := given.get("types"):
            held = [letter for letter in held if letter.type in types]
        sent = await courier.release(_ordered(held, given, courier.letters), int(given.get("copies", 1)))
        return json_response({"events": [courier.as_json(letter) for letter in sent]})

    @room.post("/events/idle")
    async def idle(request: Request) -> HTTPResponse:
        quiet = await courier.idle(float(_given(request).get("seconds", 10)))
        return json_response({"idle": quiet})

    @room.post("/events/<event:str>/send")
    async def send_again(request: Request, event: str) -> HTTPResponse:
        given = _given(request)
        letter = courier.letters.get(event)
        if letter is None:
            raise invalid(f"No such event: '{event}'")
        options = {name: given[name] for name in ("signed_ago", "secret") if name in given}
        done = [await courier.send(letter, **options) for _ in range(int(given.get("copies", 1)))]
        return json_response({"attempts": [asdict(attempt) for attempt in done]})

    # --- what happens at a checkout, at a bank, to a card

    @room.post("/checkout/<session:str>/pay")
    async def pay_checkout(request: Request, session: str) -> HTTPResponse:
        given = _given(request)
        found = world.get("checkout.session", session)
        card = card_named(given.get("card", "visa"))
        return _reply(world, pay(world, found, card, email=given.get("email"), name=given.get("name")))

    @room.post("/checkout/<session:str>/expire")
    async def expire_checkout(_: Request, session: str) -> HTTPResponse:
        return _reply(world, expire(world, world.get("checkout.session", session)))

    @room.post("/payments/<given:str>/settle")
    async def settle(request: Request, given: str) -> HTTPResponse:
        intent = world.get("payment_intent", _payment(world, given))
        return _reply(world, settle_payment(world, intent, succeed=bool(_given(request).get("succeed", True))))

    @room.post("/customers/<customer:str>/card")
    async def set_card(request: Request, customer: str) -> HTTPResponse:
        change_card(world, world.get("customer", customer), _given(request).get("card", "visa"))
        return _reply(world, world.get("customer", customer))

    @room.post("/subscriptions/<sub:str>")
    async def change_subscription(request: Request, sub: str) -> HTTPResponse:
        found, given = world.get("subscription", sub), _given(request)
        price = world.get("price", given["price"])
        with world.change(found, "customer.subscription.updated"):
            for item in found["items"]["data"]:
                item.update(price=world.shown(price), plan=plan_of(price))
        return _reply(world, found)

    @room.post("/invoices/<invoice:str>/pay")
    async def pay_invoice(_: Request, invoice: str) -> HTTPResponse:
        pay_invoice_now(world, found := world.get("invoice", invoice))
        return _reply(world, found)

    @room.post("/refunds")
    async def refund(request: Request) -> HTTPResponse:
        given = _given(request)
        made = make_refund(world, _charge(world, given["of"]), given.get("amount"), reason=given.get("reason"))
        return _reply(world, made)

    @room.post("/disputes")
    async def dispute(request: Request) -> HTTPResponse:
        given = _given(request)
        about = {"reason": given.get("reason", "fraudulent"), "inquiry": bool(given.get("inquiry", False))}
        return _reply(world, open_dispute(world, _charge(world, given["of"]), **about))

    @room.post("/disputes/<dispute:str>/close")
    async def end_dispute(request: Request, dispute: str) -> HTTPResponse:
        found = world.get("dispute", dispute)
        return _reply(world, close_dispute(world, found, won=bool(_given(request).get("won", False))))

    # --- anything at all

    @room.get("/objects/<given:str>")
    async def read_object(_: Request, given: str) -> HTTPResponse:
        return json_response(_object(world, given))

    @room.patch("/objects/<given:str>")
    async def patch_object(request: Request, given: str) -> HTTPResponse:
        change = _given(request)
        with world.change(found := _object(world, given), *([change["emit"]] if change.get("emit") else [])):
            found.update(change["set"])
        return json_response(found)

    # --- faults and what was asked

    @room.post("/faults")
    async def add_fault(request: Request) -> HTTPResponse:
        stand_in.faults.add(_given(request))
        return json_response({}, 201)

    @room.delete("/faults")
    async def clear_faults(_: Request) -> HTTPResponse:
        stand_in.faults.rules.clear()
        return json_response({})

    @room.get("/requests")
    async def read_requests(request: Request) -> HTTPResponse:
        return json_response(stand_in.requests.as_json(int(request.args.get("limit", 100))))

    @room.delete("/requests")
    async def forget_requests(_: Request) -> HTTPResponse:
        stand_in.requests.reset()
        return json_response({})

    return room


def change_card(world: World, customer: Json, card: str) -> None:
    """The next payments of the customer and of its subscriptions are made with this one."""
    method = make_method(world, card_named(card))
    set_default_method(world, customer, method)
    for sub in world.where("subscription", customer=customer["id"]):
        if sub["default_payment_method"] and sub["status"] in LIVE:
            with world.change(sub, "customer.subscription.updated"):
                sub["default_payment_method"] = method["id"]


def _given(request: Request) -> Json:
    given = request.json if request.body else {}
    if not isinstance(given, dict):
        raise TypeError("the body is an object")
    return given


def _reply(world: World, item: Json) -> HTTPResponse:
    return json_response(world.shown(item))


def _moment(world: World, given: Json) -> int:
    moment = int(given.get("to", world.now))
    if "months" in given:
        moment = months_after(moment, int(given["months"]))
    seconds = sum(float(given.get(name, 0)) * size for name, size in (("days", DAY), ("hours", HOUR), ("seconds", 1)))
    if unknown := set(given) - {"to", "months", "days", "hours", "seconds"}:
        raise TypeError(f"a clock is moved by months, days, hours, seconds, or to a time; not by {', '.join(unknown)}")
    return int(moment + seconds)


def _ordered(held: list[Letter], given: Json, letters: dict[str, Letter]) -> list[Letter]:
    order: Any = given.get("order", "first")
    if isinstance(order, list):  # ids, or types of which the oldest held one is meant
        chosen = []
        for name in order:
            found = letters.get(name) or next((one for one in held if one.type == name and one not in chosen), None)
            if found is None:
                raise ValueError(f"nothing is held that is {name}")
            chosen.append(found)
        return chosen
    if order == "shuffled":
        return shuffled(held, int(given.get("seed", 0)))
    if order not in ("first", "last"):
        raise ValueError("order is first, last, shuffled, or a list of ids or types")
    return held if order == "first" else held[::-1]


def _object(world: World, given: str) -> Json:
    if (found := world.find(given)) is None:
        raise StripeError(404, "invalid_request_error", f"No such object: '{given}'", code="resource_missing")
    return found


def _payment(world: World, given: str) -> str:
    """The payment intent of a checkout session, an invoice, a subscription or itself."""
    found = _object(world, given)
    if found["object"] == "subscription":
        found = world.get("invoice", found["latest_invoice"])
    if found["object"] == "checkout.session" and found["invoice"]:
        found = world.get("invoice", found["invoice"])
    intent = found.get("_intent") or found.get("payment_intent") or found["id"]
    return str(intent)


def _charge(world: World, given: str) -> Json:
    """The charge of any of those, or itself."""
    if given in world.of("charge"):
        return world.get("charge", given)
    return world.get("charge", world.get("payment_intent", _payment(world, given))["latest_charge"] or "")
