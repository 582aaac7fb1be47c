"""The real adapter for Stripe, over real HTTP, against the stand-in."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
import stripe
from structlog.testing import capture_logs

from adapters.stripe.gateway import CheckoutPage, StripeGateway
from application.ports.billing import CheckoutState, CustomerGone, CustomerMismatched
from domain.billing import FOREVER, BillingAccount, Subscription, SubscriptionStatus
from domain.errors import PaymentsRefused, PaymentsUnavailable
from domain.ids import UserId
from tests.support.patience import HANG
from tests.support.stripe_standin import PRICE, SECRET, Json, StripeStandIn

KEY = "sk_test_what-nobody-may-read"
NAME = "Asha of the Gateway"
PAGE = CheckoutPage(
    price=PRICE,
    prices=frozenset({PRICE, "price_of_last_year"}),
    success_url="https://chat.example/?checkout=success",
    cancel_url="https://chat.example/?checkout=cancelled",
    portal_return_url="https://chat.example/",
)
SECONDS = 2.0


@asynccontextmanager
async def opened(
    standin: StripeStandIn, *, page: CheckoutPage = PAGE, key: str = KEY, seconds: float = SECONDS
) -> AsyncIterator[StripeGateway]:
    gateway = StripeGateway(key=key, webhook_secrets=[SECRET], page=page, api_base=standin.url, seconds=seconds)
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.close()


@pytest.fixture
async def gateway(stripe_standin: StripeStandIn) -> AsyncIterator[StripeGateway]:
    async with opened(stripe_standin) as gateway:
        yield gateway


@pytest.fixture
def user() -> UserId:
    return UserId(uuid4())


def rest(standin: StripeStandIn, method: str, path: str, **params: str) -> Json:
    """A call of Stripe's API that our adapter never makes, by its own names: **{"items[0][price]": …}."""
    request = Request(  # noqa: S310 - loopback
        f"{standin.url}/v1{path}",
        data=urlencode(params).encode() if params else None,
        method=method,
        headers={"Authorization": f"Bearer {KEY}"},
    )
    try:
        with urlopen(request, timeout=HANG) as response:  # noqa: S310
            reply: Json = json.load(response)
    except HTTPError as error:
        raise AssertionError(f"{method} {path}: {error.read()!r}") from None
    return reply


async def customer_of(gateway: StripeGateway, user: UserId, *, number: int = 0) -> str:
    return await gateway.create_customer(user, name=NAME, number=number)


async def subscribed(
    gateway: StripeGateway, standin: StripeStandIn, user: UserId, *, card: str = "visa"
) -> tuple[str, Json]:
    """The customer, and the checkout's session that was paid."""
    customer = await customer_of(gateway, user)
    checkout = await gateway.open_checkout(BillingAccount(user_id=user), customer)
    return customer, standin.pay(checkout.id, card)


async def the_one(gateway: StripeGateway, customer: str, user: UserId) -> Subscription:
    (found,) = await gateway.subscriptions(customer, user)
    return found


def former_checkout(standin: StripeStandIn, user: UserId, *, price: str = PRICE, by: str = "reference") -> Json:
    """A single payment, as the service before this one sold Pro."""
    named = {
        "reference": {"client_reference_id": str(user)},
        "metadata": {"metadata[userId]": str(user)},
        "nothing": {},
    }[by]
    return rest(
        standin,
        "POST",
        "/checkout/sessions",
        **{
            "mode": "payment",
            "line_items[0][price]": price,
            "line_items[0][quantity]": "1",
            "success_url": "https://former.example/success",
            **named,
        },
    )


async def look(gateway: StripeGateway, session: str, user: UserId) -> CheckoutState:
    state = await gateway.checkout(session, user)
    assert state is not None
    return state


def made(standin: StripeStandIn, kind: str) -> int:
    """How many objects of a kind there are."""
    return int(standin.control("GET", "/")["objects"].get(kind, 0))


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


# --- customers


async def test_a_customer_of_a_number_is_made_once(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    first = await customer_of(gateway, user)
    assert await customer_of(gateway, user) == first
    assert await customer_of(gateway, user, number=1) != first
    assert made(stripe_standin, "customer") == 2
    kept = stripe_standin.object(first)
    assert kept["name"] == NAME
    assert kept["metadata"] == {"user_id": str(user)}


async def test_a_customer_is_made_once_by_many_at_the_same_time(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    # Stripe refuses the same key while its first call runs; that is asked again.
    found = await asyncio.gather(*(customer_of(gateway, user) for _ in range(5)), return_exceptions=True)
    ids = {one for one in found if isinstance(one, str)}
    assert len(ids) == 1
    assert all(isinstance(one, str | PaymentsUnavailable) for one in found)
    assert made(stripe_standin, "customer") == 1


async def test_whoever_renames_themselves_after_a_crash_gets_a_customer_all_the_same(
    gateway: StripeGateway, user: UserId
) -> None:
    await customer_of(gateway, user)
    assert await gateway.create_customer(user, name="Another name", number=0)


# --- opening a checkout


async def test_a_checkout_is_what_was_asked_for(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    customer = await customer_of(gateway, user)
    before = datetime.now(UTC)
    checkout = await gateway.open_checkout(BillingAccount(user_id=user), customer)
    session = stripe_standin.object(checkout.id)
    assert checkout.url is not None
    assert checkout.url.startswith(stripe_standin.url)
    assert timedelta(hours=23, minutes=59) < checkout.expires_at - before < timedelta(hours=24, minutes=1)
    assert checkout.user_id == user
    assert not checkout.settled
    assert session["mode"] == "subscription"
    assert session["customer"] == customer
    assert session["client_reference_id"] == str(user)
    assert session["metadata"] == {"user_id": str(user)}
    assert session["success_url"] == PAGE.success_url
    assert session["cancel_url"] == PAGE.cancel_url
    assert session["allow_promotion_codes"] is None
    assert session["automatic_tax"]["enabled"] is False
    paid = stripe_standin.pay(checkout.id)
    assert stripe_standin.object(paid["subscription"])["metadata"] == {"user_id": str(user)}


async def test_a_repeated_checkout_is_the_same_one(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    customer, account = await customer_of(gateway, user), BillingAccount(user_id=user)
    first = await gateway.open_checkout(account, customer)
    assert await gateway.open_checkout(account, customer) == first
    second = await gateway.open_checkout(replace(account, checkout_count=1), customer)
    assert second.id != first.id
    assert made(stripe_standin, "checkout.session") == 2


async def test_promotion_codes_and_taxes_by_setting(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    customer, account = await customer_of(gateway, user), BillingAccount(user_id=user)
    plain = await gateway.open_checkout(account, customer)
    async with opened(
        stripe_standin, page=replace(PAGE, promotion_codes=True, automatic_tax=True)
    ) as after_a_deployment:
        # The same checkout with other settings: a key with other parameters would be refused for a day.
        checkout = await after_a_deployment.open_checkout(account, customer)
    assert checkout.id != plain.id
    session = stripe_standin.object(checkout.id)
    assert session["allow_promotion_codes"] is True
    assert session["automatic_tax"]["enabled"] is True


async def test_a_price_that_does_not_exist_is_reported_to_the_operator(
    stripe_standin: StripeStandIn, gateway: StripeGateway, user: UserId
) -> None:
    customer = await customer_of(gateway, user)
    async with opened(stripe_standin, page=replace(PAGE, price="price_nobody_made")) as wrong:
        with capture_logs() as logs, pytest.raises(PaymentsRefused):
            await wrong.open_checkout(BillingAccount(user_id=user), customer)
    assert [(line["event"], line["call"], line["code"]) for line in logs] == [
        ("payments_refused", "open_checkout", "resource_missing")
    ]


# --- a customer that is no more


@pytest.mark.parametrize(("how", "error"), [("deleted", CustomerGone), ("never there", PaymentsRefused)])
async def test_a_customer_that_is_gone(
    how: str, error: type[Exception], gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    """A customer that Stripe never had is not one that is gone: the key may be of another account."""
    if how == "deleted":
        customer, _ = await subscribed(gateway, stripe_standin, user)
        rest(stripe_standin, "DELETE", f"/customers/{customer}")
    else:
        customer = "cus_NeverThere0000"
    with pytest.raises(error):
        await gateway.open_checkout(BillingAccount(user_id=user, checkout_count=1), customer)
    with pytest.raises(error):
        await gateway.open_portal(customer)
    with pytest.raises(error):
        await gateway.subscriptions(customer, user)
    with pytest.raises(error):
        await gateway.delete_customer(customer)


async def test_a_customer_of_another_currency(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    customer, session = await subscribed(gateway, stripe_standin, user)
    rest(stripe_standin, "DELETE", f"/subscriptions/{session['subscription']}")
    stripe_standin.control("PATCH", f"/objects/{customer}", {"set": {"currency": "inr"}})
    again = BillingAccount(user_id=user, checkout_count=1)
    with capture_logs() as logs, pytest.raises(CustomerMismatched):
        await gateway.open_checkout(again, customer)
    (line,) = logs
    assert line["event"] == "payments_refused"
    assert line.keys() >= {"code", "param", "stripe_id"}
    assert line["stripe_id"].startswith("req_")
    other = await gateway.create_customer(user, name=NAME, number=1)
    assert (await gateway.open_checkout(again, other)).url


@pytest.mark.parametrize("behavior", ["void", "keep_as_draft", "mark_uncollectible"])
async def test_paused_collection_counts_what_was_paid_for(
    behavior: str, gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    customer, session = await subscribed(gateway, stripe_standin, user)
    paid_until = (await the_one(gateway, customer, user)).current_period_end
    paused = {"set": {"pause_collection": {"behavior": behavior, "resumes_at": None}}}
    stripe_standin.control("PATCH", f"/objects/{session['subscription']}", paused)
    found = await the_one(gateway, customer, user)
    assert (found.status, found.unpaid_from) == (SubscriptionStatus.ACTIVE, paid_until)
    stripe_standin.forward(months=1)
    stripe_standin.forward(days=2)
    found = await the_one(gateway, customer, user)
    assert (found.status, found.unpaid_from) == (SubscriptionStatus.ACTIVE, paid_until)
    assert found.pro_until({PRICE}) == paid_until
    stripe_standin.control("PATCH", f"/objects/{session['subscription']}", {"set": {"pause_collection": None}})
    assert (await the_one(gateway, customer, user)).pro_until({PRICE}) == FOREVER


async def test_the_portal(gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId) -> None:
    customer = await customer_of(gateway, user)
    assert (await gateway.open_portal(customer)).startswith(stripe_standin.url)
    (asked,) = [one for one in stripe_standin.requests() if one["path"] == "/v1/billing_portal/sessions"]
    assert asked["params"] == {"customer": customer, "return_url": PAGE.portal_return_url}


# --- reading a checkout


async def test_an_open_checkout(gateway: StripeGateway, user: UserId) -> None:
    customer = await customer_of(gateway, user)
    opened_one = await gateway.open_checkout(BillingAccount(user_id=user), customer)
    assert await look(gateway, opened_one.id, user) == CheckoutState(checkout=opened_one, customer_id=customer)


async def test_a_paid_or_expired_checkout_leads_nowhere(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    _, paid = await subscribed(gateway, stripe_standin, user)
    other = UserId(uuid4())
    expired = await gateway.open_checkout(BillingAccount(user_id=other), await customer_of(gateway, other))
    rest(stripe_standin, "POST", f"/checkout/sessions/{expired.id}/expire")
    for session, whose in ((paid["id"], user), (expired.id, other)):
        state = await look(gateway, session, whose)
        assert state.checkout.url is None
        assert state.checkout.settled
        assert state.payment is None, "a subscription's checkout reports no separate payment"


async def test_somebody_elses_checkout_is_none(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    _, paid = await subscribed(gateway, stripe_standin, user)
    single = former_checkout(stripe_standin, user)
    stripe_standin.pay(single["id"])
    stranger = UserId(uuid4())
    assert await gateway.checkout(paid["id"], stranger) is None
    assert await gateway.checkout(single["id"], stranger) is None
    with pytest.raises(PaymentsRefused):  # nor is it over: the key may be another account's
        await gateway.checkout("cs_test_of_nobody", user)
    nobodys = former_checkout(stripe_standin, user, by="nothing")
    assert await gateway.checkout(nobodys["id"], user) is None


async def test_a_checkout_of_the_other_mode_is_none(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    single = former_checkout(stripe_standin, user)
    stripe_standin.pay(single["id"])
    async with opened(stripe_standin, key="sk_live_what-nobody-may-read") as live:
        assert await live.checkout(single["id"], user) is None
    assert await gateway.checkout(single["id"], user) is not None


# --- a single payment, as the former service sold


@pytest.mark.parametrize("by", ["reference", "metadata"])
async def test_a_single_payment_is_a_subscription_without_a_period(
    by: str, gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    single = former_checkout(stripe_standin, user, by=by)
    state = await look(gateway, single["id"], user)
    assert (state.payment, state.checkout.settled) == (None, False), "not paid yet"

    stripe_standin.pay(single["id"])
    state = await look(gateway, single["id"], user)
    assert state.payment == Subscription(
        id=single["id"],
        user_id=user,
        status=SubscriptionStatus.ACTIVE,
        price_id=PRICE,
        created_at=at(single["created"]),
    )
    assert state.payment.pro_until(PAGE.prices) == FOREVER
    assert state.checkout.payment_intent_id is not None
    assert not state.checkout.settled, "the money may yet be given back"


async def test_a_single_payment_for_something_else(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    other = rest(
        stripe_standin,
        "POST",
        "/prices",
        **{"currency": "eur", "unit_amount": "100", "product_data[name]": "A sticker"},
    )
    single = former_checkout(stripe_standin, user, price=other["id"])
    stripe_standin.pay(single["id"])
    payment = (await look(gateway, single["id"], user)).payment
    assert payment is None or payment.pro_until(PAGE.prices) is None


async def test_a_payment_that_takes_its_time(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    for card, succeed in (("bank_debit", True), ("bank_debit_fails", False)):
        single = former_checkout(stripe_standin, user)
        stripe_standin.pay(single["id"], card)
        state = await look(gateway, single["id"], user)
        assert (state.payment, state.checkout.settled) == (None, False), "under way: looked at again"
        stripe_standin.control("POST", f"/payments/{single['id']}/settle", {"succeed": succeed})
        state = await look(gateway, single["id"], user)
        assert (state.payment is not None, state.checkout.settled) == (succeed, not succeed)


async def test_a_payment_given_back_in_full_ends_pro(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    single = former_checkout(stripe_standin, user)
    stripe_standin.pay(single["id"])
    stripe_standin.control("POST", "/refunds", {"of": single["id"], "amount": 100})
    payment = (await look(gateway, single["id"], user)).payment
    assert payment is not None
    assert payment.status is SubscriptionStatus.ACTIVE, "a part of it is a courtesy"

    stripe_standin.control("POST", "/refunds", {"of": single["id"]})
    state = await look(gateway, single["id"], user)
    assert state.payment is not None
    assert state.payment.status is SubscriptionStatus.CANCELED
    assert state.checkout.settled


@pytest.mark.parametrize("won", [True, False])
async def test_a_dispute_ends_pro_once_it_is_lost(
    won: bool, gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    single = former_checkout(stripe_standin, user)
    stripe_standin.pay(single["id"])
    dispute = stripe_standin.control("POST", "/disputes", {"of": single["id"]})
    payment = (await look(gateway, single["id"], user)).payment
    assert payment is not None
    assert payment.status is SubscriptionStatus.ACTIVE, "nothing is decided"

    stripe_standin.control("POST", f"/disputes/{dispute['id']}/close", {"won": won})
    payment = (await look(gateway, single["id"], user)).payment
    assert payment is not None
    assert payment.status is (SubscriptionStatus.ACTIVE if won else SubscriptionStatus.CANCELED)


# --- reading subscriptions


async def test_an_active_subscription(gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId) -> None:
    customer, session = await subscribed(gateway, stripe_standin, user)
    kept = stripe_standin.object(session["subscription"])
    found = await the_one(gateway, customer, user)
    assert found == Subscription(
        id=session["subscription"],
        user_id=user,
        status=SubscriptionStatus.ACTIVE,
        price_id=PRICE,
        created_at=at(kept["created"]),
        current_period_end=at(kept["items"]["data"][0]["current_period_end"]),
    )


async def test_all_that_a_customer_ever_had(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    customer, session = await subscribed(gateway, stripe_standin, user)
    rest(stripe_standin, "DELETE", f"/subscriptions/{session['subscription']}")
    again = await gateway.open_checkout(BillingAccount(user_id=user, checkout_count=1), customer)
    stripe_standin.pay(again.id)
    found = await gateway.subscriptions(customer, user)
    assert {one.status for one in found} == {SubscriptionStatus.ACTIVE, SubscriptionStatus.CANCELED}
    assert await gateway.subscriptions(await customer_of(gateway, UserId(uuid4())), UserId(uuid4())) == []


@pytest.mark.parametrize("status", list(SubscriptionStatus))
async def test_each_status(
    status: SubscriptionStatus, gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    customer, session = await subscribed(gateway, stripe_standin, user)
    stripe_standin.control("PATCH", f"/objects/{session['subscription']}", {"set": {"status": status.value}})
    assert (await the_one(gateway, customer, user)).status is status


async def test_a_status_of_a_later_api_is_no_reason_for_pro(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    customer, session = await subscribed(gateway, stripe_standin, user)
    stripe_standin.control("PATCH", f"/objects/{session['subscription']}", {"set": {"status": "meditating"}})
    found = await the_one(gateway, customer, user)
    assert found.status is SubscriptionStatus.UNPAID
    assert found.pro_until(PAGE.prices) is None


async def test_a_trial(gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId) -> None:
    stripe_standin.billing(trial_days=14)
    customer, _ = await subscribed(gateway, stripe_standin, user)
    found = await the_one(gateway, customer, user)
    assert found.status is SubscriptionStatus.TRIALING
    assert found.pro_until(PAGE.prices) == FOREVER


async def test_another_price_and_one_of_several(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    customer, session = await subscribed(gateway, stripe_standin, user)
    currency = stripe_standin.object(PRICE)["currency"]
    monthly = {"currency": currency, "unit_amount": "100", "recurring[interval]": "month"}
    other = rest(stripe_standin, "POST", "/prices", **monthly, **{"product_data[name]": "Socks"})
    items = stripe_standin.object(session["subscription"])["items"]
    items["data"][0]["price"] = other
    stripe_standin.control("PATCH", f"/objects/{session['subscription']}", {"set": {"items": items}})
    basket = rest(
        stripe_standin,
        "POST",
        "/checkout/sessions",
        **{
            "mode": "subscription",
            "customer": customer,
            "line_items[0][price]": other["id"],
            "line_items[1][price]": PRICE,
            "subscription_data[metadata][user_id]": str(user),
            "success_url": "https://shop.example/success",
        },
    )
    stripe_standin.pay(basket["id"])
    found = {one.id: one for one in await gateway.subscriptions(customer, user)}
    moved = found.pop(session["subscription"])
    assert (moved.price_id, moved.pro_until(PAGE.prices)) == (other["id"], None)
    (both,) = found.values()
    assert both.price_id == PRICE, "Pro is among what it is for"
    assert both.current_period_end is not None


async def test_subscriptions_that_name_somebody_else_or_nobody(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    customer, session = await subscribed(gateway, stripe_standin, user)
    for metadata, count in (({"user_id": str(uuid4())}, 0), ({}, 1), ({"user_id": "no id at all"}, 1)):
        stripe_standin.control("PATCH", f"/objects/{session['subscription']}", {"set": {"metadata": metadata}})
        assert len(await gateway.subscriptions(customer, user)) == count, metadata


async def test_subscriptions_of_the_other_mode_are_not_ours(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    customer, _ = await subscribed(gateway, stripe_standin, user)
    async with opened(stripe_standin, key="rk_live_what-nobody-may-read") as live:
        assert await live.subscriptions(customer, user) == []


@pytest.mark.parametrize("how", ["period end", "portal", "moment"])
async def test_one_that_is_to_end(
    how: str, gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    customer, session = await subscribed(gateway, stripe_standin, user)
    given: str = session["subscription"]
    ends = stripe_standin.object(given)["items"]["data"][0]["current_period_end"]
    if how == "period end":
        rest(stripe_standin, "POST", f"/subscriptions/{given}", cancel_at_period_end="true")
        stripe_standin.control("PATCH", f"/objects/{given}", {"set": {"cancel_at": None}})  # some API versions
    elif how == "portal":
        rest(stripe_standin, "POST", f"/subscriptions/{given}", cancel_at_period_end="true")
        stripe_standin.control("PATCH", f"/objects/{given}", {"set": {"cancel_at_period_end": False}})
    else:
        ends -= 86_400
        stripe_standin.control("PATCH", f"/objects/{given}", {"set": {"cancel_at": ends}})
    found = await the_one(gateway, customer, user)
    assert found.cancel_at == at(ends)
    assert found.pro_until(PAGE.prices) == at(ends)

    rest(stripe_standin, "POST", f"/subscriptions/{given}", cancel_at_period_end="false")
    if how == "moment":
        stripe_standin.control("PATCH", f"/objects/{given}", {"set": {"cancel_at": None}})
    assert (await the_one(gateway, customer, user)).cancel_at is None, "they have thought better of it"


async def test_past_due_counts_from_the_oldest_open_invoice(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    stripe_standin.billing(dunning_end="past_due")
    customer, session = await subscribed(gateway, stripe_standin, user, card="fails_later")
    stripe_standin.forward(months=1)
    stripe_standin.forward(hours=2)
    found = await the_one(gateway, customer, user)
    assert found.status is SubscriptionStatus.PAST_DUE
    oldest = stripe_standin.object(stripe_standin.object(session["subscription"])["latest_invoice"])
    assert oldest["status"] == "open"
    assert found.past_due_since == at(oldest["status_transitions"]["finalized_at"])

    stripe_standin.forward(months=2)
    newest = stripe_standin.object(session["subscription"])["latest_invoice"]
    assert newest != oldest["id"]
    assert (await the_one(gateway, customer, user)).past_due_since == found.past_due_since

    stripe_standin.control("POST", f"/customers/{customer}/card", {"card": "visa"})
    stripe_standin.control("POST", f"/invoices/{oldest['id']}/pay")
    since = (await the_one(gateway, customer, user)).past_due_since
    assert since is None or since > found.past_due_since, "what is paid is forgiven"


# --- Stripe away, slow or babbling

AWAY: list[tuple[str | int, dict[str, Any]]] = [
    (500, {}),
    (503, {}),
    (409, {}),
    (429, {}),
    ("hang", {}),
    ("latency", {"seconds": 30}),
    ("cut", {}),
    ("html", {}),
    ("broken_json", {}),
]


@pytest.mark.parametrize(("kind", "more"), AWAY, ids=[str(kind) for kind, _ in AWAY])
async def test_away_in_many_ways(
    kind: str | int, more: dict[str, Any], gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    customer, session = await subscribed(gateway, stripe_standin, user)
    stripe_standin.fault(kind, times=None, **more)
    account = BillingAccount(user_id=user, checkout_count=1)

    async def fails(call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(PaymentsUnavailable):
            await call()

    async with asyncio.timeout(HANG):
        await asyncio.gather(
            fails(lambda: gateway.subscriptions(customer, user)),
            fails(lambda: gateway.checkout(session["id"], user)),
            fails(lambda: gateway.open_checkout(account, customer)),
            fails(lambda: gateway.create_customer(user, name=NAME, number=1)),
            fails(lambda: gateway.open_portal(customer)),
        )
    stripe_standin.control("DELETE", "/faults")
    assert (await the_one(gateway, customer, user)).status is SubscriptionStatus.ACTIVE, "and back again"


@pytest.mark.parametrize("kind", [400, 401, 402, 403])
async def test_refused(kind: int, gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId) -> None:
    customer = await customer_of(gateway, user)
    for call in (
        lambda: gateway.subscriptions(customer, user),
        lambda: gateway.open_checkout(BillingAccount(user_id=user), customer),
        lambda: gateway.open_portal(customer),
    ):
        stripe_standin.fault(kind)
        with pytest.raises(PaymentsRefused):
            await call()


@pytest.mark.parametrize("kind", [500, 409, "cut", "html", "hang"])
async def test_one_that_stumbles_is_asked_again(
    kind: str | int, gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    when: list[Literal["before", "after"]] = ["before", "after"]
    for number, moment in enumerate(when):
        stripe_standin.fault(kind, when=moment)
        assert await customer_of(gateway, user, number=number)
    assert made(stripe_standin, "customer") == 2, "what was carried out, though nobody heard, is not done twice"


async def test_a_failure_of_stripes_own_is_not_asked_for_again(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    # Stripe keeps it under the idempotency key, for a day.
    for kind in (500, 503):
        stripe_standin.fault(kind, times=3)
        with pytest.raises(PaymentsUnavailable):
            await customer_of(gateway, user)
    assert await customer_of(gateway, user)
    keys = [one["idempotency_key"] for one in stripe_standin.requests()]
    assert [keys.count(key) for key in dict.fromkeys(keys)] == [3, 3, 1]
    # What was not heard is another matter: it may have been done.
    stripe_standin.fault("cut", times=3)
    with pytest.raises(PaymentsUnavailable):
        await customer_of(gateway, user, number=1)
    await customer_of(gateway, user, number=1)
    assert len({one["idempotency_key"] for one in stripe_standin.requests()[7:]}) == 1


async def test_calls_at_once_are_few(gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId) -> None:
    customer, _ = await subscribed(gateway, stripe_standin, user)
    stripe_standin.fault("latency", times=None, seconds=0.2)
    await asyncio.gather(*(gateway.open_portal(customer) for _ in range(24)))
    moments = sorted(one["at"] for one in stripe_standin.requests() if one["path"].startswith("/v1/billing_portal"))
    assert len(moments) == 24
    assert moments[8] - moments[0] > 0.15, "the ninth waits until one of the first eight has ended"
    assert moments[16] - moments[0] > 0.3


# --- what is left behind


async def test_nothing_of_a_person_and_no_key_is_logged(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId, caplog: pytest.LogCaptureFixture
) -> None:
    with capture_logs() as logs:
        customer, session = await subscribed(gateway, stripe_standin, user)
        await gateway.subscriptions(customer, user)
        await gateway.checkout(session["id"], user)
        stripe_standin.control("DELETE", "/faults")
        for kind in (500, 401, 402, "cut", "broken_json"):
            stripe_standin.fault(kind, times=3)
            with pytest.raises((PaymentsUnavailable, PaymentsRefused)):
                await gateway.create_customer(user, name=NAME, number=1)
            stripe_standin.control("DELETE", "/faults")
    assert {line["event"] for line in logs} == {"payments_unavailable", "payments_refused"}
    # Stripe's library tells everything at lower levels; telemetry.py does not let it.
    written = [str(logs), *(record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)]
    for secret in (KEY, NAME, SECRET, session["id"]):
        assert not any(secret in line for line in written), secret


async def test_closing_one_that_never_called_or_never_started(stripe_standin: StripeStandIn) -> None:
    async with opened(stripe_standin):
        pass
    await StripeGateway(
        key=KEY, webhook_secrets=[SECRET], page=PAGE, api_base=stripe_standin.url, seconds=SECONDS
    ).close()


# --- what Stripe tells, with events as they are really made


async def test_every_event_of_a_life_names_whose_it_is(
    gateway: StripeGateway, stripe_standin: StripeStandIn, user: UserId
) -> None:
    customer, session = await subscribed(gateway, stripe_standin, user, card="fails_later")
    stripe_standin.forward(months=1)
    stripe_standin.forward(days=20)
    single = former_checkout(stripe_standin, user)
    stripe_standin.pay(single["id"])
    intent = stripe_standin.object(single["id"])["payment_intent"]
    stripe_standin.control("POST", "/refunds", {"of": single["id"]})
    rest(stripe_standin, "DELETE", f"/customers/{customer}")

    seen: dict[str, set[str | None]] = {}
    now = datetime.now(UTC)
    for happened in stripe_standin.events():
        event = stripe_standin.object(happened["id"])
        body = json.dumps(event).encode()
        header = stripe.WebhookSignature.generate_signature_header(body.decode(), SECRET)
        read = gateway.read_event(body, header, now=now)
        if read is None:
            continue
        assert read.id == event["id"]
        if read.customer_id is None:
            assert intent in (read.payment_intent_id, event["data"]["object"]["id"])
        else:
            assert read.customer_id == customer
        seen.setdefault(event["type"], set()).add(read.checkout_id)
        assert read.user_id == (user if read.checkout_id else None)
    assert seen == {
        "checkout.session.completed": {session["id"], single["id"]},
        "customer.subscription.created": {None},
        "customer.subscription.updated": {None},
        "customer.subscription.deleted": {None},
        "invoice.paid": {None},
        "invoice.payment_failed": {None},
        "charge.refunded": {None},
        "customer.deleted": {None},
    }
