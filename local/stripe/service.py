"""A REST call from its request to its reply: keys, faults and the log; and the state that is kept on disk."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from local.files import write_private
from local.standin import Json
from local.steps import complain
from local.stripe.account import API_VERSION, Account, BillingOptions, RequestRef
from local.stripe.calls import add_price, perform
from local.stripe.clock import advance
from local.stripe.deliveries import DeliveryOptions, Dispatcher
from local.stripe.errors import StripeError, error_with
from local.stripe.faults import Fault, Faults
from local.stripe.forms import decode
from local.stripe.requests import LoggedRequest, RequestLog

KEY_SECONDS = 24 * 3600
KEPT_REPLIES = 5_000
SAVE_SECONDS = 0.2
TICK_SECONDS = 1.0


@dataclass
class Reply:
    """With a `fault` the connection, not the reply, is what the client gets."""

    status: int
    body: str
    headers: dict[str, str]
    fault: Fault | None = None

    @classmethod
    def of(cls, error: StripeError, headers: Mapping[str, str] | None = None) -> Reply:
        return cls(error.status, json.dumps(error.body, indent=2), dict(headers or {}))


@dataclass
class StandIn:
    account: Account
    dispatcher: Dispatcher
    state: Path | None = None
    faults: Faults = field(default_factory=Faults)
    requests: RequestLog = field(default_factory=RequestLog)
    replies: dict[str, Json] = field(default_factory=dict)  # by Idempotency-Key
    running: set[str] = field(default_factory=set)  # keys of calls under way

    @classmethod
    def create(cls, *, price: str, url: str, delivery: DeliveryOptions, state: Path | None = None) -> StandIn:
        account = Account(price, url)
        stand_in = cls(account, Dispatcher(delivery, lambda event_id: account.table("event").get(event_id)), state)
        account.on_event = stand_in.dispatcher.dispatch
        stand_in._load()
        return stand_in

    def reset(self) -> None:
        """A new account. Events are still delivered to the same address."""
        options = self.dispatcher.options
        self.dispatcher.clear()
        self.dispatcher.options = DeliveryOptions(url=options.url, secret=options.secret)
        self.faults.rules.clear()
        self.requests.clear()
        self.replies.clear()
        self.account.objects, self.account.offset, self.account.billing = {}, 0.0, BillingOptions()
        self.account.changes += 1
        self._stock()

    def _stock(self) -> None:
        """Create the price that is on sale from the start."""
        price = self.account.price
        if price not in self.account.table("price"):
            add_price(self.account, "Gemini Pro", amount=999, currency="usd", recurring=True, id=price)

    # --- calls

    async def call(self, method: str, path: str, query: str, body: str, headers: Mapping[str, str]) -> Reply:
        request_id = self.account.new_id("request")
        standard = {"Request-Id": request_id, "Stripe-Version": headers.get("stripe-version") or API_VERSION}
        request: LoggedRequest | None = None
        try:
            params = decode(query, body)
            request = LoggedRequest(request_id, time.time(), method, path, params, headers.get("idempotency-key"))
            self.requests.add(request)
            _check_api_key(headers)
            reply = await self._once(request)
        except StripeError as error:
            reply = Reply.of(error)
        reply.headers = standard | reply.headers
        if request:
            request.status = reply.status
        return reply

    async def _once(self, request: LoggedRequest) -> Reply:
        """Refuse a call whose Idempotency-Key is in use by a call under way."""
        key = request.idempotency_key if request.method == "POST" else None
        if key is None:
            return await self._with_faults(request, None)
        if len(key) > 255:
            raise StripeError(400, "idempotency_error", "Idempotency keys can be at most 255 characters long.")
        if key in self.running:
            raise StripeError(
                409,
                "idempotency_error",
                f"There is currently another in-progress request using this Idempotent Key: {key}. Try again later.",
                code="idempotency_key_in_use",
            )
        self.running.add(key)
        try:
            return await self._with_faults(request, key)
        finally:
            self.running.discard(key)

    async def _with_faults(self, request: LoggedRequest, key: str | None) -> Reply:
        fault = self.faults.take(request.method, request.path)
        if fault is None:
            return self._replayed(request, key)
        request.fault = fault.kind
        reply = self._replayed(request, key) if fault.when == "after" else None
        if fault.kind == "latency":
            await asyncio.sleep(fault.seconds)
        elif fault.kind == "hang":
            await asyncio.Event().wait()  # cancelled when the client leaves
        elif isinstance(fault.kind, int):
            return Reply.of(error_with(fault.kind), fault.headers)
        if fault.kind in ("cut", "broken_json", "html"):
            return Reply(0, "", {}, fault)
        return reply or self._replayed(request, key)

    def _replayed(self, request: LoggedRequest, key: str | None) -> Reply:
        """The earlier reply to this key, or the reply to a call that is carried out now."""
        saved = self.replies.get(key) if key else None
        params = hashlib.sha256(json.dumps([request.path, request.params], sort_keys=True).encode()).hexdigest()
        if not saved or saved["at"] <= self.account.now - KEY_SECONDS:
            return self._performed(request, key, params)
        if saved["asked"] != params:
            raise StripeError(
                400,
                "idempotency_error",
                "Keys for idempotent requests can only be used with the same parameters they were first used with."
                f" Try using a key other than '{key}' if you meant to execute a different request.",
            )
        request.replayed = True
        headers = {"Idempotent-Replayed": "true", "Idempotency-Key": str(key), "Original-Request": saved["request"]}
        return Reply(saved["status"], saved["body"], headers)

    def _performed(self, request: LoggedRequest, key: str | None, params: str) -> Reply:
        self.account.request = RequestRef(request.id, key)
        try:
            body = json.dumps(perform(self.account, request.method, request.path, request.params), indent=2)
            reply = Reply(200, body, {})
        except StripeError as error:
            reply = Reply.of(error)
        finally:
            self.account.request = RequestRef()
        # A refused call is not kept: its key may be used again with better parameters.
        if key and reply.status not in (400, 401, 404):
            saved = {"asked": params, "status": reply.status, "body": reply.body, "request": request.id}
            self.replies[key] = saved | {"at": self.account.now}
            if len(self.replies) > KEPT_REPLIES:
                del self.replies[next(iter(self.replies))]
        reply.headers = {"Idempotency-Key": key} if key else {}
        return reply

    # --- time and disk

    async def run(self) -> None:
        """Carry out what falls due and save the state, until cancelled."""
        saved, ticked, took = self._version(), time.monotonic(), 0.0
        while True:
            await asyncio.sleep(max(SAVE_SECONDS, 10 * took))  # a large account is saved less often
            if time.monotonic() - ticked > TICK_SECONDS:
                ticked = time.monotonic()
                advance(self.account, self.account.now)
            if saved != self._version():
                saved, started = self._version(), time.monotonic()
                self.save()
                took = time.monotonic() - started

    def save(self) -> None:
        if self.state is not None:
            # The names are those of the first version, whose files still load.
            state = {"world": self.account.dump(), "letters": self.dispatcher.dump(), "replies": self.replies}
            write_private(self.state, json.dumps(state))

    def _version(self) -> tuple[int, int, int]:
        return self.account.changes, self.dispatcher.changes, len(self.replies)

    def _load(self) -> None:
        if self.state is not None:
            self.state.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                try:
                    saved = json.loads(self.state.read_text())
                    self.account.load(saved["world"])
                    self.dispatcher.load(saved["letters"])
                    self.replies = saved["replies"]
                except (ValueError, KeyError, TypeError):
                    # Kept for inspection. The stand-in must start anyway.
                    self.state.replace(self.state.with_suffix(".unreadable"))
                    complain(f"The saved account in {self.state} cannot be read, so a new one was created.")
        self._stock()


def _check_api_key(headers: Mapping[str, str]) -> None:
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
