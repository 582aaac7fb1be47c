"""Subscriptions as their owners live them: real processes, and Stripe's stand-in over real HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen
from uuid import uuid4

import httpx
import pytest

from tests.support.database import execute, new_database
from tests.support.http_client import Person, http_client, sign_up
from tests.support.patience import HANG, PROCESS_HANG
from tests.support.ports import free_port
from tests.support.processes import ROOT, api_process, wait_for_api, worker_process
from tests.support.stripe_standin import PRICE, SECRET, Json, StripeStandIn


@pytest.fixture(scope="module")
def selling(product: dict[str, str], stripe_standin_server: StripeStandIn) -> dict[str, str]:
    """The environment of a product that sells something."""
    return {
        **product,
        "STRIPE_API_BASE": stripe_standin_server.url,
        "STRIPE_SECRET_KEY": "sk_test_for_the_stand_in",
        "STRIPE_PRICE_ID": PRICE,
        "STRIPE_WEBHOOK_SECRET": f"whsec_an_older_one,{SECRET}",
    }


@pytest.fixture(scope="module")
async def shop(selling: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    with api_process(selling) as (url, _), worker_process(selling):
        async with http_client(url) as client:
            yield client


@pytest.fixture
async def stripe(stripe_standin: StripeStandIn, shop: httpx.AsyncClient, selling: dict[str, str]) -> StripeStandIn:
    """A new account there, that tells the shop; of the customers of the last one nothing is known to either."""
    await execute(selling["DATABASE_URL"], "DELETE FROM billing_accounts")
    stripe_standin.delivery(url=f"{str(shop.base_url).rstrip('/')}/webhook/stripe")
    return stripe_standin


@pytest.fixture
async def asha(shop: httpx.AsyncClient) -> Person:
    return await sign_up(shop)


async def subscribe(person: Person) -> str:
    """The id of the checkout that is open now."""
    reply = await person.ask("POST", "/subscribe/pro", {})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["url"]).rsplit("/", 1)[1]


async def status(person: Person) -> Json:
    found: Json = (await person.get("/subscription/status"))["data"]
    return found


async def until(person: Person, *, seconds: float = HANG, **wanted: Any) -> Json:
    """The subscription's status once it is as wanted; `seconds` bounds a hang."""
    give_up = time.monotonic() + seconds
    while not wanted.items() <= (found := await status(person)).items():
        assert time.monotonic() < give_up, f"still {found} after {seconds} s"
        await asyncio.sleep(0.02)
    assert (await person.get("/user/me"))["data"]["subscriptionTier"] == found["tier"]
    return found


async def settled(standin: StripeStandIn, database_url: str, *, seconds: float = HANG) -> None:
    """Until all events are delivered, and all accounts they concern are read."""
    await standin.idle(seconds)
    give_up = time.monotonic() + seconds
    due = "SELECT user_id FROM billing_accounts WHERE due_at <= now() OR lease_until > now()"
    while await execute(database_url, due):
        assert time.monotonic() < give_up, "subscriptions are still to be read"
        await asyncio.sleep(0.02)


def rest(standin: StripeStandIn, method: str, path: str, **params: str) -> Json:
    """What an operator does in Stripe's dashboard, or the service before this one did."""
    request = Request(  # noqa: S310 - loopback
        f"{standin.url}/v1{path}",
        data=urlencode(params).encode() if params else None,
        method=method,
        headers={"Authorization": "Bearer sk_test_of_an_operator"},
    )
    with urlopen(request, timeout=HANG) as response:  # noqa: S310
        reply: Json = json.load(response)
        return reply


def former_checkout(standin: StripeStandIn, user_id: str) -> str:
    """A single payment for Pro, begun at the service before this one."""
    basket = {"mode": "payment", "line_items[0][price]": PRICE, "line_items[0][quantity]": "1"}
    named = {"client_reference_id": user_id, "success_url": "https://former.example/"}
    return str(rest(standin, "POST", "/checkout/sessions", **basket, **named)["id"])


def command(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "entrypoints.cli", *arguments],
        cwd=ROOT,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=PROCESS_HANG,
        check=False,
    )


# --- the plain story


async def test_from_basic_to_pro_and_back_and_again(asha: Person, stripe: StripeStandIn) -> None:
    basic = {"tier": "Basic", "status": None, "currentPeriodEnd": None, "cancelAtPeriodEnd": False}
    assert await status(asha) == basic
    nothing_to_manage = await asha.ask("POST", "/subscription/portal", {})
    assert (nothing_to_manage.status_code, nothing_to_manage.json()["code"]) == (409, "not_subscribed")

    checkout = await subscribe(asha)
    assert await subscribe(asha) == checkout, "one is open at a time"
    assert (await status(asha))["tier"] == "Basic", "nobody has paid"

    session = stripe.pay(checkout)
    pro = await until(asha, tier="Pro")
    assert pro["status"] == "active"
    assert pro["cancelAtPeriodEnd"] is False
    left = datetime.fromisoformat(pro["currentPeriodEnd"]) - datetime.now(UTC)
    assert timedelta(days=27) < left < timedelta(days=32)

    room = await asha.room()
    for number in range(6):  # one more than Basic allows in a day
        reply = await asha.ask("POST", f"/chatroom/{room}/message", {"input": f"Question {number}"})
        assert reply.status_code == 202, reply.text
        assert reply.json()["remainingMessages"] == "unlimited"
    again = await asha.ask("POST", "/subscribe/pro", {})
    assert (again.status_code, again.json()["code"]) == (409, "already_subscribed")
    portal = await asha.ask("POST", "/subscription/portal", {})
    assert portal.json()["url"].startswith(stripe.url)

    given = session["subscription"]
    rest(stripe, "POST", f"/subscriptions/{given}", cancel_at_period_end="true")
    cancelled = await until(asha, cancelAtPeriodEnd=True)
    assert (cancelled["tier"], cancelled["status"]) == ("Pro", "active"), "it is paid for"
    rest(stripe, "POST", f"/subscriptions/{given}", cancel_at_period_end="false")
    await until(asha, cancelAtPeriodEnd=False, tier="Pro")
    rest(stripe, "DELETE", f"/subscriptions/{given}")
    await until(asha, tier="Basic", status="canceled")
    refused = await asha.ask("POST", f"/chatroom/{room}/message", {"input": "And now?"})
    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")

    back = stripe.pay(await subscribe(asha))
    await until(asha, tier="Pro", status="active")
    assert back["customer"] == session["customer"]
    rest(stripe, "DELETE", f"/customers/{back['customer']}")
    await until(asha, tier="Basic")
    anew = stripe.pay(await subscribe(asha))
    await until(asha, tier="Pro", status="active")
    assert anew["customer"] != session["customer"]


async def test_a_single_payment_from_before(asha: Person, stripe: StripeStandIn) -> None:
    checkout = former_checkout(stripe, asha.id)
    stripe.pay(checkout)
    pro = await until(asha, tier="Pro")
    assert (pro["status"], pro["currentPeriodEnd"]) == ("active", None)
    stripe.control("POST", "/refunds", {"of": checkout})
    await until(asha, tier="Basic", status="canceled")
    stripe.pay(await subscribe(asha))
    assert (await until(asha, tier="Pro"))["currentPeriodEnd"] is not None


async def test_a_payment_that_takes_its_time(asha: Person, stripe: StripeStandIn, selling: dict[str, str]) -> None:
    checkout = former_checkout(stripe, asha.id)
    stripe.pay(checkout, "bank_debit")
    await settled(stripe, selling["DATABASE_URL"])
    assert (await status(asha))["tier"] == "Basic", "completed is not paid"
    stripe.control("POST", f"/payments/{checkout}/settle", {"succeed": True})
    await until(asha, tier="Pro")


async def test_what_upgrades_nobody(
    asha: Person, shop: httpx.AsyncClient, stripe: StripeStandIn, selling: dict[str, str]
) -> None:
    stripe.control("PUT", "/billing", {"livemode": True})  # at a product with a key for tests
    live = former_checkout(stripe, asha.id)
    stripe.pay(live)
    stripe.control("PUT", "/billing", {"livemode": False})
    for nobody in (str(uuid4()), "not an id", "0"):
        stripe.pay(former_checkout(stripe, nobody))
    bela = await sign_up(shop, "Bela")
    session = stripe.pay(await subscribe(bela))
    await until(bela, tier="Pro")
    # Somebody's own customer, but the subscription names another user.
    stripe.control(
        "PATCH",
        f"/objects/{session['subscription']}",
        {"set": {"metadata": {"user_id": asha.id}}, "emit": "customer.subscription.updated"},
    )
    await settled(stripe, selling["DATABASE_URL"])
    assert (await status(asha))["tier"] == "Basic"
    assert (await status(bela))["tier"] == "Basic"
    assert {event["state"] for event in stripe.events()} == {"delivered"}, "all were answered with a 200"


# --- when nobody tells


async def test_lost_events_are_made_good_by_the_command(
    asha: Person, shop: httpx.AsyncClient, stripe: StripeStandIn, selling: dict[str, str]
) -> None:
    stripe.delivery(lose=["*"])
    bela, nobody = await sign_up(shop, "Bela"), await sign_up(shop, "Nobody")
    for person in (asha, bela):
        stripe.pay(await subscribe(person))
    await asyncio.sleep(0.5)
    assert (await status(asha))["tier"] == "Basic"

    one = command(selling, "billing", "reconcile", "--user", asha.id)
    assert (one.returncode, one.stdout) == (0, "Read.\n"), one.stderr
    assert [(await status(person))["tier"] for person in (asha, bela)] == ["Pro", "Basic"]
    none = command(selling, "billing", "reconcile", "--user", nobody.id)
    assert none.returncode == 1

    every = command(selling, "billing", "reconcile")
    assert every.returncode == 0, every.stderr
    await until(bela, tier="Pro")  # the worker may have taken it from under the command

    rest(stripe, "DELETE", f"/subscriptions/{stripe.events(type='customer.subscription.created')[0]['object']}")
    assert command(selling, "billing", "reconcile").returncode == 0
    await until(asha, tier="Basic", status="canceled")


@pytest.fixture
def impatient(selling: dict[str, str], postgres_url: str) -> Iterator[dict[str, str]]:
    """Its own product, whose worker reads again after a second instead of fifteen minutes and a day."""
    with new_database(postgres_url) as database_url:
        yield {
            **selling,
            "DATABASE_URL": database_url,
            "REDIS_NAMESPACE": f"test-{secrets.token_hex(6)}",
            "CHECKOUT_RECONCILE_MINUTES": "0.01",
            "SUBSCRIPTION_RECONCILE_HOURS": "0.0002",
        }


async def test_lost_events_are_made_good_by_time(impatient: dict[str, str], stripe_standin: StripeStandIn) -> None:
    stripe_standin.delivery(lose=["*"])
    with api_process(impatient) as (url, _), worker_process(impatient):
        async with http_client(url) as client:
            person = await sign_up(client)
            session = stripe_standin.pay(await subscribe(person))
            await until(person, tier="Pro", status="active")
            rest(stripe_standin, "DELETE", f"/subscriptions/{session['subscription']}")
            await until(person, tier="Basic", status="canceled")


# --- a year, with the clock moved


class Year:
    """The product and Stripe on the same clock, which runs ahead of the real one."""

    def __init__(self, standin: StripeStandIn, person: Person, ahead: Path, environment: dict[str, str]) -> None:
        self.standin = standin
        self.person = person
        self.ahead = ahead
        self.environment = environment
        self.database_url = environment["DATABASE_URL"]
        self.room = ""

    async def forward(self, **by: float) -> None:
        """Stripe bills on its way there, and tells; the product's clock follows."""
        self.standin.forward(**by)
        self.ahead.write_text(str(self.standin.control("GET", "/")["ahead"]))
        await self.delivered()

    async def renew(self) -> None:
        """To the end of the period, and the two hours in which Stripe charges the next one."""
        ends = datetime.fromisoformat((await status(self.person))["currentPeriodEnd"])
        await self.forward(seconds=(ends - self.now()).total_seconds() + 7200)

    async def delivered(self) -> None:
        await settled(self.standin, self.database_url)

    async def pay(self, card: str = "visa") -> Json:
        session = self.standin.pay(await subscribe(self.person), card)
        await self.delivered()
        return session

    async def change_card(self, customer: str, card: str) -> None:
        self.standin.control("POST", f"/customers/{customer}/card", {"card": card})
        await self.delivered()

    async def readings(self) -> int:
        """How often the subscriptions were read."""
        found = await execute(self.database_url, "SELECT user_id, attempt FROM billing_accounts")
        return next(int(row["attempt"]) for row in found if str(row["user_id"]) == self.person.id)

    async def stands(self, tier: str, status_: str, **more: object) -> Json:
        """Asserts what the user sees, and that what they may do follows from it."""
        found = await status(self.person)
        assert {"tier": tier, "status": status_, **more}.items() <= found.items(), found
        assert (await self.person.get("/user/me"))["data"]["subscriptionTier"] == tier
        reply = await self.person.ask("POST", f"/chatroom/{self.room}/message", {"input": "What day is it?"})
        assert reply.status_code == 202, reply.text
        assert (reply.json()["remainingMessages"] == "unlimited") is (tier == "Pro")
        return found

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=int(self.ahead.read_text()))


@contextmanager
def api_with_moved_clock(environment: dict[str, str], ahead: Path) -> Iterator[str]:
    port = free_port()
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.moved_clock", str(port), str(ahead)],
        cwd=ROOT,
        env={**inherited, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_api(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PROCESS_HANG)


@pytest.fixture
async def year(
    selling: dict[str, str], shop: httpx.AsyncClient, stripe_standin: StripeStandIn, tmp_path: Path
) -> AsyncIterator[Year]:
    """The shop's worker reads; an API with its own clock serves."""
    ahead = tmp_path / "ahead"
    ahead.write_text("0")
    environment = {
        **selling,
        "FREE_DAILY_MESSAGES": "100",
        "RATE_LIMITS": "off",  # a worker on the real clock answers late, or so it seems
    }
    with api_with_moved_clock(environment, ahead) as url:
        # Each event twice, and those of the same moment in any order.
        stripe_standin.delivery(url=f"{url}/webhook/stripe", copies=2, shuffle=7, window=0.05)
        async with http_client(url) as client:
            year = Year(stripe_standin, await sign_up(client), ahead, selling)
            year.room = await year.person.room()
            yield year


async def test_a_year_of_a_subscription(year: Year) -> None:
    stripe, began = year.standin, year.now()

    # Two weeks for nothing.
    stripe.billing(trial_days=14)
    session = await year.pay()
    customer, first = session["customer"], session["subscription"]
    trial = await year.stands("Pro", "trialing", cancelAtPeriodEnd=False)
    ends = datetime.fromisoformat(trial["currentPeriodEnd"])
    assert timedelta(days=13, hours=23) < ends - began < timedelta(days=14, hours=1)

    # It is paid for, and renewed twice.
    await year.renew()
    paid = await year.stands("Pro", "active")
    for _ in range(2):
        await year.renew()
        renewed = await year.stands("Pro", "active")
        assert renewed["currentPeriodEnd"] > paid["currentPeriodEnd"]
        paid = renewed

    # The bank says no. Seven days of grace, which end by the clock alone.
    await year.change_card(customer, "fails_later")
    await year.renew()
    await year.stands("Pro", "past_due")
    await year.forward(days=6)
    await year.stands("Pro", "past_due")
    readings = await year.readings()
    await year.forward(days=1)
    await year.stands("Basic", "past_due")
    assert await year.readings() == readings, "time alone has decided"
    refused = await year.person.ask("POST", "/subscribe/pro", {})
    assert refused.json()["code"] == "already_subscribed", "it is still charged: the portal is the place"

    # Another card, and what was owed is paid.
    await year.change_card(customer, "visa")
    stripe.control("POST", f"/invoices/{stripe.object(first)['latest_invoice']}/pay")
    await year.delivered()
    await year.stands("Pro", "active")
    await year.renew()
    await year.stands("Pro", "active")

    # The next time nobody does anything, and after two weeks Stripe gives up.
    await year.change_card(customer, "fails_later")
    await year.renew()
    await year.stands("Pro", "past_due")
    await year.forward(days=8)
    await year.stands("Basic", "past_due")
    await year.forward(days=8)
    await year.stands("Basic", "canceled")
    await year.forward(months=2)
    await year.stands("Basic", "canceled")

    # Back again, to the same customer at Stripe. The first checkout expired long ago.
    returned = await year.pay()
    assert returned["customer"] == customer
    assert returned["subscription"] != first
    await year.stands("Pro", "active")
    for _ in range(3):
        await year.renew()
        await year.stands("Pro", "active")

    # Cancelled: Pro to the end of the paid period, and not longer, with or without an event.
    rest(stripe, "POST", f"/subscriptions/{returned['subscription']}", cancel_at_period_end="true")
    await year.delivered()
    leaving = await year.stands("Pro", "active", cancelAtPeriodEnd=True)
    ends = datetime.fromisoformat(leaving["currentPeriodEnd"])
    stripe.delivery(lose=["*"])
    await year.forward(seconds=(ends - year.now()).total_seconds() - 60)
    await year.stands("Pro", "active")
    await year.forward(seconds=65)
    await year.stands("Basic", "active", cancelAtPeriodEnd=True)
    stripe.delivery(lose=[])

    # And once more, after a year and some weeks. No event has said that the last one ended.
    assert command(year.environment, "billing", "reconcile", "--user", year.person.id).returncode == 0
    await year.stands("Basic", "canceled")
    session = await year.pay()
    assert year.now() - began > timedelta(days=365)
    await year.stands("Pro", "active", cancelAtPeriodEnd=False)
    rest(stripe, "DELETE", f"/subscriptions/{session['subscription']}")
    await year.delivered()
    await year.stands("Basic", "canceled")
