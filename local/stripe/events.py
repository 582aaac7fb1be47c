"""How Stripe's stand-in tells of events: signed, again until they are taken, and as badly as it is told to."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import aiohttp

from local.stripe.faults import Json
from local.stripe.world import KEPT_EVENTS, shuffled


@dataclass(frozen=True)
class Delivery:
    """How events are delivered, changed by PUT /control/delivery; times in seconds."""

    url: str = ""
    secret: str = ""
    delay: float = 0  # before the first attempt
    copies: int = 1  # how often each event is sent
    lose: tuple[str, ...] = ()  # types that are never sent; "*" is all of them
    hold: bool = False  # keeps them until POST /control/events/release
    shuffle: int | None = None  # a seed: what happens within `window` is sent in another order, one by one
    window: float = 0.2
    concurrency: int = 16
    timeout: float = 10
    retry_first: float = 1  # doubled each time
    retry_longest: float = 60
    retries: int = 40


@dataclass
class Attempt:
    at: float
    seconds: float
    status: int | None
    error: str | None = None


@dataclass
class Letter:
    """waiting, held, lost, delivered, failed (all retries used up), or unaddressed: there is no URL."""

    event: str
    type: str
    state: str = "waiting"
    attempts: list[Attempt] = field(default_factory=list)


def signature(body: str, secret: str, at: int) -> str:
    """The header Stripe-Signature. In test mode there is a second, meaningless scheme v0 beside it."""
    mac = hmac.new(secret.encode(), f"{at}.{body}".encode(), hashlib.sha256).hexdigest()
    return f"t={at},v1={mac},v0={hashlib.sha256(mac.encode()).hexdigest()}"


class Courier:
    """Needs a running loop once there is something to send."""

    def __init__(self, settings: Delivery, event_by_id: Callable[[str], Json | None]) -> None:
        self.settings = settings
        self.event_by_id = event_by_id
        self.letters: dict[str, Letter] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._bag: list[Letter] = []
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._http: aiohttp.ClientSession | None = None
        self.changes = 0

    def change(self, **given: Any) -> None:
        """Raises TypeError for a name that does not exist."""
        lose = given.get("lose", self.settings.lose)
        given["lose"] = (lose,) if isinstance(lose, str) else tuple(lose or ())
        self.settings = replace(self.settings, **given)
        self._slots = asyncio.Semaphore(self.settings.concurrency)

    def take(self, event: Json) -> None:
        letter = self.letters[event["id"]] = Letter(event["id"], event["type"])
        if len(self.letters) > KEPT_EVENTS:
            del self.letters[next(iter(self.letters))]
        settings = self.settings
        if not settings.url:
            letter.state = "unaddressed"
        elif "*" in settings.lose or event["type"] in settings.lose:
            letter.state = "lost"
        elif settings.hold:
            letter.state = "held"
        elif settings.shuffle is not None:
            if not self._bag:
                self._spawn(self._empty_bag(settings.window, settings.shuffle))
            self._bag.append(letter)
        else:
            self._spawn(self._deliver(letter, settings.delay))
            for _ in range(settings.copies - 1):
                self._spawn(self._send_once(letter, settings.delay))

    def resume(self) -> None:
        """What was waiting when the stand-in was stopped goes on."""
        for letter in self.letters.values():
            if letter.state == "waiting":
                self._spawn(self._deliver(letter, 0))

    async def release(self, letters: Iterable[Letter], copies: int = 1) -> list[Letter]:
        """One by one in this order, each after the answer to the one before."""
        done = []
        for letter in letters:
            for _ in range(copies):
                await self.send(letter)
            if letter.state != "delivered":
                letter.state = "waiting"
                self._spawn(self._deliver(letter, self.settings.retry_first))
            done.append(letter)
        return done

    async def send(self, letter: Letter, *, signed_ago: float = 0, secret: str | None = None) -> Attempt:
        """One attempt, now."""
        event = self.event_by_id(letter.event)
        if event is None:
            return Attempt(time.time(), 0, None, "the event is gone")
        body = json.dumps(event, indent=2, ensure_ascii=False)
        began = time.time()
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            "Stripe-Signature": signature(body, secret or self.settings.secret, int(began - signed_ago)),
        }
        attempt = Attempt(began, 0, None)
        try:
            # A redirection is a failure to Stripe.
            async with self._session().post(
                self.settings.url,
                data=body.encode(),
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self.settings.timeout),
            ) as response:
                await response.read()
                attempt.status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            attempt.error = type(error).__name__
        attempt.seconds = round(time.time() - began, 4)
        letter.attempts.append(attempt)
        self.changes += 1
        if attempt.status is not None and 200 <= attempt.status < 300:
            letter.state = "delivered"
            event["pending_webhooks"] = 0
        return attempt

    async def idle(self, seconds: float) -> bool:
        """Waits until nothing is under way, retries included; False if the time was too short."""
        if not self._tasks:
            return True
        _, left = await asyncio.wait(set(self._tasks), timeout=seconds)
        return not left and (not self._tasks or await self.idle(seconds))

    def forget(self) -> None:
        for task in self._tasks:
            task.cancel()
        self.letters.clear()
        self._bag.clear()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._http:
            await self._http.close()

    def as_json(self, letter: Letter) -> Json:
        event = self.event_by_id(letter.event) or {}
        item = event.get("data", {}).get("object", {})
        return {
            "id": letter.event,
            "type": letter.type,
            "created": event.get("created"),
            "object": item.get("id"),
            "customer": item["id"] if item.get("object") == "customer" else item.get("customer"),
            "state": letter.state,
            "attempts": [asdict(attempt) for attempt in letter.attempts],
        }

    def dump(self) -> list[Json]:
        return [{"event": one.event, "type": one.type, "state": one.state} for one in self.letters.values()]

    def load(self, kept: list[Json]) -> None:
        self.letters = {one["event"]: Letter(**one) for one in kept}

    async def _deliver(self, letter: Letter, delay: float) -> None:
        await asyncio.sleep(delay)
        for count in range(self.settings.retries + 1):
            async with self._slots:
                await self.send(letter)
            if letter.state == "delivered":
                return
            await asyncio.sleep(min(self.settings.retry_first * 2**count, self.settings.retry_longest))
        letter.state = "failed"

    async def _send_once(self, letter: Letter, delay: float) -> None:
        await asyncio.sleep(delay)
        async with self._slots:
            await self.send(letter)

    async def _empty_bag(self, window: float, seed: int) -> None:
        await asyncio.sleep(window)
        letters, self._bag = shuffled(self._bag, seed), []
        await self.release(letters, self.settings.copies)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self._http
