"""Billing over HTTP: subscribing, the status, the portal and the webhook, with a Stripe whose answers are set."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from dependency_injector import providers
from stripe import WebhookSignature

from adapters.memory.billing import MemoryPaymentGateway
from application.ports.billing import CheckoutState, PaymentEvent
from domain.billing import Checkout, Subscription, SubscriptionStatus
from domain.errors import PaymentsRefused, PaymentsUnavailable
from domain.ids import UserId
from entrypoints.container import Container
from entrypoints.http.server.app import create_app
from entrypoints.settings import Settings
from tests.support.http_client import Person, http_client, sign_up
from tests.support.patience import HANG
from tests.support.ports import free_port
from tests.support.processes import api_process
from tests.support.served import served

PRICE = "price_pro"
SECRET = "whsec_1"
STRIPE = {"STRIPE_SECRET_KEY": "sk_test_1", "STRIPE_PRICE_ID": PRICE, "STRIPE_WEBHOOK_SECRET": SECRET}
LIMIT, JSON_LIMIT = 524_288, 65_536
SIGNED = {"Stripe-Signature": "signed"}


class Shop:
    """The API, in this process, and what Stripe knows behind it."""

    def __init__(self, container: Container, gateway: MemoryPaymentGateway, url: str, http: httpx.AsyncClient) -> None:
        self.container = container
        self.gateway = gateway
        self.url = url
        self.http = http

    async def post(self, body: bytes, *, path: str = "/webhook/stripe", **headers: str) -> httpx.Response:
        return await self.http.post(path, content=body, headers={**SIGNED, **headers})

    def event(self, **about: Any) -> bytes:
        event = PaymentEvent(id=f"evt_{uuid4().hex}", **about)
        self.gateway.events[event.id] = event
        return event.id.encode()

    async def read(self, person: Person) -> bool:
        """What a worker does when it is notified."""
        return await self.container.sync_subscriptions()(user_id=UserId(UUID(person.id)))

    async def subscribe(self, person: Person) -> httpx.Response:
        return await person.ask("POST", "/subscribe/pro", {})

    async def has(self, person: Person, **changes: Any) -> None:
        """The person has paid, and Stripe says so."""
        user_id = UserId(UUID(person.id))
        values = {
            "id": f"sub_{person.id}",
            "user_id": user_id,
            "status": SubscriptionStatus.ACTIVE,
            "price_id": PRICE,
            "created_at": datetime.now(UTC),
        }
        customer_id = f"cus_{user_id.hex}_0"
        self.gateway.customers[customer_id] = [Subscription(**{**values, **changes})]
        checkout = Checkout(id=f"cs_{person.id}", user_id=user_id, expires_at=datetime.now(UTC), settled=True)
        self.gateway.states[checkout.id] = CheckoutState(checkout=checkout, customer_id=customer_id)
        notice = self.event(customer_id=customer_id, checkout_id=checkout.id, user_id=user_id)
        assert (await self.post(notice)).status_code == 200
        assert await self.read(person)


@pytest.fixture(scope="module")
async def shop(container: Container, environment: dict[str, str]) -> AsyncIterator[Shop]:
    settings = Settings.from_environment({**environment, **STRIPE, "RATE_LIMITS": "off", "REQUEST_SECONDS": "60"})
    own, gateway = Container(settings=settings), MemoryPaymentGateway(container.clock())
    # One process has one connection to Postgres by Tortoise: the container's, which is open.
    for name in ("postgres", "redis", "job_sender", "reply_stream"):
        getattr(own, name).override(providers.Object(getattr(container, name)()))
    own.resources.override(providers.Object([]))
    own.payment_gateway.override(providers.Object(gateway))
    async with served(create_app(settings, own, name="billing")) as url, http_client(url) as http:
        yield Shop(own, gateway, url, http)


@pytest.fixture(autouse=True)
def _stripe_is_well(request: pytest.FixtureRequest) -> None:
    if "shop" in request.fixturenames:
        request.getfixturevalue("shop").gateway.error = None


@pytest.fixture
async def buyer(shop: Shop) -> Person:
    return await sign_up(shop.http)


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    problem = response.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["requestId"] == response.headers["x-request-id"]
    assert ("retry-after" in response.headers) == (status == 503)


class TestSubscribing:
    async def test_gives_the_url_of_a_checkout(self, shop: Shop, buyer: Person) -> None:
        reply = await shop.subscribe(buyer)
        assert reply.status_code == 200
        assert reply.json().keys() == {"url"}
        assert reply.json()["url"].startswith("https://pay.test/")

    @pytest.mark.parametrize("path", ["/subscribe/pro", "/subscribe/pro/"])
    @pytest.mark.parametrize("body", [b"", b"{}", b'{"anything": 1}'])
    async def test_takes_any_body_and_a_trailing_slash(self, buyer: Person, path: str, body: bytes) -> None:
        headers = {"Authorization": f"Bearer {buyer.token}", "Content-Type": "application/json"}
        assert (await buyer.http.post(path, content=body, headers=headers)).status_code == 200

    async def test_many_at_once_get_the_same(self, shop: Shop, buyer: Person) -> None:
        shop.gateway.calls.clear()
        replies = await asyncio.gather(*(shop.subscribe(buyer) for _ in range(50)))
        assert Counter(reply.status_code for reply in replies) == {200: 50}
        assert len({reply.json()["url"] for reply in replies}) == 1
        assert Counter(shop.gateway.calls) == {"create_customer": 1, "open_checkout": 1}

    async def test_with_an_idempotency_key_the_reply_is_replayed(self, shop: Shop, buyer: Person) -> None:
        headers = {"Idempotency-Key": f"buy-{buyer.id}"}
        first = await buyer.ask("POST", "/subscribe/pro", {}, headers=headers)
        shop.gateway.error = PaymentsUnavailable()
        again = await buyer.ask("POST", "/subscribe/pro/", {}, headers=headers)
        assert (again.status_code, again.content) == (200, first.content)
        assert again.headers["idempotency-replayed"] == "true"
        other = await buyer.ask("POST", "/subscribe/pro", {"other": 1}, headers=headers)
        assert_problem(other, 422, "idempotency_key_reused")

    async def test_a_failure_does_not_use_up_the_key(self, shop: Shop, buyer: Person) -> None:
        headers = {"Idempotency-Key": f"buy-{buyer.id}"}
        for error, status, code in (
            (PaymentsUnavailable(), 503, "payments_unavailable"),
            (PaymentsRefused(), 502, "payments_refused"),
        ):
            shop.gateway.error = error
            assert_problem(await buyer.ask("POST", "/subscribe/pro", {}, headers=headers), status, code)
        shop.gateway.error = None
        assert (await buyer.ask("POST", "/subscribe/pro", {}, headers=headers)).status_code == 200
        await shop.has(buyer)
        other = {"Idempotency-Key": f"again-{buyer.id}"}
        for _ in range(2):
            refused = await buyer.ask("POST", "/subscribe/pro", {}, headers=other)
            assert_problem(refused, 409, "already_subscribed")
            assert "idempotency-replayed" not in refused.headers

    @pytest.mark.parametrize("status", ["active", "past_due", "unpaid", "paused"])
    async def test_a_subscriber_gets_no_second_subscription(self, shop: Shop, buyer: Person, status: str) -> None:
        assert (await shop.subscribe(buyer)).status_code == 200
        await shop.has(buyer, status=SubscriptionStatus(status), past_due_since=datetime(2026, 1, 1, tzinfo=UTC))
        assert_problem(await shop.subscribe(buyer), 409, "already_subscribed")

    @pytest.mark.parametrize("call", ["POST /subscribe/pro", "GET /subscription/status", "POST /subscription/portal"])
    async def test_requires_a_login(self, shop: Shop, call: str) -> None:
        method, path = call.split()
        assert_problem(await shop.http.request(method, path), 401, "token_missing")
        bad = await shop.http.request(method, path, headers={"Authorization": "Bearer no"})
        assert_problem(bad, 401, "token_invalid")


class TestStatus:
    @pytest.mark.parametrize("path", ["/subscription/status", "/subscription/status/"])
    async def test_of_whom_nothing_is_known(self, buyer: Person, path: str) -> None:
        reply = await buyer.get(path)
        assert reply["message"]
        nothing = {"tier": "Basic", "status": None, "currentPeriodEnd": None, "cancelAtPeriodEnd": False}
        assert reply["data"] == nothing

    async def test_follows_what_stripe_says(self, shop: Shop, buyer: Person) -> None:
        end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
        iso = end.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        for status, cancel_at, tier in (
            ("incomplete", None, "Basic"),
            ("active", None, "Pro"),
            ("active", end, "Pro"),
            ("active", datetime.now(UTC) - timedelta(seconds=1), "Basic"),
            ("past_due", None, "Pro"),
            ("unpaid", None, "Basic"),
            ("canceled", end, "Basic"),
        ):
            since = datetime.now(UTC) - timedelta(days=6)
            period = {"current_period_end": end, "cancel_at": cancel_at, "past_due_since": since}
            await shop.has(buyer, status=SubscriptionStatus(status), **period)
            data = (await buyer.get("/subscription/status"))["data"]
            assert data == {
                "tier": tier, "status": status, "currentPeriodEnd": iso, "cancelAtPeriodEnd": cancel_at is not None,
            }  # fmt: skip
            assert (await buyer.get("/user/me"))["data"]["subscriptionTier"] == tier

    async def test_with_pro_the_allowance_is_lifted_at_once(self, shop: Shop, buyer: Person) -> None:
        room = await buyer.room()
        for _ in range(5):
            await buyer.send(room, "Why?")
        path = f"/chatroom/{room}/message"
        assert_problem(await buyer.ask("POST", path, {"input": "Why?"}), 403, "quota_exceeded")
        await shop.has(buyer)
        accepted = await buyer.ask("POST", path, {"input": "Why?"})
        assert accepted.status_code == 202
        assert accepted.json()["remainingMessages"] == "unlimited"


class TestPortal:
    @pytest.mark.parametrize("path", ["/subscription/portal", "/subscription/portal/"])
    async def test_is_for_customers(self, shop: Shop, buyer: Person, path: str) -> None:
        assert_problem(await buyer.ask("POST", path), 409, "not_subscribed")
        await shop.subscribe(buyer)
        reply = await buyer.ask("POST", path)
        assert reply.status_code == 200
        assert reply.json()["url"].startswith("https://pay.test/portal/")
        shop.gateway.error = PaymentsUnavailable()
        assert_problem(await buyer.ask("POST", path), 503, "payments_unavailable")


class TestWebhook:
    @pytest.mark.parametrize("path", ["/webhook/stripe", "/webhook/stripe/"])
    async def test_says_ok_in_plain_text(self, shop: Shop, path: str) -> None:
        reply = await shop.post(shop.event(), path=path)
        assert (reply.status_code, reply.text) == (200, "OK")
        assert reply.headers["content-type"].startswith("text/plain")
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-request-id"]

    @pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", "x"])
    async def test_reads_the_raw_body_whatever_its_content_type(self, shop: Shop, buyer: Person, kind: str) -> None:
        await shop.subscribe(buyer)
        body = shop.event(customer_id=f"cus_{UUID(buyer.id).hex}_0")
        assert (await shop.post(body, **{"Content-Type": kind})).status_code == 200
        assert await shop.read(buyer)

    async def test_a_hundred_deliveries_of_one_event_take_effect_once(self, shop: Shop, buyer: Person) -> None:
        await shop.subscribe(buyer)
        await shop.has(buyer)
        body = shop.event(customer_id=f"cus_{UUID(buyer.id).hex}_0")
        places = asyncio.Semaphore(50)

        async def post() -> int:
            async with places:
                return (await shop.post(body)).status_code

        assert Counter(await asyncio.gather(*(post() for _ in range(100)))) == {200: 100}
        jobs = shop.container.billing_accounts()
        claimed = await jobs.claim(UserId(UUID(buyer.id)), lease=timedelta(seconds=-1))
        assert claimed is not None
        assert claimed.account.change_count == 3, "the checkout, the event of has(), and this"

    async def test_events_that_do_not_matter_are_accepted(self, shop: Shop) -> None:
        assert (await shop.post(b"evt_of_no_interest")).text == "OK"
        assert (await shop.post(shop.event(customer_id="cus_of_the_till"))).text == "OK"

    @pytest.mark.parametrize(
        "headers",
        [
            [],
            [("Stripe-Signature", "")],
            [("Stripe-Signature", "forged")],
            [("Stripe-Signature", "signed"), ("Stripe-Signature", "signed")],
        ],
    )
    async def test_an_unsigned_event_is_refused(self, shop: Shop, headers: list[tuple[str, str]]) -> None:
        reply = await shop.http.post("/webhook/stripe", content=shop.event(), headers=headers)
        assert_problem(reply, 400, "webhook_invalid")

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
    async def test_allows_only_post(self, shop: Shop, method: str) -> None:
        reply = await shop.http.request(method, "/webhook/stripe", headers=SIGNED)
        assert_problem(reply, 405, "method_not_allowed")
        assert reply.headers["allow"] == "POST"

    @pytest.mark.parametrize("chunked", [False, True])
    @pytest.mark.parametrize("size", [0, JSON_LIMIT + 1, LIMIT])
    async def test_takes_a_large_body(self, shop: Shop, size: int, chunked: bool) -> None:
        reply = await shop.http.post("/webhook/stripe", content=content(size, chunked), headers=SIGNED)
        assert (reply.status_code, reply.text) == (200, "OK")

    @pytest.mark.parametrize("chunked", [False, True])
    @pytest.mark.parametrize("size", [LIMIT + 1, 2 * LIMIT])
    async def test_a_body_over_the_limit_is_refused(self, shop: Shop, size: int, chunked: bool) -> None:
        reply = await shop.http.post("/webhook/stripe", content=content(size, chunked), headers=SIGNED)
        assert_problem(reply, 413, "body_too_large")

    @pytest.mark.parametrize("chunked", [False, True])
    async def test_the_other_calls_keep_their_limit_on_the_same_connection(
        self, shop: Shop, buyer: Person, chunked: bool
    ) -> None:
        async with httpx.AsyncClient(
            base_url=shop.url, trust_env=False, timeout=HANG, limits=httpx.Limits(max_connections=1)
        ) as http:
            for _ in range(2):
                large = await http.post("/webhook/stripe", content=content(LIMIT, chunked), headers=SIGNED)
                assert large.status_code == 200
                assert (await buyer.at(http).get("/subscription/status"))["data"]
                refused = await http.post("/auth/signup", content=content(JSON_LIMIT + 1, chunked))
                assert_problem(refused, 413, "body_too_large")

    async def test_a_body_that_ends_too_early_does_not_hang(self, second_http: httpx.AsyncClient) -> None:
        reader, writer = await asyncio.open_connection(second_http.base_url.host, second_http.base_url.port)
        try:
            writer.write(b"POST /webhook/stripe HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            async with asyncio.timeout(HANG):
                head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 408 ")
        finally:
            writer.close()


def content(size: int, chunked: bool) -> bytes | AsyncIterator[bytes]:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size, 10_000):
            yield b"x" * min(10_000, size - start)

    return pieces() if chunked else b"x" * size


class TestStripesOwnSignature:
    """The API as it is deployed, with Stripe's adapter."""

    @staticmethod
    def event(**changes: Any) -> tuple[bytes, dict[str, str]]:
        payload = {"id": "sub_1", "object": "subscription", "customer": "cus_1"}
        body = {"id": f"evt_{uuid4().hex}", "type": "customer.subscription.updated", "livemode": False}
        text = json.dumps({**body, "data": {"object": payload}, **changes})
        signature = WebhookSignature.generate_signature_header(text, SECRET)
        return text.encode(), {"Stripe-Signature": signature}

    async def test_without_postgres_stripe_is_asked_to_retry(self, redis_url: str) -> None:
        environment = {
            **STRIPE,
            "DATABASE_URL": f"postgres://nobody@127.0.0.1:{free_port()}/nothing",
            "REDIS_URL": redis_url,
            "REDIS_NAMESPACE": f"test-{secrets.token_hex(6)}",
            "ACCESS_TOKEN_SECRET": secrets.token_hex(32),
        }
        with api_process(environment) as (url, _):
            async with http_client(url) as http:
                body, headers = self.event()
                away = await http.post("/webhook/stripe", content=body, headers=headers)
                assert_problem(away, 503, "database_unavailable")
                altered = await http.post("/webhook/stripe", content=body + b" ", headers=headers)
                assert_problem(altered, 400, "webhook_invalid")
                for unneeded in ({"type": "price.updated"}, {"livemode": True}):
                    body, headers = self.event(**unneeded)
                    assert (await http.post("/webhook/stripe", content=body, headers=headers)).text == "OK"


class TestWhereNothingIsSold:
    async def test_without_payments_the_reply_says_so(self, http: httpx.AsyncClient, person: Person) -> None:
        for reply in (
            await person.ask("POST", "/subscribe/pro", {}),
            await http.post("/webhook/stripe", content=b"{}", headers=SIGNED),
        ):
            assert_problem(reply, 503, "payments_unavailable")
            assert "not set up" in reply.json()["detail"]
        assert_problem(await person.ask("POST", "/subscription/portal"), 409, "not_subscribed")
        assert (await person.get("/subscription/status"))["data"]["tier"] == "Basic"
