"""Stripe's stand-in as a real server for tests, and a receiver of its events."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import stripe

from tests.support.patience import HANG
from tests.support.standin import Json, StandInProcess, start_standin, until

__all__ = ["Json"]

SECRET = "whsec_standin"
PRICE = "price_standin_pro"


class StripeStandIn(StandInProcess):
    secret = SECRET
    price = PRICE

    def reset(self, webhook_url: str | None = None) -> None:
        """A new account with quick retries of events, where bank debits settle only on request."""
        self.control("POST", "/reset")
        self.control("PUT", "/billing", {"settle_seconds": None})
        address = {} if webhook_url is None else {"url": webhook_url}
        self.delivery(secret=SECRET, retry_first=0.05, retry_longest=0.5, **address)

    def delivery(self, **options: Any) -> None:
        """`url`, `secret`, `delay`, `copies`, `lose`, `shuffle` …: DeliveryOptions in deliveries.py."""
        self.control("PUT", "/delivery", options)

    def billing(self, **options: Any) -> None:
        """`trial_days`, `dunning_end` …: BillingOptions in account.py."""
        self.control("PUT", "/billing", options)

    def pay(self, session: str, card: str = "visa", **who: str) -> Json:
        """What the button of the Checkout page does. Returns the session."""
        return self.control("POST", f"/checkout/{session}/pay", {"card": card, **who})

    def forward(self, **by: float) -> None:
        """`months`, `days`, `hours`, `seconds`. A renewal is charged an hour after its period began."""
        self.control("POST", "/clock", by)

    def fault(self, kind: str | int, *, times: int | None = 1, path: str = "", **more: Any) -> None:
        """The next calls, or those whose path contains `path`, fail; faults.py has the kinds."""
        self.control("POST", "/faults", {"kind": kind, "times": times, "path": path} | more)

    def events(self, **filters: str) -> list[Json]:
        """In the order in which they happened: {id, type, object, customer, state, attempts, …}."""
        query = "&".join(f"{name}={value}" for name, value in filters.items())
        events: list[Json] = self.control("GET", f"/events?{query}")["events"]
        return events

    def object(self, object_id: str) -> Json:
        """Any object, with its private fields."""
        return self.control("GET", f"/objects/{object_id}")

    def counts(self) -> dict[str, int]:
        """How often each call was made: {"POST /v1/customers": 2}."""
        counts: dict[str, int] = self.control("GET", "/requests?limit=0")["counts"]
        return counts

    def requests(self) -> list[Json]:
        requests: list[Json] = self.control("GET", "/requests?limit=5000")["requests"]
        return requests

    async def idle(self, seconds: float = HANG) -> None:
        """Until no event is being delivered any more."""
        assert (await asyncio.to_thread(self.control, "POST", "/events/idle", {"seconds": seconds}))["idle"]

    async def until(self, condition: Callable[[list[Json]], bool], *, seconds: float = HANG) -> list[Json]:
        """The events as soon as the condition holds for them."""
        return await until(self.events, condition, seconds=seconds)


class Receiver:
    """A server in its own thread that receives the events; answers 200 unless `statuses` says otherwise."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], str]] = []
        self.statuses: list[int] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805
                body = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
                self.requests.append((dict(handler.headers), body))
                handler.send_response(self.statuses.pop(0) if self.statuses else 200)
                handler.send_header("Content-Length", "0")
                handler.end_headers()

            def log_message(handler, format: str, *arguments: object) -> None:  # noqa: N805
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/webhook"

    @property
    def types(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.requests]

    def event(self, type_: str) -> stripe.Event:
        """The first event of a type; Stripe's library checks its signature."""
        headers, body = self.requests[self.types.index(type_)]
        event: stripe.Event = stripe.Webhook.construct_event(body, headers["Stripe-Signature"], SECRET)
        return event


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()


def start_stripe_standin(*arguments: str) -> Generator[StripeStandIn, None, None]:
    """In its own process, until the iterator is closed; on a free port unless the arguments name one."""
    options = ("--port", "0", "--price", PRICE, "--webhook-secret", SECRET)
    return start_standin(StripeStandIn, "local.stripe", *options, *arguments)


@pytest.fixture(scope="session")
def stripe_standin_server() -> Iterator[StripeStandIn]:
    yield from start_stripe_standin()


@pytest.fixture
def stripe_standin(stripe_standin_server: StripeStandIn) -> StripeStandIn:
    """The session's stand-in with a new account, whose events go nowhere until a test sets a `url`."""
    stripe_standin_server.reset(webhook_url="")
    return stripe_standin_server
