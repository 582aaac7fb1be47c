"""/control: the calls for tests and for people who try things out. The package's docstring lists them."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, replace

from sanic import Blueprint, HTTPResponse, Request

from local.standin import Json, json_response, object_in
from local.stripe import invoices
from local.stripe.account import Account
from local.stripe.calendar import DAY, HOUR, months_after
from local.stripe.checkout import pay, settle_payment
from local.stripe.clock import advance
from local.stripe.errors import missing
from local.stripe.payments import (
    card_named,
    close_dispute,
    create_method,
    open_dispute,
    refund,
    set_default_method,
)
from local.stripe.service import StandIn


def control(stand_in: StandIn) -> list[Blueprint]:
    sections = (_settings, _events, _payments, _disputes, _objects, _faults)
    blueprints = [Blueprint(f"control-{section.__name__}", url_prefix="/control") for section in sections]
    for section, blueprint in zip(sections, blueprints, strict=True):
        section(blueprint, stand_in)
    return blueprints


def _settings(blueprint: Blueprint, stand_in: StandIn) -> None:
    account, dispatcher = stand_in.account, stand_in.dispatcher

    def overview() -> HTTPResponse:
        return json_response(
            {
                "now": account.now,
                "ahead": math.floor(account.offset),
                "price": account.price,
                "billing": asdict(account.billing),
                "delivery": asdict(dispatcher.options) | {"secret": "…" if dispatcher.options.secret else ""},
                "objects": {kind: len(items) for kind, items in account.objects.items()},
            }
        )

    @blueprint.get("/")
    async def show(_: Request) -> HTTPResponse:
        return overview()

    @blueprint.post("/reset")
    async def reset(_: Request) -> HTTPResponse:
        stand_in.reset()
        return json_response({})

    @blueprint.put("/delivery")
    async def change_delivery(request: Request) -> HTTPResponse:
        dispatcher.change(object_in(request))
        return overview()

    @blueprint.put("/billing")
    async def change_billing(request: Request) -> HTTPResponse:
        account.billing = replace(account.billing, **object_in(request))
        account.changes += 1
        return overview()

    @blueprint.post("/clock")
    async def move_clock(request: Request) -> HTTPResponse:
        done = advance(account, _moment(account, object_in(request)))
        return json_response({"now": account.now, "done": done})


def _events(blueprint: Blueprint, stand_in: StandIn) -> None:
    account, dispatcher = stand_in.account, stand_in.dispatcher

    @blueprint.get("/events")
    async def list_events(request: Request) -> HTTPResponse:
        events = [dispatcher.as_json(delivery) for delivery in dispatcher.deliveries.values()]
        filters = {name: request.args.get(name) for name in ("type", "state", "object", "customer")}
        found = [event for event in events if all(value in (None, event[name]) for name, value in filters.items())]
        return json_response({"events": found})

    @blueprint.post("/events")
    async def send_event(request: Request) -> HTTPResponse:
        body = object_in(request)
        item = body["object"]
        item = copy.deepcopy(_object(account, item)) if isinstance(item, str) else item
        if body.get("thin"):
            return json_response(account.emit_thin(body["type"], item), 201)
        event = account.emit(body["type"], item | body.get("set", {}))
        event.update(body.get("event", {}))
        return json_response(event, 201)

    @blueprint.post("/events/idle")
    async def wait_until_idle(request: Request) -> HTTPResponse:
        return json_response({"idle": await dispatcher.idle(float(object_in(request).get("seconds", 10)))})


def _payments(blueprint: Blueprint, stand_in: StandIn) -> None:
    account = stand_in.account

    @blueprint.post("/checkout/<session_id:str>/pay")
    async def pay_checkout(request: Request, session_id: str) -> HTTPResponse:
        body = object_in(request)
        session, card = account.get("checkout.session", session_id), card_named(body.get("card", "visa"))
        return _shown(account, pay(account, session, card, email=body.get("email"), name=body.get("name")))

    @blueprint.post("/payments/<of:str>/settle")
    async def settle(request: Request, of: str) -> HTTPResponse:
        succeed = bool(object_in(request).get("succeed", True))
        return _shown(account, settle_payment(account, _intent(account, of), succeed=succeed))

    @blueprint.post("/customers/<customer_id:str>/card")
    async def set_card(request: Request, customer_id: str) -> HTTPResponse:
        customer = account.get("customer", customer_id)
        change_card(account, customer, object_in(request).get("card", "visa"))
        return _shown(account, customer)

    @blueprint.post("/invoices/<invoice_id:str>/pay")
    async def pay_invoice(_: Request, invoice_id: str) -> HTTPResponse:
        invoice = account.get("invoice", invoice_id)
        invoices.pay(account, invoice)
        return _shown(account, invoice)


def _disputes(blueprint: Blueprint, stand_in: StandIn) -> None:
    account = stand_in.account

    @blueprint.post("/refunds")
    async def give_back(request: Request) -> HTTPResponse:
        body = object_in(request)
        return _shown(account, refund(account, _charge(account, body["of"]), body.get("amount")))

    @blueprint.post("/disputes")
    async def dispute(request: Request) -> HTTPResponse:
        return _shown(account, open_dispute(account, _charge(account, object_in(request)["of"])))

    @blueprint.post("/disputes/<dispute_id:str>/close")
    async def close(request: Request, dispute_id: str) -> HTTPResponse:
        won = bool(object_in(request).get("won", False))
        return _shown(account, close_dispute(account, account.get("dispute", dispute_id), won=won))


def _objects(blueprint: Blueprint, stand_in: StandIn) -> None:
    account = stand_in.account

    @blueprint.get("/objects/<object_id:str>")
    async def read_object(_: Request, object_id: str) -> HTTPResponse:
        return json_response(_object(account, object_id))

    @blueprint.patch("/objects/<object_id:str>")
    async def patch_object(request: Request, object_id: str) -> HTTPResponse:
        body, item = object_in(request), _object(account, object_id)
        with account.change(item, *([body["emit"]] if body.get("emit") else [])):
            item.update(body["set"])
        return json_response(item)


def _faults(blueprint: Blueprint, stand_in: StandIn) -> None:
    @blueprint.post("/faults")
    async def add_fault(request: Request) -> HTTPResponse:
        stand_in.faults.add(object_in(request))
        return json_response({}, 201)

    @blueprint.delete("/faults")
    async def clear_faults(_: Request) -> HTTPResponse:
        stand_in.faults.rules.clear()
        return json_response({})

    @blueprint.get("/requests")
    async def list_requests(request: Request) -> HTTPResponse:
        return json_response(stand_in.requests.as_json(int(request.args.get("limit", 100))))

    @blueprint.delete("/requests")
    async def clear_requests(_: Request) -> HTTPResponse:
        stand_in.requests.clear()
        return json_response({})


def change_card(account: Account, customer: Json, name: str) -> None:
    """The customer and its subscriptions pay with this card from now on."""
    method = create_method(account, card_named(name))
    set_default_method(account, customer, method)
    for sub in account.where("subscription", customer=customer["id"]):
        if sub["status"] in invoices.LIVE:
            with account.change(sub, "customer.subscription.updated"):
                sub["default_payment_method"] = method["id"]


def _shown(account: Account, item: Json) -> HTTPResponse:
    return json_response(account.shown(item))


def _moment(account: Account, by: Json) -> int:
    if unknown := by.keys() - {"to", "months", "days", "hours", "seconds"}:
        raise TypeError(f"the clock moves by months, days, hours, seconds, or to a time; not by {', '.join(unknown)}")
    moment = months_after(int(by.get("to", account.now)), int(by.get("months", 0)))
    seconds = sum(float(by.get(name, 0)) * size for name, size in (("days", DAY), ("hours", HOUR), ("seconds", 1)))
    return int(moment + seconds)


def _object(account: Account, object_id: str) -> Json:
    found = account.find(object_id)
    if found is None:
        raise missing("object", object_id)
    return found


def _intent(account: Account, of: str) -> Json:
    """The payment intent of a checkout session, an invoice or a subscription, or the intent itself."""
    found = _object(account, of)
    invoice_id = found.get("latest_invoice") or found.get("invoice")
    if invoice_id:
        found = account.get("invoice", invoice_id)
    return account.get("payment_intent", found.get("_intent") or found.get("payment_intent") or found["id"])


def _charge(account: Account, of: str) -> Json:
    return account.get("charge", _intent(account, of)["latest_charge"] or "")
