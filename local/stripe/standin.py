"""Stripe's stand-in without its HTTP: an account, its courier, the faults it was told of and what it keeps on disk."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from local.processes import write_private
from local.stripe import billing_calls, payment_calls  # noqa: F401 - add their calls to the table
from local.stripe import objects as objects
from local.stripe.calls import perform
from local.stripe.checkout import line_items
from local.stripe.clock import advance
from local.stripe.events import Courier, Delivery
from local.stripe.faults import Fault, Faults, Json, Requests, Seen, StripeError, error_reply, seen
from local.stripe.forms import decode
from local.stripe.world import API_VERSION, Billing, Cause, World, listed

logger = structlog.get_logger(__name__)

KEY_SECONDS = 24 * 3600
KEPT_REPLIES = 5_000
SAVE_SECONDS = 0.2
TICK_SECONDS = 1.0


@dataclass
class Reply:
    status: int
    body: str
    headers: dict[str, str]
    fault: Fault | None = None


@dataclass
class StandIn:
    world: World
    courier: Courier
    state: Path | None = None
    faults: Faults = field(default_factory=Faults)
    requests: Requests = field(default_factory=Requests)
    replies: dict[str, Json] = field(default_factory=dict)  # by Idempotency-Key, as long as Stripe keeps them
    running: set[str] = field(default_factory=set)

    @classmethod
    def make(cls, *, price: str, url: str, delivery: Delivery | None = None, state: Path | None = None) -> StandIn:
        world = World(price, url)
        stand_in = cls(world, Courier(delivery or Delivery(), lambda given: world.of("event").get(given)), state)
        world.on_event = stand_in.courier.take
        world.includable = {
            ("checkout.session", "line_items"): lambda item: line_items(
                world, world.get("checkout.session", item["id"])
            ),
            ("invoice", "payments"): lambda item: listed(
                [world.shown(one) for one in world.where("invoice_payment", invoice=item["id"])],
                f"/v1/invoices/{item['id']}/payments",
            ),
            ("charge", "refunds"): lambda item: listed(
                [world.shown(one) for one in world.where("refund", charge=item["id"])],
                f"/v1/charges/{item['id']}/refunds",
            ),
            ("customer", "subscriptions"): lambda item: listed(
                [world.shown(one) for one in world.where("subscription", customer=item["id"])],
                f"/v1/customers/{item['id']}/subscriptions",
            ),
        }
        stand_in._load()
        return stand_in

    def reset(self) -> None:
        """An account as at the first start; deliveries go to the same address."""
        self.courier.forget()
        self.courier.settings = Delivery(url=self.courier.settings.url, secret=self.courier.settings.secret)
        self.faults.rules.clear()
        self.requests.reset()
        self.replies.clear()
        self.world.kinds, self.world.offset, self.world.billing = {}, 0.0, Billing()
        self.world.changes += 1
        self._stock()

    def _stock(self) -> None:
        """What is for sale from the start."""
        if self.world.price not in self.world.of("price"):
            product = objects.product(self.world, name="Gemini Pro")
            objects.price(
                self.world, id=self.world.price, amount=999, currency="usd", interval="month", product=product["id"]
            )

    # --- calls

    async def call(self, method: str, path: str, query: str, body: str, headers: Mapping[str, str]) -> Reply:
        """What Stripe answers. What a fault does to the connection is left to the caller."""
        request_id = self.world.new_id("request")
        standard = {"Request-Id": request_id, "Stripe-Version": headers.get("stripe-version") or API_VERSION}
        record: Seen | None = None
        try:
            params = decode(query, body)
            record = seen(request_id, method, path, params, headers)
            self.requests.add(record)
            _check_key(headers)
            reply = await self._once(record)
        except StripeError as error:
            reply = Reply(error.status, json.dumps(error.body, indent=2), {})
        reply.headers = standard | reply.headers
        if record:
            record.status = reply.status
        return reply

    async def _once(self, record: Seen) -> Reply:
        key = record.idempotency_key if record.method == "POST" else None
        if key is None:
            return await self._faulty(record)
        if len(key) > 255:
            raise StripeError(400, "idempotency_error", "Idempotency keys can be at most 255 characters long.")
        asked = hashlib.sha256(json.dumps([record.path, record.params], sort_keys=True).encode()).hexdigest()
        if key in self.running:
            raise StripeError(
                409,
                "idempotency_error",
                f"There is currently another in-progress request using this Idempotent Key: {key}. Try again later.",
                code="idempotency_key_in_use",
            )
        self.running.add(key)
        try:
            return await self._faulty(record, key, asked)
        finally:
            self.running.discard(key)

    async def _faulty(self, record: Seen, key: str | None = None, asked: str = "") -> Reply:
        fault = self.faults.take(record.method, record.path)
        if fault is None:
            return self._answer(record, key, asked)
        record.fault = fault.kind
        reply = self._answer(record, key, asked) if fault.when == "after" else None
        if fault.kind == "latency":
            await asyncio.sleep(fault.seconds)
        elif fault.kind == "hang":
            await asyncio.Event().wait()  # the client's leaving cancels it
        elif isinstance(fault.kind, int):
            error = error_reply(fault.kind)
            return Reply(error.status, json.dumps(error.body, indent=2), dict(fault.headers))
        if fault.kind in ("cut", "broken_json", "html"):
            return Reply(0, "", {}, fault)
        return reply or self._answer(record, key, asked)

    def _answer(self, record: Seen, key: str | None, asked: str) -> Reply:
        """What was answered to this key before, or else the call is done."""
        kept = self.replies.get(key) if key else None
        if not kept or kept["at"] <= self.world.now - KEY_SECONDS:
            return self._perform(record, key, asked)
        if kept["asked"] != asked:
            raise StripeError(
                400,
                "idempotency_error",
                "Keys for idempotent requests can only be used with the same parameters they were first used with."
                f" Try using a key other than '{key}' if you meant to execute a different request.",
            )
        record.replayed = True
        headers = {"Idempotent-Replayed": "true", "Idempotency-Key": str(key), "Original-Request": kept["request"]}
        return Reply(kept["status"], kept["body"], headers)

    def _perform(self, record: Seen, key: str | None, asked: str) -> Reply:
        self.world.cause = Cause(record.id, key)
        try:
            status, body = 200, json.dumps(perform(self.world, record.method, record.path, record.params), indent=2)
        except StripeError as error:
            status, body = error.status, json.dumps(error.body, indent=2)
        finally:
            self.world.cause = Cause()
        # What was refused before it began is not kept: the same key may be used again with better parameters.
        if key and status not in (400, 401, 404):
            self.replies[key] = {
                "asked": asked,
                "status": status,
                "body": body,
                "request": record.id,
                "at": self.world.now,
            }
            if len(self.replies) > KEPT_REPLIES:
                del self.replies[next(iter(self.replies))]
        return Reply(status, body, {"Idempotency-Key": key} if key else {})

    # --- time and disk

    async def live(self) -> None:
        """Runs beside the server: does what falls due, and keeps the state on disk."""
        saved, ticked, took = self._version(), time.monotonic(), 0.0
        while True:
            await asyncio.sleep(max(SAVE_SECONDS, 10 * took))  # a large account is written less often
            if time.monotonic() - ticked > TICK_SECONDS:
                ticked = time.monotonic()
                advance(self.world, self.world.now)
            if saved != self._version():
                saved, began = self._version(), time.monotonic()
                self.save()
                took = time.monotonic() - began

    def save(self) -> None:
        if self.state is None:
            return
        kept = {"world": self.world.dump(), "letters": self.courier.dump(), "replies": self.replies}
        write_private(self.state, json.dumps(kept))

    def _version(self) -> tuple[int, int, int]:
        return self.world.changes, self.courier.changes, len(self.replies)

    def _load(self) -> None:
        if self.state is not None:
            self.state.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                try:
                    kept = json.loads(self.state.read_text())
                    self.world.load(kept["world"])
                    self.courier.load(kept["letters"])
                    self.replies = kept["replies"]
                except (ValueError, KeyError, TypeError):
                    # Kept for whoever wants to look; the stand-in must start all the same.
                    self.state.replace(self.state.with_suffix(".unreadable"))
                    logger.warning("stripe_standin_state_unreadable", path=str(self.state))
        self._stock()


def _check_key(headers: Mapping[str, str]) -> None:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() not in ("bearer", "basic") or not key:
        raise StripeError(
            401,
            "invalid_request_error",
            "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer"
            " auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
        )
    if scheme.lower() == "bearer" and not key.startswith(("sk_", "rk_")):
        raise StripeError(401, "invalid_request_error", "Invalid API Key provided.")
