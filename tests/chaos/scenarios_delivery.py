"""Workers that die, freeze and are stopped: every accepted message ends, once."""

from __future__ import annotations

import asyncio
import random
import signal
import time

from tests.chaos.ledger import Ledger
from tests.chaos.load import Load, percentile
from tests.chaos.world import World, name_of, world
from tests.support.patience import PROCESS_HANG
from tests.support.processes import ProductProcess
from tests.support.scenarios import Row, Scale

MANY = {"FREE_DAILY_MESSAGES": "1000000"}


async def worker_kills(scale: Scale, seed: int) -> Row:
    messages, kills, workers = scale.of(200, 10_000), scale.of(3, 50), scale.of(2, 4)
    per_second = scale.of(40.0, 50.0)
    chance = random.Random(seed)
    async with world(apis=1, workers=workers, **MANY, **scale.settings) as w:
        ledger = await Ledger(w).open()
        w.gemini.pace(first_chunk_seconds=0.5, chunk_seconds=0.3, chunks=2)
        client = w.client()
        load = Load(client, ledger, await w.people(scale.of(20, 1000)), chance)
        moments = sorted(chance.uniform(0.5, messages / per_second) for _ in range(kills))
        began, died = time.monotonic(), dict[str, float]()
        async with asyncio.TaskGroup() as going:
            going.create_task(load.steadily(messages, per_second=per_second))
            for moment in moments:
                await asyncio.sleep(began + moment - time.monotonic())
                name, at = w.kill_worker(chance.choice(await _at_work(w, ledger)))
                died[name] = at
                w.start_worker()
        settled = await ledger.settled(seconds=scale.bound(60))
        report, again = await ledger.report(), await ledger.reclaim_seconds(died)
        queued = await ledger.queue_seconds()
    return Row(
        f"{messages} messages, {workers} worker processes, {kills} SIGKILLs at random moments",
        "0 lost, 0 duplicated; a killed worker's message is running again within 15 s",
        f"{report}; {len(again)} attempts died, running again after p50 {percentile(again, 50):.1f} s,"
        f" at most {max(again, default=0):.1f} s; ordinary wait for a worker p50 {percentile(queued, 50):.2f} s,"
        f" p99 {percentile(queued, 99):.2f} s; {len(load.complaints)} complaints {load.complaints[:2] or ''}",
        report.kept
        and settled is not None
        and bool(again)
        and max(again) <= scale.bound(15)
        and len(ledger.accepted) == messages,
    )


async def frozen_worker(scale: Scale, seed: int) -> Row:
    frozen_seconds, calls = scale.of(8, 60), 20
    async with world(apis=1, workers=1, **MANY, **scale.settings) as w:
        ledger = await Ledger(w).open()
        # Two pieces: the second, and the end, have arrived when the frozen worker thaws.
        w.gemini.pace(first_chunk_seconds=0, chunk_seconds=5, chunks=2)
        client = w.client()
        load = Load(client, ledger, await w.people(calls), random.Random(seed))
        await load.all_at_once([f"Question {number}" for number in range(calls)])
        await w.gemini.until(lambda log: log["open"] == calls)
        frozen = w.workers[0]
        frozen.signal(signal.SIGSTOP)
        w.start_worker()
        thaw_at = time.monotonic() + frozen_seconds
        settled = await ledger.settled(seconds=max(frozen_seconds, scale.bound(30)))
        await w.gemini.until(lambda log: log["open"] == 0)
        await asyncio.sleep(max(0.0, thaw_at - time.monotonic()))
        frozen.signal(signal.SIGCONT)
        await asyncio.sleep(3)
        by_frozen = await _events_by(w, frozen)
        report = await ledger.report()
        alive = frozen.process.poll() is None
    late = by_frozen.get("tried to end", 0)
    return Row(
        f"a worker SIGSTOPped for {frozen_seconds} s with {calls} calls running, then continued",
        "its late writes are refused; one reply each, from the other worker",
        f"{by_frozen.get('claimed', 0)} claimed by the frozen one, {late} late writes tried,"
        f" {by_frozen.get('ended', 0)} of them took effect; {report}",
        report.kept
        and settled is not None
        and alive
        and by_frozen.get("claimed") == calls
        and not by_frozen.get("ended")
        and report.statuses["completed"] == calls,
    )


async def rolling_restart(scale: Scale, seed: int) -> Row:
    drain = scale.of(6.0, 25.0)
    async with world(apis=2, workers=2, SHUTDOWN_SECONDS=str(drain), **MANY, **scale.settings) as w:
        ledger = await Ledger(w).open()
        w.gemini.pace(first_chunk_seconds=0.2, chunk_seconds=0.2, chunks=2)
        # Each worker has calls that end within the drain, and at least one that does not.
        w.gemini.fault(
            "reply", times=None, match="slowly", first_chunk_seconds=0, chunk_seconds=drain * scale.of(0.25, 0.4)
        )
        client = w.client()
        load = Load(client, ledger, await w.people(scale.of(20, 200)), random.Random(seed))
        exits: list[tuple[str, int, float]] = []
        handed_back: list[float] = []
        async with load.running(per_second=scale.of(5, 30), unended=scale.unended):
            async with load.reading(scale.of(4, 16), pause=scale.of(0.1, 0.05)):
                for url, api in list(w.apis.items()):
                    await asyncio.sleep(scale.of(0.5, 3))
                    exits.append(await _stop("API", api))
                    await w.start_api(url)
            hung = await _hang_on_each(w, ledger, load)
            for worker in list(w.workers):
                await load.all_at_once([f"Tell me slowly, {number}" for number in range(10)])
                exits.append(await _stop("worker", worker))
                w.workers.remove(worker)
                left = [id for id, process in hung.items() if process == name_of(worker)]
                handed_back += [await _run_elsewhere(ledger, message_id, worker) for message_id in left]
                w.start_worker()
                await w.workers_ready()
        w.gemini.pace(first_chunk_seconds=0, chunk_seconds=0)
        settled = await ledger.settled(seconds=scale.bound(60))
        report, log = await ledger.report(), await w.model_log()
        queued = await ledger.queue_seconds()
    cut = log["counts"]["client_left"]
    longest = max(seconds for _, _, seconds in exits)
    return Row(
        "SIGTERM to 2 APIs and 2 workers one after the other, at load",
        f"0 failed requests, exit ≤ {drain:.0f} s, calls that end within the drain are not cut,"
        " a longer one is handed back and runs elsewhere within 2 s",
        f"{sum(load.statuses.values())} requests, {len(load.complaints)} failed {load.complaints[:3] or ''};"
        f" exit codes {[code for _, code, _ in exits]}, longest exit {longest:.1f} s;"
        f" {cut} calls cut of {len(hung)} too long;"
        f" running elsewhere after {', '.join(f'{seconds:.2f}' for seconds in handed_back)} s, ordinary wait for a"
        f" worker p50 {percentile(queued, 50):.2f} s, p99 {percentile(queued, 99):.2f} s; {report}",
        report.kept
        and settled is not None
        and not load.complaints
        and all(code == 0 for _, code, _ in exits)
        and longest <= drain + scale.of(60, 0)
        and cut == len(hung)
        and max(handed_back) <= scale.bound(2),
    )


async def poison(scale: Scale, seed: int) -> Row:
    """The harness kills each worker that asks the model the poison question."""
    neighbours, workers = scale.of(20, 50), scale.of(2, 3)
    async with world(apis=1, workers=workers, **MANY, **scale.settings) as w:
        ledger = await Ledger(w).open()
        w.gemini.pace(first_chunk_seconds=0.3, chunk_seconds=0.02)
        w.gemini.fault("hang", times=None, match="Poison")
        client = w.client()
        load = Load(client, ledger, await w.people(10), random.Random(seed))
        person = load.people[0]
        sending = asyncio.create_task(load.steadily(neighbours, per_second=scale.of(10, 2)))
        await asyncio.sleep(1)
        answer = await load.send("Poison", person)
        assert answer is not None
        assert answer.status == 202
        poison_id, deaths, killed = answer.json["data"]["id"], 0, dict[str, float]()
        give_up = time.monotonic() + scale.bound(90)
        while (row := await _row(w, poison_id))["status"] != "failed" and time.monotonic() < give_up:
            claimed = next((e for e in reversed(await ledger.events(poison_id)) if e["event"] == "claimed"), None)
            victim = next((worker for worker in w.workers if claimed and name_of(worker) == claimed["process"]), None)
            asked = sum(call["lastUserText"] == "Poison" for call in (await w.model_log())["calls"])
            if victim is not None and asked > deaths:
                name, at = w.kill_worker(victim)
                killed[name] = at
                deaths += 1
                w.start_worker()
            await asyncio.sleep(0.05)
        await sending
        settled = await ledger.settled(seconds=scale.bound(60))
        report = await ledger.report()
        others = await w.fetch(
            "SELECT status, deaths, extract(epoch FROM completed_at - created_at)::float8 AS wait FROM messages"
            " WHERE id <> $1::text::uuid",
            poison_id,
        )
        refunded = sum(event["event"] == "refunded" for event in await ledger.events(poison_id))
    waits = [other["wait"] for other in others if other["wait"] is not None]
    untouched = [other["wait"] for other in others if not other["deaths"] and other["wait"] is not None]
    return Row(
        f"among {neighbours} messages one that kills its worker each time",
        "failed with workers_died after 3 deaths and refunded; no neighbour fails",
        f"{deaths} workers killed, then {row['status']} {row['error_code']}, refunded {refunded} time(s); neighbours:"
        f" p50 {percentile(waits, 50):.2f} s, longest {max(waits):.2f} s;"
        f" {len(waits) - len(untouched)} died with it, of the others the longest {max(untouched):.2f} s; {report}",
        report.kept
        and settled is not None
        and row["error_code"] == "workers_died"
        and deaths == 3
        and refunded == 1
        and all(other["status"] == "completed" for other in others)
        and not load.complaints,
    )


async def _at_work(w: World, ledger: Ledger) -> list[ProductProcess]:
    """The workers that have messages, as soon as there are any."""
    while True:
        holders = await ledger.holders()
        if found := [worker for worker in w.workers if name_of(worker) in holders]:
            return found
        await asyncio.sleep(0.05)


async def _row(w: World, message_id: str) -> dict[str, object]:
    return (await w.fetch("SELECT status, error_code FROM messages WHERE id = $1::text::uuid", message_id))[0]


async def _events_by(w: World, worker: ProductProcess) -> dict[str, int]:
    found = await w.fetch("SELECT event, count(*) AS n FROM witness WHERE process = $1 GROUP BY event", name_of(worker))
    return {row["event"]: row["n"] for row in found}


async def _stop(kind: str, process: ProductProcess) -> tuple[str, int, float]:
    """Send SIGTERM. Returns the kind of process, its exit code and the seconds it took."""
    began = time.monotonic()
    code = await asyncio.to_thread(process.stop, within=PROCESS_HANG)
    return kind, code, time.monotonic() - began


async def _hang_on_each(w: World, ledger: Ledger, load: Load) -> dict[str, str]:
    """Messages whose first call does not end, by id, with their worker; at least one for each worker."""
    hung: dict[str, str] = {}
    while {name_of(worker) for worker in w.workers} - set(hung.values()):
        text = f"Hang {load.random.getrandbits(64):x}"
        w.gemini.fault("hang_mid_stream", match=text, after=1)
        answer = await load.send(text)
        assert answer is not None
        message_id = str(answer.json["data"]["id"])
        give_up = time.monotonic() + PROCESS_HANG
        while not (claims := [e for e in await ledger.events(message_id) if e["event"] == "claimed"]):
            assert time.monotonic() < give_up, "nobody takes the message"
            await asyncio.sleep(0.02)
        hung[message_id] = claims[0]["process"]
    return hung


async def _run_elsewhere(ledger: Ledger, message_id: str, worker: ProductProcess) -> float:
    """Seconds from returning the message until another worker claimed it."""
    give_up = time.monotonic() + PROCESS_HANG
    while True:
        events = [e for e in await ledger.events(message_id) if e["event"] in ("claimed", "handed back")]
        back = next((at for at, e in enumerate(events) if e["event"] == "handed back"), None)
        if back is not None and back + 1 < len(events):
            assert events[back + 1]["process"] != name_of(worker)
            return float(events[back + 1]["at"] - events[back]["at"])
        assert time.monotonic() < give_up, f"never ran elsewhere: {events}"
        await asyncio.sleep(0.05)
