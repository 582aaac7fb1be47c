"""The pages of Stripe's stand-in for a browser: Checkout, customer portal, invoice, and what the account holds."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape

from sanic import Blueprint, HTTPResponse, Request, html, redirect

from local.stripe import invoices as invoices
from local.stripe.calendar import DAY, months_after
from local.stripe.checkout import pay, settle_payment
from local.stripe.clock import advance
from local.stripe.control import change_card
from local.stripe.faults import Json, StripeError
from local.stripe.money import CARDS, card_named, default_method
from local.stripe.standin import StandIn
from local.stripe.subscriptions import LIVE, plan_cancellation
from local.stripe.world import World

_WITHOUT_CENTS = ("jpy", "krw", "vnd", "clp", "xaf", "xof")
_STYLE = """
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 36rem; margin: 0 auto; padding: 1rem }
.note { border: 2px solid #b45309; border-radius: .5rem; padding: .5rem 1rem }
.error { border-left: .3rem solid #b91c1c; padding-left: 1rem }
fieldset { border: 1px solid #888; border-radius: .5rem; margin: 1rem 0 }
label { display: block; padding: .2rem 0 }
input:not([type=radio]) { display: block; width: 100%; box-sizing: border-box; font: inherit; padding: .4rem }
button { font: inherit; padding: .5rem 1rem; margin: .2rem .4rem .2rem 0; cursor: pointer }
form.inline { display: inline }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .2rem .6rem .2rem 0 }
code { font-size: .9em; overflow-wrap: anywhere }
"""


def pages(stand_in: StandIn) -> Blueprint:
    room = Blueprint("pages")
    world = stand_in.world

    @room.get("/c/pay/<given:str>")
    async def checkout(_: Request, given: str) -> HTTPResponse:
        return _checkout(world, world.get("checkout.session", given))

    @room.post("/c/pay/<given:str>")
    async def pay_checkout(request: Request, given: str) -> HTTPResponse:
        session = world.get("checkout.session", given)
        if session["status"] != "open":
            return _checkout(world, session)
        email, name = _field(request, "email"), _field(request, "name")
        try:
            pay(world, session, card_named(_field(request, "card") or "visa"), email=email, name=name)
        except StripeError as error:
            return _checkout(world, session, error=error.body["error"]["message"])
        return redirect(_success_url(session), status=303)

    @room.get("/p/session/<given:str>")
    async def portal(_: Request, given: str) -> HTTPResponse:
        return _portal(world, world.get("billing_portal.session", given))

    @room.post("/p/session/<given:str>")
    async def change(request: Request, given: str) -> HTTPResponse:
        session = world.get("billing_portal.session", given)
        owner = world.get("customer", session["customer"], "customer")
        wanted = _field(request, "do")
        if wanted == "card":
            change_card(world, owner, _field(request, "card") or "visa")
        for sub in world.where("subscription", id=_field(request, "subscription"), customer=owner["id"]):
            if wanted in ("cancel", "resume") and sub["status"] in LIVE:
                flagged = world.billing.portal_cancels_by == "cancel_at_period_end"
                plan_cancellation(world, sub, at_period_end=wanted == "cancel", flagged=flagged)
        return redirect(f"/p/session/{given}", status=303)

    @room.get("/i/<given:str>")
    async def invoice(_: Request, given: str) -> HTTPResponse:
        return _invoice(world.get("invoice", given))

    @room.post("/i/<given:str>")
    async def pay_invoice(request: Request, given: str) -> HTTPResponse:
        found = world.get("invoice", given)
        change_card(world, world.get("customer", found["customer"]), _field(request, "card") or "visa")
        invoices.pay(world, found, default_method(world, world.get("customer", found["customer"])), present=True)
        return redirect(f"/i/{given}", status=303)

    @room.get("/")
    async def account(_: Request) -> HTTPResponse:
        return _account(stand_in)

    @room.post("/")
    async def act(request: Request) -> HTTPResponse:
        wanted = _field(request, "do")
        if wanted in ("day", "month"):
            advance(world, world.now + DAY if wanted == "day" else months_after(world.now, 1))
        elif wanted in ("settle", "bounce"):
            intent = world.get("payment_intent", _field(request, "payment") or "")
            settle_payment(world, intent, succeed=wanted == "settle")
        return redirect("/", status=303)

    return room


def refusal(error: StripeError) -> HTTPResponse:
    message = error.body["error"]["message"]
    return _page("Not possible", f"<p class=error role=alert>{escape(message)}</p>", error.status)


def _checkout(world: World, session: Json, error: str | None = None) -> HTTPResponse:
    lines = session["_line_items"]
    rows = "".join(
        f"<tr><td>{escape(line['description'])}<td>{line['quantity']}<td>{_price(line['price'])}" for line in lines
    )
    bought = f"<table><tr><th>Product<th>Quantity<th>Price{rows}</table>"
    if session["status"] != "open":
        paid = session["status"] == "complete"
        target, words = (_success_url(session), "Go on") if paid else (session["cancel_url"], "Go back")
        text = "This has been paid." if paid else "This Checkout has expired; begin again where you came from."
        link = f'<p><a href="{escape(target)}">{words}</a>' if target else ""
        return _page("Checkout", f"{bought}<p>{text}{link}")
    owner = world.of("customer").get(session["customer"] or "", {})
    email = session["customer_email"] or owner.get("email") or ""
    back, verb = session["cancel_url"], "Subscribe" if session["mode"] == "subscription" else "Pay"
    body = f"""{bought}
{f"<p class=error role=alert>{escape(error)}" if error else ""}
<form method=post>
  <label>E-mail <input name=email type=email autocomplete=email value="{escape(email)}"></label>
  <label>Name on the card <input name=name autocomplete=cc-name value="{escape(owner.get("name") or "")}"></label>
  {_cards()}
  <button>{verb} {_amount(session["amount_total"], session)}</button>
</form>
{f'<p><a href="{escape(back)}">Cancel and go back</a>' if back else ""}"""
    return _page("Checkout", body, 402 if error else 200)


def _portal(world: World, session: Json) -> HTTPResponse:
    owner = world.get("customer", session["customer"], "customer")
    method = default_method(world, owner)
    card = f"{method['type']} ending in {method[method['type']]['last4']}" if method else "no card"
    subs = [sub for sub in world.where("subscription", customer=owner["id"]) if sub["status"] in LIVE]
    back = session["return_url"]
    body = f"""<p>{escape(owner["name"] or owner["email"] or owner["id"])}, paying with {escape(card)}.
{"".join(_subscription(world, sub) for sub in subs) or "<p>There is no subscription."}
<h2>Change the card</h2>
<form method=post>{_cards()}<button name=do value=card>Use this card from now on</button></form>
{f'<p><a href="{escape(back)}">Go back</a>' if back else ""}"""
    return _page("Your subscription", body)


def _subscription(world: World, sub: Json) -> str:
    item = sub["items"]["data"][0]
    name = world.of("product")[item["price"]["product"]]["name"]
    if sub["cancel_at"]:
        words, button = f"Ends on {_date(sub['cancel_at'])}.", "<button name=do value=resume>Do not cancel</button>"
    else:
        words = f"Renews on {_date(item['current_period_end'])}."
        button = "<button name=do value=cancel>Cancel at the end of the period</button>"
    return f"""<h2>{escape(name)}</h2>
<p>{_price(item["price"])}, {sub["status"].replace("_", " ")}. {words}
<form method=post><input type=hidden name=subscription value="{sub["id"]}">{button}</form>"""


def _invoice(invoice: Json) -> HTTPResponse:
    form = f"<form method=post>{_cards()}<button>Pay {_amount(invoice['amount_remaining'], invoice)}</button></form>"
    words = f"<p>{_amount(invoice['total'], invoice)}, {invoice['status']}."
    return _page(f"Invoice {invoice['number'] or ''}", words + (form if invoice["status"] == "open" else ""))


def _account(stand_in: StandIn) -> HTTPResponse:
    world, courier = stand_in.world, stand_in.courier
    waiting = "".join(
        f"<div><code>{intent['id']}</code> {_amount(intent['amount'], intent)} is under way:"
        " <form class=inline method=post>"
        f'<input type=hidden name=payment value="{intent["id"]}"><button name=do value=settle>Settle</button>'
        "<button name=do value=bounce>Let it fail</button></form></div>"
        for intent in world.where("payment_intent", status="processing")
    )
    letters = list(courier.letters.values())[-30:]
    events = "".join(
        f"<tr><td>{escape(letter.type)}<td>{letter.state}<td>{len(letter.attempts)}" for letter in reversed(letters)
    )
    subs = "".join(
        f"<tr><td><code>{sub['id']}</code><td>{sub['status']}<td>{_date(sub['items']['data'][0]['current_period_end'])}"
        for sub in list(world.where("subscription"))[-30:]
    )
    body = f"""<p>Its clock says {_date(world.now)}{" (moved forward)" if world.offset >= 1 else ""}.
<form method=post>
  <button name=do value=day>A day later</button><button name=do value=month>A month later</button>
</form>
{waiting}
<h2>Subscriptions</h2><table><tr><th>Id<th>Status<th>Period ends{subs}</table>
<h2>Events</h2><table><tr><th>Type<th>Delivery<th>Attempts{events}</table>"""
    return _page("Stripe's stand-in", body)


def _page(title: str, body: str, status: int = 200) -> HTTPResponse:
    return html(
        f"""<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width, initial-scale=1">
<title>{escape(title)} (stand-in)</title><style>{_STYLE}</style>
<body><main><p class=note>This is a stand-in for Stripe on this machine: <strong>no real money moves</strong>.
<h1>{escape(title)}</h1>
{body}
</main></body></html>""",
        status,
        headers={"Cache-Control": "no-store"},
    )


def _cards() -> str:
    choices = "".join(
        f"<label><input type=radio name=card value={card.name}{' checked' if not at else ''}>"
        f" {escape(card.label)} <code>{card.number}</code></label>"
        for at, card in enumerate(CARDS)
    )
    return f"<fieldset><legend>Pay with a test card</legend>{choices}</fieldset>"


def _price(price: Json) -> str:
    every = price["recurring"]
    count = every["interval_count"] if every else 1
    period = f" every {count} {every['interval']}s" if count > 1 else f" a {every['interval']}" if every else ""
    return _amount(price["unit_amount"] or 0, price) + period


def _amount(amount: int, of: Json) -> str:
    currency = of["currency"]
    return f"{currency.upper()} {amount if currency in _WITHOUT_CENTS else f'{amount / 100:.2f}'}"


def _date(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%-d %B %Y")


def _success_url(session: Json) -> str:
    url: str = session["success_url"]
    return url.replace("{CHECKOUT_SESSION_ID}", session["id"])


def _field(request: Request, name: str) -> str | None:
    form = request.form
    return (form.get(name) if form else None) or None
