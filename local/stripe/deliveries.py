"""Deliveries of events: signed, repeated until they are accepted, and as unreliable as they are set to be."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import aiohttp

from local.standin import Json
from local.stripe.account import KEPT_EVENTS


@dataclass(frozen=True)
class DeliveryOptions:
    """How events are delivered; PUT /control/delivery changes it. Times are in seconds."""

    url: str = ""
    secret: str = ""
    delay: float = 0  # before the first attempt
    copies: int = 1  # how often each event is sent
    lose: tuple[str, ...] = ()  # types that are never sent; "*" is all of them
    shuffle: int | None = None  # a seed: events within `window` are sent one by one, in random order
    window: float = 0.2
    concurrency: int = 16
    timeout: float = 10
    retry_first: float = 1  # doubled each time
    retry_longest: float = 60
    retries: int = 40


@dataclass
class Attempt:
    at: float
    seconds: float = 0
    status: int | None = None
    error: str | None = None


@dataclass
class Delivery:
    """Its state is waiting, lost, delivered, failed (no retries left) or unaddressed (no URL)."""

    event: str
    type: str
    state: str = "waiting"
    attempts: list[Attempt] = field(default_factory=list)


def signature(body: str, secret: str, at: int) -> str:
    """The Stripe-Signature header. In test mode it has a second, meaningless scheme, v0."""
    mac = hmac.new(secret.encode(), f"{at}.{body}".encode(), hashlib.sha256).hexdigest()
    return f"t={at},v1={mac},v0={hashlib.sha256(mac.encode()).hexdigest()}"


class Dispatcher:
    """Sends the events. Needs a running loop as soon as there is something to send."""

    def __init__(self, options: DeliveryOptions, event_by_id: Callable[[str], Json | None]) -> None:
        self.options = options
        self.deliveries: dict[str, Delivery] = {}
        self.changes = 0
        self._event_by_id = event_by_id
        self._tasks: set[asyncio.Task[None]] = set()
        self._batch: list[Delivery] = []  # to be shuffled
        self._slots = asyncio.Semaphore(options.concurrency)
        self._http: aiohttp.ClientSession | None = None

    def change(self, options: Json) -> None:
        """Raises TypeError for an unknown option."""
        lose = options.get("lose", self.options.lose)
        lose = (lose,) if isinstance(lose, str) else tuple(lose or ())
        self.options = replace(self.options, **options | {"lose": lose})
        self._slots = asyncio.Semaphore(self.options.concurrency)

    def dispatch(self, event: Json) -> None:
        delivery = self.deliveries[event["id"]] = Delivery(event["id"], event["type"])
        if len(self.deliveries) > KEPT_EVENTS:
            del self.deliveries[next(iter(self.deliveries))]
        options = self.options
        if not options.url:
            delivery.state = "unaddressed"
        elif "*" in options.lose or event["type"] in options.lose:
            delivery.state = "lost"
        elif options.shuffle is not None:
            if not self._batch:
                self._spawn(self._send_shuffled(options.window, options.shuffle))
            self._batch.append(delivery)
        else:
            self._spawn(self._deliver(delivery, options.delay))
            for _ in range(options.copies - 1):
                self._spawn(self._send_once(delivery, options.delay))

    def resume(self) -> None:
        """Go on with what was waiting when the stand-in was stopped."""
        for delivery in self.deliveries.values():
            if delivery.state == "waiting":
                self._spawn(self._deliver(delivery, 0))

    async def idle(self, seconds: float) -> bool:
        """Wait until nothing is being delivered, retries included; False if that takes longer."""
        if not self._tasks:
            return True
        _, unfinished = await asyncio.wait(set(self._tasks), timeout=seconds)
        return not unfinished and (not self._tasks or await self.idle(seconds))

    def clear(self) -> None:
        for task in self._tasks:
            task.cancel()
        self.deliveries.clear()
        self._batch.clear()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._http:
            await self._http.close()

    def as_json(self, delivery: Delivery) -> Json:
        event = self._event_by_id(delivery.event) or {}
        item = event.get("data", {}).get("object", {})
        return {
            "id": delivery.event,
            "type": delivery.type,
            "created": event.get("created"),
            "object": item.get("id"),
            "customer": item["id"] if item.get("object") == "customer" else item.get("customer"),
            "state": delivery.state,
            "attempts": [asdict(attempt) for attempt in delivery.attempts],
        }

    def dump(self) -> list[Json]:
        return [{"event": item.event, "type": item.type, "state": item.state} for item in self.deliveries.values()]

    def load(self, saved: list[Json]) -> None:
        self.deliveries = {item["event"]: Delivery(**item) for item in saved}

    async def _deliver(self, delivery: Delivery, delay: float) -> None:
        await asyncio.sleep(delay)
        for count in range(self.options.retries + 1):
            async with self._slots:
                await self._send(delivery)
            if delivery.state == "delivered":
                return
            await asyncio.sleep(min(self.options.retry_first * 2**count, self.options.retry_longest))
        delivery.state = "failed"

    async def _send_once(self, delivery: Delivery, delay: float) -> None:
        await asyncio.sleep(delay)
        async with self._slots:
            await self._send(delivery)

    async def _send_shuffled(self, window: float, seed: int) -> None:
        await asyncio.sleep(window)
        batch, self._batch = random.Random(seed).sample(self._batch, len(self._batch)), []
        for delivery in batch:
            for _ in range(self.options.copies):
                await self._send(delivery)
            if delivery.state != "delivered":
                self._spawn(self._deliver(delivery, self.options.retry_first))

    async def _send(self, delivery: Delivery) -> None:
        """One attempt, now."""
        event = self._event_by_id(delivery.event)
        if event is None:  # no longer kept
            return
        body, attempt = json.dumps(event, indent=2, ensure_ascii=False), Attempt(time.time())
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            "Stripe-Signature": signature(body, self.options.secret, int(attempt.at)),
        }
        if self._http is None:
            self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        timeout = aiohttp.ClientTimeout(total=self.options.timeout)
        try:
            # Stripe counts a redirect as a failure.
            async with self._http.post(
                self.options.url, data=body.encode(), headers=headers, allow_redirects=False, timeout=timeout
            ) as response:
                await response.read()
                attempt.status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            attempt.error = type(error).__name__
        attempt.seconds = round(time.time() - attempt.at, 4)
        delivery.attempts.append(attempt)
        self.changes += 1
        if attempt.status is not None and 200 <= attempt.status < 300:
            delivery.state = "delivered"
            event["pending_webhooks"] = 0

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
