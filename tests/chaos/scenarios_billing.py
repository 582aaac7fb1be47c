"""Stripe's events late, twice, in any order or never; and a product that dies while it handles them."""

from __future__ import annotations

import asyncio
import copy
import itertools
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg

from tests.chaos.client import Person
from tests.chaos.ledger import Ledger
from tests.chaos.load import Load, percentile
from tests.chaos.shop import Shop, shop
from tests.support.patience import PROCESS_HANG
from tests.support.processes import ROOT
from tests.support.scenarios import Row, Scale
from tests.support.stripe_standin import Json

PARALLEL = 200

_LIFE = (
    "customer.subscription.created",
    "checkout.session.completed",
    "invoice.paid",
    "invoice.payment_failed",
    "customer.subscription.updated",
)


async def one_event_often(scale: Scale, seed: int) -> Row:
    times, at_once, rounds = 100, 50, scale.of(1, 20)
    wrong: list[str] = []
    readings = 0
    async with shop(apis=2, workers=2, **scale.settings) as s:
        await s.client.warm_up(at_once // 2)
        for person in await s.w.people(rounds):
            session = await s.pay(await s.subscribe(person))
            (event,) = await s.happened(session["customer"], "checkout.session.completed")
            before, s.answers = await _account(s, person), Counter()
            places = asyncio.Semaphore(at_once)

            async def tell(event: Json = event, places: asyncio.Semaphore = places) -> None:
                async with places:
                    await s.tell(event)

            await asyncio.gather(*(tell() for _ in range(times)))
            read = await s.all_read(seconds=scale.bound(10))
            after = await _account(s, person)
            kept = await s.w.fetch("SELECT FROM payment_events WHERE id = $1", event["id"])
            effects = after["changes"] - before["changes"]
            readings += after["attempt"] - before["attempt"]
            if (dict(s.answers), len(kept), effects, read is None) != ({200: times}, 1, 1, False):
                wrong.append(f"{dict(s.answers)}, kept {len(kept)} times, {effects} effects")
            if person.id not in await s.pro():
                wrong.append("not Pro")
    return Row(
        f"one event {times} times, {at_once} at once, over 2 API processes, {rounds} rounds",
        f"each round {times} × 200, the event kept once, one effect, Pro",
        f"{len(wrong)} rounds differ {wrong[:3] or ''}; {readings} readings for {rounds * times} deliveries",
        not wrong and readings == rounds,
    )


async def any_order(scale: Scale, seed: int) -> Row:
    """Six events of a subscription. The last change happens at Stripe while earlier events are being delivered."""
    chance = random.Random(seed)
    orders = list(itertools.permutations(range(6)))
    orders = scale.of(chance.sample(orders, 12), orders)
    async with shop(apis=2, workers=2, **scale.settings) as s:
        people = await s.w.people(len(orders))
        should_be_pro = {person.id for number, person in enumerate(people) if number % 2}
        places = asyncio.Semaphore(8)

        async def live(person: Person, order: Sequence[int], random_: random.Random) -> int:
            async with places:
                session = await s.pay(await s.subscribe(person), "visa")
                given, invoice = session["subscription"], session["invoice"]
                await s.control("POST", "/events", {"type": "invoice.payment_failed", "object": invoice})
                await _become(s, given, "past_due" if person.id in should_be_pro else "active", metadata=person.id)
                events = await s.happened(session["customer"], *_LIFE)
                sequence = [*order]
                for _ in range(random_.randrange(5)):
                    again = random_.randrange(len(sequence))
                    sequence.insert(random_.randrange(again + 1, len(sequence) + 1), sequence[again])
                for number in sequence:
                    if number == 5 and len(events) == 5:
                        if person.id in should_be_pro:
                            await _become(s, given, "active", metadata=person.id)
                            last = "customer.subscription.updated"
                        else:
                            await s.rest("DELETE", f"/subscriptions/{given}")
                            last = "customer.subscription.deleted"
                        events += await s.happened(session["customer"], last)
                    await s.tell(events[number])
                return len(sequence)

        lives = zip(people, orders, strict=True)
        delivered = sum(
            await asyncio.gather(*(live(person, order, random.Random(chance.random())) for person, order in lives))
        )
        read = await s.all_read(seconds=scale.bound(60))
        pro = await s.pro()
        statuses = Counter(row["status"] for row in await s.w.fetch("SELECT status FROM subscriptions"))
        readings = (await s.w.fetch("SELECT sum(attempt) AS n FROM billing_accounts"))[0]["n"]
        fewest = (await s.w.fetch("SELECT min(attempt) AS n FROM billing_accounts"))[0]["n"]
    right = sum((person.id in pro) == (person.id in should_be_pro) for person in people)
    return Row(
        f"a life's 6 events in {'all ' if scale.long else ''}{len(orders)} orders, duplicates at random, 2 workers;"
        " the last thing happens among the deliveries",
        f"{len(orders)} right tiers, half of them Pro",
        f"{right} right, {len(pro)} Pro, {dict(statuses)}; {delivered} deliveries: {dict(s.answers)};"
        f" {readings} readings, at least {fewest} each",
        right == len(orders) and read is not None and set(s.answers) == {200} and fewest > 0,
    )


async def webhooks_without_postgres(scale: Scale, seed: int) -> Row:
    away, buyers = scale.of(3.0, 60.0), scale.of(10, 50)
    async with shop(apis=1, workers=1, **scale.impatient) as s:
        notified, unnotified = await s.w.people(buyers), await s.w.people(buyers)
        checkouts = [await s.subscribe(person) for person in [*notified, *unnotified]]
        await s.listen(retry_first=0.5, retry_longest=scale.of(1.0, 10.0), timeout=10)
        await asyncio.to_thread(s.w.postgres.kill)
        began = time.monotonic()
        for number, checkout in enumerate(checkouts[:buyers]):
            await asyncio.sleep(began + number * away / buyers - time.monotonic())
            await s.pay(checkout)
        await asyncio.sleep(began + away - time.monotonic())
        back = time.time()
        await asyncio.to_thread(s.w.postgres.start)
        healed = await s.until_pro(notified, seconds=scale.bound(30))
        await s.stripe.idle(60)
        events = [event for event in s.stripe.events() if _matters(event["type"])]
        attempts = [attempt for event in events for attempt in event["attempts"]]
        meanwhile = Counter(one["status"] or one["error"] for one in attempts if one["at"] + one["seconds"] < back)
        untaken = [event["type"] for event in events if event["state"] in ("waiting", "failed")]
        # The same without any event.
        await s.listen(lose=["*"])
        for checkout in checkouts[buyers:]:
            await s.pay(checkout)
        still_basic = not {person.id for person in unnotified} & await s.pro()
        took = time.monotonic()
        reconciled = await asyncio.to_thread(_reconcile, s.w.environment)
        all_pro = await s.until_pro(unnotified, seconds=scale.bound(2))
        took = time.monotonic() - took
        alive = all(process.process.poll() is None for process in [*s.w.apis.values(), *s.w.workers])
    return Row(
        f"Postgres dead for {away:.0f} s while {buyers} pay, and Stripe tries again; {buyers} without any event",
        "meanwhile only 503, then the right tier; those lost for good healed by the next reconcile",
        f"meanwhile {dict(meanwhile)}; {buyers} Pro {_seconds(healed)} after its return, {len(untaken)} not taken;"
        f" reconcile: {reconciled.stdout.strip()} {took:.1f} s with its start",
        set(meanwhile) == {503}
        and healed is not None
        and not untaken
        and still_basic
        and reconciled.returncode == 0
        and all_pro is not None
        and alive,
    )


async def parallel_subscribes(scale: Scale, seed: int) -> Row:
    rounds = scale.of(1, 20)
    wrong: list[str] = []
    slowest = 0.0
    async with shop(apis=2, workers=1, **scale.settings) as s:
        await s.client.warm_up(PARALLEL // 2)
        for person in await s.w.people(rounds):
            s.stripe.control("DELETE", "/requests")
            answers = await asyncio.gather(
                *(s.client.ask(person, "POST", "/subscribe/pro", {}) for _ in range(PARALLEL))
            )
            urls = {answer.json["url"] for answer in answers if answer.status == 200}
            account = await _account(s, person)
            sessions = await s.rest(
                "GET", f"/checkout/sessions?status=open&limit=100&customer={account['customer_id']}"
            )
            calls = s.stripe.counts()
            made = (calls.get("POST /v1/customers"), calls.get("POST /v1/checkout/sessions"), len(sessions["data"]))
            statuses = Counter(answer.status for answer in answers)
            slowest = max(slowest, *(answer.seconds for answer in answers))
            if (statuses, len(urls), made) != ({200: PARALLEL}, 1, (1, 1, 1)):
                wrong.append(f"{dict(statuses)}, {len(urls)} urls, customers, sessions, open ones: {made}")
        customers = (await s.control("GET", "/"))["objects"]["customer"]
    return Row(
        f"{PARALLEL} parallel POST /subscribe/pro by one user over 2 API processes, {rounds} rounds",
        f"each round 1 customer, 1 open session, {PARALLEL} × 200 with the same url",
        f"{len(wrong)} rounds differ {wrong[:3] or ''}; {customers} customers in all; slowest answer {slowest:.2f} s",
        not wrong and customers == rounds,
    )


async def upgrade_amid_sends(scale: Scale, seed: int) -> Row:
    """The database announces the commit, so a message sent after the announcement was sent after the commit."""
    rounds, over = scale.of(1, 20), 2.0
    late_refusals = early_refusals = accepted_late = 0
    chance = random.Random(seed)
    async with shop(apis=2, workers=1, **scale.settings) as s, AsyncExitStack() as going:
        await s.w.execute(_ANNOUNCE_UPGRADES)
        ledger = await Ledger(s.w).open()
        await s.listen()
        client = s.w.client()
        await client.warm_up(30)
        upgraded = await going.enter_async_context(_upgrades(s))
        for person in await s.w.people(rounds):
            load = Load(client, ledger, [person], chance, also=frozenset({403}))
            checkout = await s.subscribe(person)
            sent: list[tuple[float, int]] = []

            async def send(after: float, load: Load = load, sent: list[tuple[float, int]] = sent) -> None:
                await asyncio.sleep(after)
                began = time.perf_counter()
                answer = await load.send()
                sent.append((began, answer.status if answer else 0))

            async with asyncio.TaskGroup() as sending:
                for _ in range(PARALLEL):
                    sending.create_task(send(chance.uniform(0, over)))
                await asyncio.sleep(chance.uniform(0.1, 0.4) * over)
                sending.create_task(s.pay(checkout))
            await s.until_pro([person], seconds=scale.bound(10))
            while person.id not in upgraded:  # noqa: ASYNC110 - the announcement may come a moment later
                await asyncio.sleep(0.01)
            await asyncio.gather(*(send(0) for _ in range(10)))
            at = upgraded[person.id]
            late_refusals += sum(status != 202 for began, status in sent if began > at)
            accepted_late += sum(status == 202 for began, status in sent if began > at)
            early_refusals += sum(status == 403 for began, status in sent if began <= at)
            assert not load.complaints, load.complaints[:3]
        settled = await ledger.settled(seconds=scale.bound(60))
        report = await ledger.report()
    return Row(
        f"the webhook lands amid {PARALLEL} sends within {over:.0f} s by one Basic user, {rounds} rounds",
        "nothing accepted is lost; no 403 for what is sent after the commit",
        f"{early_refusals} refused before; after the commit {accepted_late} accepted, {late_refusals} refused;"
        f" {len(upgraded)} upgrades; {report}",
        late_refusals == 0
        and accepted_late > 0
        and early_refusals > 0
        and len(upgraded) == rounds
        and settled is not None
        and report.kept,
    )


async def readers_that_die(scale: Scale, seed: int) -> Row:
    async with shop(apis=1, workers=1, **scale.impatient) as s:
        asha, bela = await s.w.people(2)
        first, second = await s.subscribe(asha), await s.subscribe(bela)
        await s.listen()

        # Stripe is slow, and the worker dies while it waits.
        s.stripe.fault("latency", path="/v1/subscriptions", seconds=4)
        await s.pay(first)
        held = await _held(s, seconds=PROCESS_HANG)
        s.w.kill_worker(s.w.workers[0])
        died = time.monotonic()
        s.w.start_worker()
        await s.w.workers_ready()
        if not scale.long:  # pretend that the lease has expired: it is longer than a small run
            await s.w.execute("UPDATE billing_accounts SET lease_until = now() WHERE lease_until > now()")
        healed = await s.until_pro([asha], seconds=120)
        again = time.monotonic() - died

        # The notification is lost.
        await asyncio.to_thread(s.w.valkey.kill)
        await s.pay(second)
        swept = await s.until_pro([bela], seconds=scale.bound(20))
        await s.stripe.idle(60)
        statuses = Counter(one["status"] for event in s.stripe.events() for one in event["attempts"])
    return Row(
        "a worker SIGKILLed between claim and finish of a reading; then Redis dead when an event comes",
        "read by another one once the lease of 90 s is over; without Redis within 15 s by the sweep",
        f"held: {held}; Pro {again:.1f} s after the kill{'' if scale.long else ' (lease cut short)'};"
        f" without Redis {_seconds(swept)} after paying; webhooks {dict(statuses)}",
        held
        and healed is not None
        and swept is not None
        and again <= scale.bound(100)
        and swept <= scale.bound(15)
        and set(statuses) == {200},
    )


async def webhook_flood(scale: Scale, seed: int) -> Row:
    per_second, seconds, owners = scale.of(100, 200), scale.of(3, 60), scale.of(20, 50)
    chance = random.Random(seed)
    async with shop(apis=1, workers=1, **scale.settings) as s:
        people = await s.w.people(owners)
        events = []
        for person in people:
            session = await s.pay(await s.subscribe(person))
            events += await s.happened(session["customer"], "customer.subscription.created")
        # As slow as Stripe. Otherwise the stand-in would be called more often than Stripe allows.
        s.stripe.fault("latency", times=None, seconds=0.1)
        await s.client.warm_up(20)
        total, loop = per_second * seconds, asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as telling:
            for number in range(total):
                event = copy.copy(chance.choice(events)) | {"id": f"evt_flood{number}"}
                await asyncio.sleep(began + number / per_second - loop.time())
                telling.create_task(s.tell(event))
        sent = loop.time() - began
        read = await s.all_read(seconds=scale.bound(30))
        kept = (await s.w.fetch("SELECT count(*) AS n FROM payment_events"))[0]["n"]
        readings = (await s.w.fetch("SELECT sum(attempt) AS n FROM billing_accounts"))[0]["n"]
        pro = len(await s.pro())
    p99 = percentile(s.seconds, 99)
    return Row(
        f"{per_second} webhooks/s for {seconds} s about {owners} customers; Stripe takes 0.1 s for a call",
        "p99 ≤ 250 ms, none refused; all applied",
        f"{total} sent in {sent:.1f} s: {dict(s.answers)}, p50 {percentile(s.seconds, 50) * 1000:.0f} ms,"
        f" p99 {p99 * 1000:.0f} ms, longest {max(s.seconds) * 1000:.0f} ms; {kept} kept, {readings} readings,"
        f" the last {_seconds(read)} after the last event; {pro} Pro",
        dict(s.answers) == {200: total}
        and kept == total
        and read is not None
        and pro == owners
        and (not scale.long or p99 <= 0.25),
    )


def _matters(type_: str) -> bool:
    """Whether the event can change a tier. Others are answered without the database."""
    return type_.startswith(("checkout.session.", "customer.subscription.")) or type_ in _LIFE


_ANNOUNCE_UPGRADES = """
CREATE FUNCTION announce_upgrade() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('upgraded', NEW.id::text);
    RETURN NEW;
END $$;
CREATE TRIGGER upgraded AFTER UPDATE OF pro_until ON users FOR EACH ROW
    WHEN (NEW.pro_until IS NOT NULL) EXECUTE FUNCTION announce_upgrade();
"""


@asynccontextmanager
async def _upgrades(s: Shop) -> AsyncIterator[dict[str, float]]:
    """When each user's upgrade was announced, by time.perf_counter()."""
    heard: dict[str, float] = {}
    listener = await asyncpg.connect(s.w.postgres.url)
    try:
        await listener.add_listener("upgraded", lambda *arguments: heard.setdefault(arguments[3], time.perf_counter()))
        yield heard
    finally:
        await listener.close()


async def _account(s: Shop, person: Person) -> dict[str, Any]:
    return (await s.w.fetch("SELECT * FROM billing_accounts WHERE user_id = $1::text::uuid", person.id))[0]


async def _become(s: Shop, subscription: str, status: str, *, metadata: str) -> None:
    """Change the subscription, in its metadata at least, so that Stripe emits an event."""
    changed = {"user_id": metadata, "changed": f"{time.monotonic_ns()}"}
    change = {"set": {"status": status, "metadata": changed}, "emit": "customer.subscription.updated"}
    await s.control("PATCH", f"/objects/{subscription}", change)


async def _held(s: Shop, *, seconds: float) -> bool:
    """Whether a worker holds an account, as soon as one does."""
    give_up = time.monotonic() + seconds
    while not await s.w.fetch("SELECT FROM billing_accounts WHERE lease_until > now()"):
        if time.monotonic() > give_up:
            return False
        await asyncio.sleep(0.01)
    return True


def _reconcile(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "entrypoints.cli", "billing", "reconcile"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _seconds(found: float | None) -> str:
    return "never" if found is None else f"{found:.1f} s"
