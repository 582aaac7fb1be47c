"""The pages for a browser: Checkout, the customer portal, and the account with its clock."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from pathlib import Path

from sanic import Blueprint, HTTPResponse, Request, html, redirect

from local.standin import Json
from local.stripe.account import Account
from local.stripe.calendar import DAY, months_after
from local.stripe.checkout import pay, settle_payment
from local.stripe.clock import advance
from local.stripe.control import change_card
from local.stripe.errors import StripeError
from local.stripe.invoices import LIVE
from local.stripe.payments import CARDS, card_named, default_method
from local.stripe.service import StandIn
from local.stripe.subscriptions import plan_cancellation

_PAGE = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
_SHOWN = 30


def pages(stand_in: StandIn) -> Blueprint:
    blueprint = Blueprint("pages")
    account = stand_in.account

    @blueprint.get("/c/pay/<session_id:str>")
    async def checkout(_: Request, session_id: str) -> HTTPResponse:
        return _checkout(account, account.get("checkout.session", session_id))

    @blueprint.post("/c/pay/<session_id:str>")
    async def pay_checkout(request: Request, session_id: str) -> HTTPResponse:
        session = account.get("checkout.session", session_id)
        if session["status"] != "open":
            return _checkout(account, session)
        card, email, name = _field(request, "card") or "visa", _field(request, "email"), _field(request, "name")
        try:
            pay(account, session, card_named(card), email=email, name=name)
        except StripeError as error:
            return _checkout(account, session, error=str(error))
        return redirect(_success_url(session), status=303)

    @blueprint.get("/p/session/<session_id:str>")
    async def portal(_: Request, session_id: str) -> HTTPResponse:
        return _portal(account, account.get("billing_portal.session", session_id))

    @blueprint.post("/p/session/<session_id:str>")
    async def change(request: Request, session_id: str) -> HTTPResponse:
        session = account.get("billing_portal.session", session_id)
        customer, action = account.get("customer", session["customer"], "customer"), _field(request, "do")
        if action == "card":
            change_card(account, customer, _field(request, "card") or "visa")
        for sub in account.where("subscription", id=_field(request, "subscription"), customer=customer["id"]):
            if action in ("cancel", "resume") and sub["status"] in LIVE:
                plan_cancellation(account, sub, at_period_end=action == "cancel", flagged=False)
        return redirect(f"/p/session/{session_id}", status=303)

    @blueprint.get("/")
    async def overview(_: Request) -> HTTPResponse:
        return _overview(stand_in)

    @blueprint.post("/")
    async def act(request: Request) -> HTTPResponse:
        action = _field(request, "do")
        if action in ("day", "month"):
            advance(account, account.now + DAY if action == "day" else months_after(account.now, 1))
        elif action in ("settle", "bounce"):
            intent = account.get("payment_intent", _field(request, "payment") or "")
            settle_payment(account, intent, succeed=action == "settle")
        return redirect("/", status=303)

    return blueprint


def error_page(error: StripeError) -> HTTPResponse:
    return _page("Not possible", f"<p class=error role=alert>{escape(str(error))}</p>", error.status)


def _checkout(account: Account, session: Json, error: str | None = None) -> HTTPResponse:
    rows = "".join(
        f"<tr><td>{escape(line['description'])}<td>{line['quantity']}<td>{_price(line['price'])}"
        for line in session["_line_items"]
    )
    bought = f"<table><tr><th>Product<th>Quantity<th>Price{rows}</table>"
    if session["status"] == "complete":
        return _page("Checkout", f"{bought}<p>This has been paid.{_link(_success_url(session), 'Continue')}")
    if session["status"] == "expired":
        expired = "This Checkout has expired. Start again where you came from."
        return _page("Checkout", f"{bought}<p>{expired}{_link(session['cancel_url'], 'Go back')}")
    customer = account.table("customer").get(session["customer"] or "", {})
    email, name = (escape(customer.get(field) or "") for field in ("email", "name"))
    verb = "Subscribe" if session["mode"] == "subscription" else "Pay"
    body = f"""{bought}
{f"<p class=error role=alert>{escape(error)}" if error else ""}
<form method=post>
  <label>E-mail <input name=email type=email autocomplete=email value="{email}"></label>
  <label>Name on the card <input name=name autocomplete=cc-name value="{name}"></label>
  {_cards()}
  <button>{verb} {_amount(session["amount_total"], session)}</button>
</form>
{_link(session["cancel_url"], "Cancel and go back")}"""
    return _page("Checkout", body, 402 if error else 200)


def _portal(account: Account, session: Json) -> HTTPResponse:
    customer = account.get("customer", session["customer"], "customer")
    method = default_method(account, customer)
    card = f"{method['type']} ending in {method[method['type']]['last4']}" if method else "no card"
    live = [sub for sub in account.where("subscription", customer=customer["id"]) if sub["status"] in LIVE]
    body = f"""<p>{escape(customer["name"] or customer["email"] or customer["id"])}, paying with {escape(card)}.
{"".join(_subscription(account, sub) for sub in live) or "<p>There is no subscription."}
<h2>Change the card</h2>
<form method=post>{_cards()}<button name=do value=card>Use this card from now on</button></form>
{_link(session["return_url"], "Go back")}"""
    return _page("Your subscription", body)


def _subscription(account: Account, sub: Json) -> str:
    item = sub["items"]["data"][0]
    name = account.table("product")[item["price"]["product"]]["name"]
    if sub["cancel_at"]:
        text, button = f"Ends on {_date(sub['cancel_at'])}.", "<button name=do value=resume>Do not cancel</button>"
    else:
        text = f"Renews on {_date(item['current_period_end'])}."
        button = "<button name=do value=cancel>Cancel at the end of the period</button>"
    return f"""<h2>{escape(name)}</h2>
<p>{_price(item["price"])}, {sub["status"].replace("_", " ")}. {text}
<form method=post><input type=hidden name=subscription value="{sub["id"]}">{button}</form>"""


def _overview(stand_in: StandIn) -> HTTPResponse:
    account = stand_in.account
    processing = "".join(
        f"<div><code>{intent['id']}</code>, {_amount(intent['amount'], intent)}, is being processed:"
        " <form class=inline method=post>"
        f'<input type=hidden name=payment value="{intent["id"]}"><button name=do value=settle>Settle</button>'
        "<button name=do value=bounce>Let it fail</button></form></div>"
        for intent in account.where("payment_intent", status="processing")
    )
    events = "".join(
        f"<tr><td>{escape(delivery.type)}<td>{delivery.state}<td>{len(delivery.attempts)}"
        for delivery in list(stand_in.dispatcher.deliveries.values())[: -_SHOWN - 1 : -1]
    )
    subs = "".join(
        f"<tr><td><code>{sub['id']}</code><td>{sub['status']}<td>{_date(sub['items']['data'][0]['current_period_end'])}"
        for sub in list(account.where("subscription"))[-_SHOWN:]
    )
    body = f"""<p>Its clock says {_date(account.now)}{" (moved forward)" if account.offset >= 1 else ""}.
<form method=post>
  <button name=do value=day>A day later</button><button name=do value=month>A month later</button>
</form>
{processing}
<h2>Subscriptions</h2><table><tr><th>Id<th>Status<th>Period ends{subs}</table>
<h2>Events</h2><table><tr><th>Type<th>Delivery<th>Attempts{events}</table>"""
    return _page("Stripe's stand-in", body)


def _page(title: str, body: str, status: int = 200) -> HTTPResponse:
    page = _PAGE.replace("{{title}}", escape(title)).replace("{{body}}", body)
    return html(page, status, headers={"Cache-Control": "no-store"})


def _cards() -> str:
    choices = "".join(
        f"<label><input type=radio name=card value={card.name}{' checked' if card.name == 'visa' else ''}>"
        f" {escape(card.label)} <code>{card.number}</code></label>"
        for card in CARDS.values()
    )
    return f"<fieldset><legend>Pay with a test card</legend>{choices}</fieldset>"


def _link(url: str | None, text: str) -> str:
    return f'<p><a href="{escape(url)}">{text}</a>' if url else ""


def _price(price: Json) -> str:
    return _amount(price["unit_amount"] or 0, price) + (" a month" if price["recurring"] else "")


def _amount(amount: int, item: Json) -> str:
    return f"{item['currency'].upper()} {amount / 100:.2f}"


def _date(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%-d %B %Y")


def _success_url(session: Json) -> str:
    url: str = session["success_url"]
    return url.replace("{CHECKOUT_SESSION_ID}", session["id"])


def _field(request: Request, name: str) -> str | None:
    return (request.form.get(name) if request.form else None) or None
