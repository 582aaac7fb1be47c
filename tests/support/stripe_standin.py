"""Stripe's stand-in as a real server for tests, and what they tell it and ask of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import Request, urlopen

import pytest
import stripe

from tests.support.patience import HANG, PROCESS_HANG

Json = dict[str, Any]

SECRET = "whsec_standin"
PRICE = "price_standin_pro"


class StripeStandIn:
    """Blocking calls on loopback of about a millisecond: simple, and usable from any test."""

    secret = SECRET
    price = PRICE

    def __init__(self, url: str) -> None:
        self.url = url

    def reset(self, webhook_url: str | None = None) -> None:
        """A new account, told of by quick retries; bank debits settle only when told to."""
        self.control("POST", "/reset")
        self.control("PUT", "/billing", {"settle_seconds": None})
        address = {} if webhook_url is None else {"url": webhook_url}
        self.delivery(secret=SECRET, retry_first=0.05, retry_longest=0.5, **address)

    def delivery(self, **settings: Any) -> None:
        """`url`, `secret`, `delay`, `copies`, `lose`, `hold`, `shuffle` …: Delivery in events.py."""
        self.control("PUT", "/delivery", settings)

    def billing(self, **settings: Any) -> None:
        """`decline_next`, `trial_days`, `dunning_end` …: Billing in world.py."""
        self.control("PUT", "/billing", settings)

    def pay(self, session: str, card: str = "visa", **who: str) -> Json:
        """What the button of the Checkout page does. Returns the session."""
        return self.control("POST", f"/checkout/{session}/pay", {"card": card, **who})

    def forward(self, **by: float) -> None:
        """`months`, `days`, `hours`, `seconds`. A renewal is charged an hour after its period began."""
        self.control("POST", "/clock", by)

    def fault(self, kind: str | int, *, times: int | None = 1, path: str = "", **more: Any) -> None:
        """The next calls, or those whose path contains `path`, go wrong; kinds in faults.py."""
        self.control("POST", "/faults", {"kind": kind, "times": times, "path": path} | more)

    def release(self, **how: Any) -> list[Json]:
        """Sends what is held, one by one; returns the events with their deliveries."""
        events: list[Json] = self.control("POST", "/events/release", how)["events"]
        return events

    def events(self, **filters: str) -> list[Json]:
        """In the order in which they happened: {id, type, object, customer, state, attempts, …}."""
        query = "&".join(f"{name}={value}" for name, value in filters.items())
        events: list[Json] = self.control("GET", f"/events?{query}")["events"]
        return events

    def object(self, given: str) -> Json:
        """Anything by its id, as it is kept."""
        return self.control("GET", f"/objects/{given}")

    def counts(self) -> dict[str, int]:
        """How often each call was made: {"POST /v1/customers": 2}."""
        counts: dict[str, int] = self.control("GET", "/requests?limit=0")["counts"]
        return counts

    def requests(self) -> list[Json]:
        requests: list[Json] = self.control("GET", "/requests?limit=5000")["requests"]
        return requests

    async def idle(self, seconds: float = HANG) -> None:
        """Until nothing is being delivered any more."""
        assert (await asyncio.to_thread(self.control, "POST", "/events/idle", {"seconds": seconds}))["idle"]

    async def until(self, condition: Callable[[list[Json]], bool], *, seconds: float = HANG) -> list[Json]:
        """The events as soon as the condition holds for them."""
        give_up = time.monotonic() + seconds
        while not condition(events := self.events()):
            assert time.monotonic() < give_up, f"did not come true within {seconds} s"
            await asyncio.sleep(0.01)
        return events

    def control(self, method: str, path: str, body: Any = None) -> Json:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = Request(f"{self.url}/control{path}", data=data, method=method, headers=headers)  # noqa: S310 - loopback
        with urlopen(request, timeout=2 * HANG) as response:  # noqa: S310
            reply: Json = json.load(response)
            return reply


class Receiver:
    """Where the events go: a server in a thread of its own, which answers 200 or what it was told."""

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
        """The first of a type, its signature checked by Stripe's library."""
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
    """A stand-in in a process of its own on a free port, until the iterator is closed."""
    command = [
        sys.executable,
        "-m",
        "local.stripe",
        "--price",
        PRICE,
        "--webhook-secret",
        SECRET,
        *arguments,
    ]
    if "--port" not in arguments:
        command += ["--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert "http://" in line, f"the stand-in did not start: {line!r}"
            yield StripeStandIn(line.split()[-1])
        finally:
            process.terminate()
            try:
                process.wait(PROCESS_HANG)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="session")
def stripe_standin_server() -> Iterator[StripeStandIn]:
    yield from start_stripe_standin()


@pytest.fixture
def stripe_standin(stripe_standin_server: StripeStandIn) -> StripeStandIn:
    """The session's stand-in with a new account, whose events go nowhere until a test names a `url`."""
    stripe_standin_server.reset(webhook_url="")
    return stripe_standin_server
