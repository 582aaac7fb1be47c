"""The stand-in answers as Stripe does, as seen by Stripe's library."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import httpx
import pytest
import stripe

from tests.support.patience import HANG
from tests.support.stripe_standin import PRICE, Json, Receiver, StripeStandIn, receiving, start_stripe_standin

DAY = 86_400


@pytest.fixture
def receiver(stripe_standin: StripeStandIn) -> Iterator[Receiver]:
    with receiving() as receiver:
        stripe_standin.delivery(url=receiver.url)
        yield receiver
        stripe_standin.reset(webhook_url="")


@pytest.fixture
async def client(stripe_standin: StripeStandIn) -> AsyncIterator[stripe.StripeClient]:
    async with client_of(stripe_standin) as client:
        yield client


class client_of:  # noqa: N801 - reads as a function
    def __init__(self, server: StripeStandIn, **options: Any) -> None:
        self.http = stripe.AIOHTTPClient()
        self.client = stripe.StripeClient(
            "sk_test_123", http_client=self.http, base_addresses={"api": server.url}, **options
        )

    async def __aenter__(self) -> stripe.StripeClient:
        return self.client

    async def __aexit__(self, *_: object) -> None:
        await self.http.close_async()  # type: ignore[no-untyped-call]


async def customer(client: stripe.StripeClient) -> stripe.Customer:
    return await client.v1.customers.create_async({"email": "person@example.com", "metadata": {"user": "7"}})


async def session_for(client: stripe.StripeClient, customer: str, **more: Any) -> stripe.checkout.Session:
    parameters: Any = {
        "mode": "subscription",
        "customer": customer,
        "client_reference_id": "7",
        "line_items": [{"price": PRICE, "quantity": 1}],
        "success_url": "https://shop.example/done?session={CHECKOUT_SESSION_ID}",
        "cancel_url": "https://shop.example/",
        "metadata": {"user": "7"},
        "subscription_data": {"metadata": {"user": "7"}},
        **more,
    }
    if parameters["mode"] == "payment":
        del parameters["subscription_data"]
    return await client.v1.checkout.sessions.create_async(parameters)


async def subscribed(
    client: stripe.StripeClient, server: StripeStandIn, card: str = "visa", **more: Any
) -> stripe.Subscription:
    session = await session_for(client, (await customer(client)).id, **more)
    paid = server.pay(session.id, card)
    return await client.v1.subscriptions.retrieve_async(paid["subscription"])


# --- shapes


async def test_periods_are_on_items_and_the_subscription_of_an_invoice_is_its_parent(
    client: stripe.StripeClient, stripe_standin: StripeStandIn
) -> None:
    subscription = await subscribed(client, stripe_standin)
    [item] = subscription["items"].data
    assert subscription.status == "active"
    assert subscription.metadata["user"] == "7"
    assert 28 * DAY <= item.current_period_end - item.current_period_start <= 31 * DAY
    assert "current_period_end" not in subscription.to_dict()
    [invoice] = (await client.v1.invoices.list_async({"subscription": subscription.id, "status": "paid"})).data
    assert invoice.parent
    assert invoice.parent.subscription_details
    assert invoice.parent.subscription_details.subscription == subscription.id
    assert (invoice.amount_paid, invoice.billing_reason) == (999, "subscription_create")
    assert (await client.v1.invoices.list_async({"subscription": subscription.id, "status": "open"})).data == []


async def test_ids_carry_the_prefixes_of_stripe(client: stripe.StripeClient, stripe_standin: StripeStandIn) -> None:
    subscription = await subscribed(client, stripe_standin)
    stripe_standin.control("POST", "/disputes", {"of": subscription.id})
    prefixes = {event["object"].split("_")[0] for event in stripe_standin.events()}
    assert prefixes >= {"cus", "cs", "sub", "in", "pi", "ch", "pm", "dp"}


# --- calls


async def test_a_deleted_customer_is_three_fields_and_its_subscription_ends(
    client: stripe.StripeClient, stripe_standin: StripeStandIn
) -> None:
    subscription = await subscribed(client, stripe_standin)
    deleted = await client.v1.customers.delete_async(str(subscription.customer))
    assert deleted.to_dict() == {"id": subscription.customer, "object": "customer", "deleted": True}
    assert (await client.v1.customers.retrieve_async(deleted.id)).to_dict() == deleted.to_dict()
    assert (await client.v1.subscriptions.retrieve_async(subscription.id)).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.customers.delete_async(deleted.id)
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (404, "resource_missing", "id")
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await session_for(client, deleted.id)
    assert (refused.value.http_status, refused.value.param) == (400, "customer")


async def test_lists_are_newest_first_and_say_whether_there_is_more(client: stripe.StripeClient) -> None:
    owner = (await customer(client)).id
    made = [(await session_for(client, owner)).id for _ in range(3)]
    first = await client.v1.checkout.sessions.list_async({"customer": owner, "limit": 2})
    assert ([session.id for session in first.data], first.has_more) == (made[:0:-1], True)
    all_of_them = await client.v1.checkout.sessions.list_async({"customer": owner})
    assert ([session.id for session in all_of_them.data], all_of_them.has_more) == (made[::-1], False)


async def test_what_is_expanded_is_an_object_and_what_cannot_be_is_refused(
    client: stripe.StripeClient, stripe_standin: StripeStandIn
) -> None:
    subscription = await subscribed(client, stripe_standin)
    [found] = (
        await client.v1.subscriptions.list_async(
            {"customer": str(subscription.customer), "status": "all", "expand": ["data.latest_invoice"]}
        )
    ).data
    assert isinstance(found.latest_invoice, stripe.Invoice)
    assert found.latest_invoice.status == "paid"
    for wrong in ("data.nothing", "data.status", "nothing", "data.latest_invoice.total.cents"):
        with pytest.raises(stripe.InvalidRequestError, match="expand"):
            await client.v1.subscriptions.list_async({"expand": [wrong]})


async def test_subscriptions_are_listed_by_status(client: stripe.StripeClient, stripe_standin: StripeStandIn) -> None:
    subscription = await subscribed(client, stripe_standin)
    await client.v1.subscriptions.cancel_async(subscription.id)
    listed = {}
    statuses: list[Any] = ["all", "canceled", "active"]
    for status in statuses:
        parameters: Any = {"customer": str(subscription.customer), "status": status}
        listed[status] = len((await client.v1.subscriptions.list_async(parameters)).data)
    assert listed == {"all": 1, "canceled": 1, "active": 0}
    assert (await client.v1.subscriptions.list_async({"customer": str(subscription.customer)})).data == []


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"mode": "gift"}, "mode"),
        ({"line_items": []}, "line_items"),
        ({"line_items": [{"price": "price_of_nothing", "quantity": 1}]}, "line_items[0][price]"),
        ({"success_url": ""}, "success_url"),
        ({"cancel_url": "javascript:alert(1)"}, "cancel_url"),
        ({"expires_at": 1}, "expires_at"),
        ({"automatic_tax": {"enabled": True}}, "automatic_tax"),
    ],
)
async def test_a_checkout_that_stripe_would_refuse_is_refused(
    client: stripe.StripeClient, change: Json, param: str
) -> None:
    owner = (await customer(client)).id
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await session_for(client, owner, **change)
    assert (refused.value.http_status, refused.value.param) == (400, param)


@pytest.mark.parametrize(
    ("key", "path", "status"),
    [("", "customers", 401), ("pk_test_1", "customers", 401), ("sk_test_1", "planets", 404)],
)
def test_a_caller_without_a_key_is_refused_and_an_unknown_path_is_a_404(
    stripe_standin: StripeStandIn, key: str, path: str, status: int
) -> None:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    reply = httpx.get(f"{stripe_standin.url}/v1/{path}", headers=headers, trust_env=False, timeout=HANG)
    assert (reply.status_code, reply.json()["error"]["type"]) == (status, "invalid_request_error")
    assert reply.headers["Request-Id"].startswith("req_")


async def test_a_refund_is_given_once(client: stripe.StripeClient, stripe_standin: StripeStandIn) -> None:
    session = await session_for(client, (await customer(client)).id, mode="payment")
    stripe_standin.pay(session.id)
    stripe_standin.control("POST", "/refunds", {"of": session.id, "amount": 99})
    assert stripe_standin.control("POST", "/refunds", {"of": session.id})["amount"] == 900
    with pytest.raises(HTTPError) as refused:
        stripe_standin.control("POST", "/refunds", {"of": session.id})
    assert json.load(refused.value)["error"]["code"] == "charge_already_refunded"
    session = await client.v1.checkout.sessions.retrieve_async(
        session.id, {"expand": ["payment_intent.latest_charge", "line_items"]}
    )
    assert isinstance(session.payment_intent, stripe.PaymentIntent)
    assert isinstance(session.payment_intent.latest_charge, stripe.Charge)
    assert session.payment_intent.latest_charge.refunded


# --- the same key


async def test_the_same_key_gives_the_same_answer_once_done(
    client: stripe.StripeClient, stripe_standin: StripeStandIn
) -> None:
    options: stripe.RequestOptions = {"idempotency_key": "signup-7"}
    first = await client.v1.customers.create_async({"name": "One"}, options)
    again = await client.v1.customers.create_async({"name": "One"}, options)
    assert again.to_dict() == first.to_dict()
    assert again.last_response
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    with pytest.raises(stripe.IdempotencyError):
        await client.v1.customers.create_async({"name": "Two"}, options)
    stripe_standin.forward(days=2)
    assert (await client.v1.customers.create_async({"name": "Two"}, options)).id != first.id


async def test_the_same_key_while_it_runs_is_a_conflict(
    client: stripe.StripeClient, stripe_standin: StripeStandIn
) -> None:
    stripe_standin.fault("latency", seconds=2)
    options: stripe.RequestOptions = {"idempotency_key": "double-click"}
    outcomes = await asyncio.gather(
        *(client.v1.customers.create_async({"name": "One"}, options) for _ in range(2)), return_exceptions=True
    )
    [refused] = [one for one in outcomes if isinstance(one, stripe.StripeError)]
    assert (refused.http_status, "in-progress" in str(refused)) == (409, True)


async def test_what_was_refused_may_be_asked_better_with_the_same_key(client: stripe.StripeClient) -> None:
    options: stripe.RequestOptions = {"idempotency_key": "portal"}
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.billing_portal.sessions.create_async({"customer": "cus_nobody"}, options)
    owner = (await customer(client)).id
    assert (await client.v1.billing_portal.sessions.create_async({"customer": owner}, options)).customer == owner


@pytest.mark.parametrize("kind", [500, 503, "cut", "html"])
async def test_a_call_whose_answer_was_lost_is_done_once_however_often_it_is_retried(
    stripe_standin: StripeStandIn, kind: str | int
) -> None:
    stripe_standin.fault(kind, when="after", path="/v1/customers", times=2)
    async with client_of(stripe_standin, max_network_retries=3) as client:
        made = await client.v1.customers.create_async({"name": "One"})
    assert stripe_standin.counts() == {"POST /v1/customers": 3}
    assert [event["object"] for event in stripe_standin.events(type="customer.created")] == [made.id]


async def test_faults_are_stripes_errors(client: stripe.StripeClient, stripe_standin: StripeStandIn) -> None:
    errors: dict[str | int, type[stripe.StripeError]] = {
        401: stripe.AuthenticationError,
        403: stripe.PermissionError,
        429: stripe.RateLimitError,
        500: stripe.APIError,
        "broken_json": stripe.APIError,
        "cut": stripe.APIConnectionError,
    }
    for kind, error in errors.items():
        stripe_standin.fault(kind, times=2 if kind == "cut" else 1)  # aiohttp itself tries a read once more
        with pytest.raises(error):
            await client.v1.subscriptions.list_async()
    assert (await client.v1.subscriptions.list_async()).data == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/delivery", {"nonsense": 1}),
        ("POST", "/faults", {"kind": "earthquake"}),
        ("POST", "/clock", {"years": 1}),
        ("POST", "/refunds", {}),
        ("POST", "/events", ["no object"]),
    ],
)
def test_what_control_does_not_know_is_refused(
    stripe_standin: StripeStandIn, method: str, path: str, body: Any
) -> None:
    reply = httpx.request(method, f"{stripe_standin.url}/control{path}", json=body, trust_env=False)
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")


# --- a subscription's life


async def test_a_story_of_renewals_a_failing_card_and_the_end(
    client: stripe.StripeClient, stripe_standin: StripeStandIn
) -> None:
    subscription = await subscribed(client, stripe_standin, "fails_later")
    first_end = subscription["items"].data[0].current_period_end
    stripe_standin.control("POST", f"/customers/{subscription.customer}/card", {"card": "visa"})
    stripe_standin.forward(months=1, hours=2)
    subscription = await client.v1.subscriptions.retrieve_async(subscription.id, {"expand": ["latest_invoice"]})
    assert subscription["items"].data[0].current_period_start == first_end
    assert isinstance(subscription.latest_invoice, stripe.Invoice)
    assert (subscription.status, subscription.latest_invoice.status) == ("active", "paid")
    assert subscription.latest_invoice.billing_reason == "subscription_cycle"

    stripe_standin.control("POST", f"/customers/{subscription.customer}/card", {"card": "fails_later"})
    stripe_standin.forward(months=1, hours=2)
    subscription = await client.v1.subscriptions.retrieve_async(subscription.id)
    [unpaid] = (await client.v1.invoices.list_async({"subscription": subscription.id, "status": "open"})).data
    assert (subscription.status, unpaid.attempt_count) == ("past_due", 1)
    assert unpaid.next_payment_attempt

    stripe_standin.forward(days=16)
    subscription = await client.v1.subscriptions.retrieve_async(subscription.id)
    assert subscription.cancellation_details
    assert (subscription.status, subscription.cancellation_details.reason) == ("canceled", "payment_failed")
    types = [event["type"] for event in stripe_standin.events()]
    assert types.count("invoice.payment_failed") == 4
    assert types[-1] == "customer.subscription.deleted"


async def test_a_past_due_one_recovers_when_its_card_is_changed(
    client: stripe.StripeClient, stripe_standin: StripeStandIn
) -> None:
    subscription = await subscribed(client, stripe_standin, "fails_later")
    stripe_standin.forward(months=1, hours=2)
    assert (await client.v1.subscriptions.retrieve_async(subscription.id)).status == "past_due"
    stripe_standin.control("POST", f"/customers/{subscription.customer}/card", {"card": "visa"})
    stripe_standin.forward(days=4)
    assert (await client.v1.subscriptions.retrieve_async(subscription.id)).status == "active"


@pytest.mark.parametrize("end", ["unpaid", "past_due"])
async def test_dunning_may_end_otherwise(client: stripe.StripeClient, stripe_standin: StripeStandIn, end: str) -> None:
    stripe_standin.billing(dunning_end=end)
    subscription = await subscribed(client, stripe_standin, "fails_later")
    stripe_standin.forward(months=1, days=17)
    assert (await client.v1.subscriptions.retrieve_async(subscription.id)).status == end


async def test_one_that_is_cancelled_at_period_end_runs_until_then(
    client: stripe.StripeClient, stripe_standin: StripeStandIn
) -> None:
    subscription = await subscribed(client, stripe_standin)
    subscription = await client.v1.subscriptions.update_async(subscription.id, {"cancel_at_period_end": True})
    assert subscription.cancel_at == subscription["items"].data[0].current_period_end
    stripe_standin.forward(days=27)
    assert (await client.v1.subscriptions.retrieve_async(subscription.id)).status == "active"
    stripe_standin.forward(days=5)
    ended = await client.v1.subscriptions.retrieve_async(subscription.id)
    assert (ended.status, ended.ended_at) == ("canceled", subscription.cancel_at)
    assert len(stripe_standin.events(type="invoice.created")) == 1


async def test_a_trial_ends_in_a_payment(client: stripe.StripeClient, stripe_standin: StripeStandIn) -> None:
    stripe_standin.billing(trial_days=14)
    subscription = await subscribed(client, stripe_standin)
    assert subscription.status == "trialing"
    stripe_standin.forward(days=15)
    subscription = await client.v1.subscriptions.retrieve_async(subscription.id, {"expand": ["latest_invoice"]})
    assert isinstance(subscription.latest_invoice, stripe.Invoice)
    assert (subscription.status, subscription.latest_invoice.amount_paid) == ("active", 999)


async def test_a_month_that_is_too_short_ends_on_its_last_day(
    client: stripe.StripeClient, stripe_standin: StripeStandIn
) -> None:
    january = 2_000_000_000 - 2_000_000_000 % DAY
    while time.gmtime(january)[1:3] != (1, 31):
        january += DAY
    stripe_standin.forward(to=january)
    subscription = await subscribed(client, stripe_standin)
    ends = []
    for _ in range(3):
        subscription = await client.v1.subscriptions.retrieve_async(subscription.id)
        end = subscription["items"].data[0].current_period_end
        ends.append(time.gmtime(end)[1:3])
        stripe_standin.forward(to=end + 7200)
    assert ends in ([(2, 28), (3, 31), (4, 30)], [(2, 29), (3, 31), (4, 30)])


async def test_a_bank_debit_settles_later(client: stripe.StripeClient, stripe_standin: StripeStandIn) -> None:
    owner = (await customer(client)).id
    for succeed, status in ((True, "paid"), (False, "unpaid")):
        session = await session_for(client, owner, mode="payment")
        paid = stripe_standin.pay(session.id, "bank_debit")
        assert (paid["status"], paid["payment_status"]) == ("complete", "unpaid")
        stripe_standin.control("POST", f"/payments/{session.id}/settle", {"succeed": succeed})
        assert (await client.v1.checkout.sessions.retrieve_async(session.id)).payment_status == status
    types = [event["type"] for event in stripe_standin.events() if "async" in event["type"]]
    assert types == ["checkout.session.async_payment_succeeded", "checkout.session.async_payment_failed"]

    session = await session_for(client, owner)
    sub = stripe_standin.pay(session.id, "bank_debit")["subscription"]
    assert (await client.v1.subscriptions.retrieve_async(sub)).status == "active"
    stripe_standin.control("POST", f"/payments/{session.id}/settle", {"succeed": False})
    assert (await client.v1.subscriptions.retrieve_async(sub)).status != "active"


async def test_a_session_that_nobody_pays_expires(client: stripe.StripeClient, stripe_standin: StripeStandIn) -> None:
    owner = (await customer(client)).id
    forgotten, ended = await session_for(client, owner), await session_for(client, owner)
    await client.v1.checkout.sessions.expire_async(ended.id)
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.checkout.sessions.expire_async(ended.id)
    stripe_standin.forward(hours=25)
    listed = await client.v1.checkout.sessions.list_async({"customer": owner, "status": "expired"})
    assert {one.id for one in listed.data} == {forgotten.id, ended.id}
    assert [one.url for one in listed.data] == [None, None]


async def test_disputes_are_opened_and_closed(client: stripe.StripeClient, stripe_standin: StripeStandIn) -> None:
    subscription = await subscribed(client, stripe_standin)
    dispute = stripe_standin.control("POST", "/disputes", {"of": subscription.id})
    [found] = (await client.v1.disputes.list_async({"payment_intent": dispute["payment_intent"]})).data
    assert (found.id, found.status, found.amount) == (dispute["id"], "needs_response", 999)
    stripe_standin.control("POST", f"/disputes/{found.id}/close", {"won": False})
    assert stripe_standin.object(found.id)["status"] == "lost"


# --- events


async def test_events_are_signed_snapshots(
    client: stripe.StripeClient, receiver: Receiver, stripe_standin: StripeStandIn
) -> None:
    subscription = await subscribed(client, stripe_standin)
    await client.v1.subscriptions.update_async(
        subscription.id, {"cancel_at_period_end": True}, {"idempotency_key": "cancel-7"}
    )
    await stripe_standin.idle()
    created = receiver.event("customer.subscription.created")
    assert (created.data.object["id"], created.data.object["status"]) == (subscription.id, "incomplete")
    assert (created.object, created.livemode, created.api_version) == ("event", False, stripe.api_version)
    assert created.request
    assert created.request.id is None
    updates = [json.loads(body) for _, body in receiver.requests if '"customer.subscription.updated"' in body]
    [cancelled] = [one for one in updates if "cancel_at_period_end" in one["data"]["previous_attributes"]]
    assert cancelled["data"]["previous_attributes"]["cancel_at_period_end"] is False
    assert cancelled["request"]["idempotency_key"] == "cancel-7"
    assert {event["state"] for event in stripe_standin.events()} == {"delivered"}
    assert stripe_standin.object(created.id)["pending_webhooks"] == 0


async def test_signatures_are_of_real_time_and_objects_of_the_moved_clock(
    client: stripe.StripeClient, receiver: Receiver, stripe_standin: StripeStandIn
) -> None:
    stripe_standin.forward(months=5)
    await customer(client)
    await stripe_standin.idle()
    event = receiver.event("customer.created")
    assert event.created > time.time() + 100 * DAY
    [(headers, _)] = receiver.requests
    assert abs(int(headers["Stripe-Signature"].split(",")[0][2:]) - time.time()) < 60


async def test_what_is_not_taken_is_sent_again(
    client: stripe.StripeClient, receiver: Receiver, stripe_standin: StripeStandIn
) -> None:
    receiver.statuses = [500, 302, 400]
    await customer(client)
    await stripe_standin.idle()
    assert receiver.types == ["customer.created"] * 4
    [event] = stripe_standin.events()
    assert [attempt["status"] for attempt in event["attempts"]] == [500, 302, 400, 200]


async def test_deliveries_can_be_late_doubled_lost_and_shuffled(
    client: stripe.StripeClient, receiver: Receiver, stripe_standin: StripeStandIn
) -> None:
    stripe_standin.delivery(copies=3, delay=0.3)
    began = time.monotonic()
    await customer(client)
    await stripe_standin.idle()
    assert time.monotonic() - began >= 0.3
    assert receiver.types == ["customer.created"] * 3

    stripe_standin.delivery(copies=1, delay=0, lose=["customer.created"])
    receiver.requests.clear()
    subscription = await subscribed(client, stripe_standin)
    await stripe_standin.idle()
    assert "customer.created" not in receiver.types
    assert stripe_standin.events(type="customer.created", customer=str(subscription.customer))[0]["state"] == "lost"

    stripe_standin.delivery(lose=[], shuffle=4)
    receiver.requests.clear()
    happened = len(stripe_standin.events())
    await subscribed(client, stripe_standin)
    await stripe_standin.idle()
    in_order = [event["type"] for event in stripe_standin.events()[happened:]]
    assert sorted(receiver.types) == sorted(in_order)
    assert receiver.types != in_order


async def test_an_event_of_ones_own_can_be_sent(
    client: stripe.StripeClient, receiver: Receiver, stripe_standin: StripeStandIn
) -> None:
    subscription = await subscribed(client, stripe_standin)
    await stripe_standin.idle()
    receiver.requests.clear()
    forged = {"type": "customer.subscription.deleted", "object": subscription.id, "set": {"status": "canceled"}}
    stripe_standin.control("POST", "/events", forged | {"event": {"livemode": True}})
    await stripe_standin.idle()
    event = receiver.event("customer.subscription.deleted")
    assert (event.livemode, event.data.object["status"]) == (True, "canceled")
    assert (await client.v1.subscriptions.retrieve_async(subscription.id)).status == "active"


# --- pages


async def test_a_person_pays_on_the_page_after_a_declined_card(
    client: stripe.StripeClient, stripe_standin: StripeStandIn
) -> None:
    session = await session_for(client, (await customer(client)).id)
    assert session.url
    async with httpx.AsyncClient(trust_env=False, timeout=HANG) as browser:
        page = await browser.get(session.url)
        assert page.status_code == 200
        for words in ("no real money", "Gemini Pro", "USD 9.99 a month", "person@example.com", "4242"):
            assert words in page.text
        assert 'href="https://shop.example/"' in page.text
        who = {"email": "person@example.com", "name": "A <b>person</b>"}
        declined = await browser.post(session.url, data={**who, "card": "declined"})
        assert declined.status_code == 402
        assert "declined" in declined.text
        assert (await client.v1.checkout.sessions.retrieve_async(session.id)).status == "open"
        paid = await browser.post(session.url, data={**who, "card": "visa"})
        assert paid.status_code == 303
        assert paid.headers["location"] == f"https://shop.example/done?session={session.id}"
        again = await browser.post(session.url, data={**who, "card": "visa"})
        assert "has been paid" in again.text
    done = await client.v1.checkout.sessions.retrieve_async(session.id)
    assert (done.status, done.payment_status, done.client_reference_id) == ("complete", "paid", "7")
    assert len((await client.v1.subscriptions.list_async({"customer": str(done.customer)})).data) == 1


async def test_a_person_cancels_and_comes_back_in_the_portal(
    client: stripe.StripeClient, stripe_standin: StripeStandIn
) -> None:
    subscription = await subscribed(client, stripe_standin)
    portal = await client.v1.billing_portal.sessions.create_async(
        {"customer": str(subscription.customer), "return_url": "https://shop.example/account"}
    )
    async with httpx.AsyncClient(trust_env=False, follow_redirects=True, timeout=HANG) as browser:
        page = await browser.get(portal.url)
        assert "Gemini Pro" in page.text
        assert 'href="https://shop.example/account"' in page.text
        page = await browser.post(portal.url, data={"do": "cancel", "subscription": subscription.id})
        assert "Do not cancel" in page.text
        cancelled = await client.v1.subscriptions.retrieve_async(subscription.id)
        # As with Stripe's own portal in the flexible billing mode.
        assert (cancelled.cancel_at_period_end, bool(cancelled.cancel_at)) == (False, True)
        await browser.post(portal.url, data={"do": "resume", "subscription": subscription.id})
        assert (await client.v1.subscriptions.retrieve_async(subscription.id)).cancel_at is None
        page = await browser.post(portal.url, data={"do": "card", "card": "fails_later"})
        assert "ending in 0341" in page.text


async def test_a_person_looks_at_the_account_and_moves_its_clock(
    client: stripe.StripeClient, stripe_standin: StripeStandIn
) -> None:
    subscription = await subscribed(client, stripe_standin)
    bank_debit = stripe_standin.pay((await session_for(client, str(subscription.customer))).id, "bank_debit")
    intent = stripe_standin.object(bank_debit["invoice"])["_intent"]
    async with httpx.AsyncClient(trust_env=False, follow_redirects=True, timeout=HANG) as browser:
        account = await browser.get(stripe_standin.url)
        assert subscription.id in account.text
        assert intent in account.text
        account = await browser.post(stripe_standin.url, data={"do": "settle", "payment": intent})
        assert intent not in account.text
        account = await browser.post(stripe_standin.url, data={"do": "month"})
        assert "moved forward" in account.text
        assert (await browser.get(f"{stripe_standin.url}/c/pay/cs_test_none")).status_code == 404
    renewed = await client.v1.subscriptions.retrieve_async(subscription.id)
    assert renewed["items"].data[0].current_period_start == subscription["items"].data[0].current_period_end


# --- what lasts


async def test_the_account_outlives_the_process_and_undelivered_events_are_delivered(tmp_path: Path) -> None:
    arguments = ("--state", str(tmp_path / "stripe" / "account.json"))
    with receiving() as receiver:
        receiver.statuses = [500] * 1000
        with closing(start_stripe_standin(*arguments, "--webhook-url", receiver.url)) as first:
            server = next(first)
            async with client_of(server) as client:
                made = await client.v1.customers.create_async({"name": "One"}, {"idempotency_key": "k"})
                session = await session_for(client, made.id)
                assert session.url
                server.forward(hours=23)
                first_url = server.url
                now = server.control("GET", "/")["now"]
                await server.until(lambda events: all(event["attempts"] for event in events))
        receiver.statuses, receiver.requests = [], []
        with closing(start_stripe_standin(*arguments, "--webhook-url", receiver.url)) as second:
            server = next(second)
            async with client_of(server) as client:
                assert (await client.v1.customers.retrieve_async(made.id)).to_dict() == made.to_dict()
                assert (await client.v1.customers.create_async({"name": "One"}, {"idempotency_key": "k"})).id == made.id
                kept = await client.v1.checkout.sessions.retrieve_async(session.id)
                assert kept.url == session.url.replace(first_url, server.url)
            assert server.control("GET", "/")["now"] >= now
            await server.until(lambda events: all(event["state"] == "delivered" for event in events))
        assert receiver.types == ["customer.created"]


async def test_a_state_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """It has more options, and cards that are no longer offered."""
    state = tmp_path / "account.json"
    with closing(start_stripe_standin("--state", str(state))) as first:
        server = next(first)
        async with client_of(server) as client:
            subscription = await subscribed(client, server)
    saved = json.loads(state.read_text())
    saved["world"]["billing"] |= {"decline_next": 0, "portal_cancels_by": "cancel_at"}
    for method in saved["world"]["kinds"]["payment_method"].values():
        method["_card"] = "mastercard"
    state.write_text(json.dumps(saved))
    with closing(start_stripe_standin("--state", str(state))) as second:
        server = next(second)
        server.forward(months=1, hours=2)
        async with client_of(server) as client:
            renewed = await client.v1.subscriptions.retrieve_async(subscription.id)
    [item], [earlier] = renewed["items"].data, subscription["items"].data
    assert (renewed.status, item.current_period_start) == ("active", earlier.current_period_end)


async def test_a_state_that_cannot_be_read_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    (tmp_path / "account.json").write_text("{")
    with closing(start_stripe_standin("--state", str(tmp_path / "account.json"))) as servers:
        assert next(servers).control("GET", "/")["price"] == PRICE
    assert (tmp_path / "account.unreadable").read_text() == "{"
