"""The product with Stripe's stand-in, and what scenarios do there as Stripe and as buyers."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import stripe

from tests.chaos.client import Answer, Client, Failed, Person
from tests.chaos.world import World, world
from tests.support.stripe_standin import PRICE, SECRET, Json, StripeStandIn, start_stripe_standin


@dataclass
class Shop:
    w: World
    stripe: StripeStandIn
    client: Client
    #: The answers to the webhook calls, and how long each took.
    answers: Counter[int | str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    async def listen(self, **delivery: Any) -> None:
        """Deliver the stand-in's events to the first API process."""
        await asyncio.to_thread(self.stripe.delivery, url=f"{self.w.urls[0]}/webhook/stripe", **delivery)

    async def subscribe(self, person: Person) -> str:
        """The id of the checkout."""
        answer = await self.client.ask(person, "POST", "/subscribe/pro", {})
        assert answer.status == 200, answer.body
        return str(answer.json["url"]).rsplit("/", 1)[1]

    async def pay(self, checkout: str, card: str = "visa") -> Json:
        return await asyncio.to_thread(self.stripe.pay, checkout, card)

    async def tell(self, event: Json) -> Answer | None:
        """Send a signed event as Stripe does; None if no answer came."""
        signature = stripe.WebhookSignature.generate_signature_header(json.dumps(event), SECRET)
        try:
            answer = await self.client.ask(None, "POST", "/webhook/stripe", event, {"Stripe-Signature": signature})
        except Failed as failed:
            self.answers[str(failed)] += 1
            return None
        self.answers[answer.status] += 1
        self.seconds.append(answer.seconds)
        return answer

    async def happened(self, customer: str, *types: str) -> list[Json]:
        """The newest event of each of these types, as Stripe stores it."""
        rows = await asyncio.to_thread(self.stripe.events, customer=customer)
        newest = {row["type"]: row["id"] for row in rows}
        return [await asyncio.to_thread(self.stripe.object, newest[type_]) for type_ in types]

    async def control(self, method: str, path: str, body: Any = None) -> Json:
        return await asyncio.to_thread(self.stripe.control, method, path, body)

    async def rest(self, method: str, path: str, **params: str) -> Json:
        """A call of Stripe's API that stands for an operator's action in the dashboard."""
        return await asyncio.to_thread(_rest, self.stripe.url, method, path, params)

    async def pro(self) -> set[str]:
        """The ids of the users who are Pro now."""
        return {str(row["id"]) for row in await self.w.fetch("SELECT id FROM users WHERE pro_until > now()")}

    async def until_pro(self, people: Sequence[Person], *, seconds: float) -> float | None:
        """Seconds until all of them were Pro; None if that takes longer than `seconds`."""
        return await self.until(lambda pro: pro >= {person.id for person in people}, seconds=seconds)

    async def until(self, condition: Callable[[set[str]], bool], *, seconds: float) -> float | None:
        began = time.monotonic()
        while not condition(await self.pro()):
            if time.monotonic() > began + seconds:
                return None
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def all_read(self, *, seconds: float) -> float | None:
        """Seconds until no sync was due or running; None if that takes longer than `seconds`."""
        began = time.monotonic()
        due = "SELECT FROM billing_accounts WHERE due_at <= now() OR lease_until > now() LIMIT 1"
        while await self.w.fetch(due):
            if time.monotonic() > began + seconds:
                return None
            await asyncio.sleep(0.05)
        return time.monotonic() - began


@asynccontextmanager
async def shop(*, apis: int = 1, workers: int = 1, **settings: str) -> AsyncIterator[Shop]:
    """No events are delivered until `listen`."""
    standin = start_stripe_standin()
    stand_in = await asyncio.to_thread(next, standin)
    selling = {
        "STRIPE_API_BASE": stand_in.url,
        "STRIPE_SECRET_KEY": "sk_test_for_the_stand_in",
        "STRIPE_PRICE_ID": PRICE,
        "STRIPE_WEBHOOK_SECRET": SECRET,
    }
    try:
        async with world(apis=apis, workers=workers, **selling, **settings) as w:
            await asyncio.to_thread(stand_in.reset, "")
            yield Shop(w, stand_in, w.client())
    finally:
        with suppress(StopIteration):
            await asyncio.to_thread(standin.close)


def _rest(url: str, method: str, path: str, params: dict[str, str]) -> Json:
    data = urlencode(params).encode() if params else None
    headers = {"Authorization": "Bearer sk_test_of_an_operator"}
    with urlopen(Request(f"{url}/v1{path}", data=data, method=method, headers=headers), timeout=30) as response:  # noqa: S310 - loopback
        reply: Json = json.load(response)
        return reply
