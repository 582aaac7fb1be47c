"""The allowance under races: never exceeded, refunded once, and one effect for one key."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import nullcontext

from domain.billing import Tier
from tests.chaos.client import Client, Person
from tests.chaos.ledger import Ledger
from tests.chaos.load import Load, beside, percentile
from tests.chaos.world import World, world
from tests.support.scenarios import Row, Scale

PARALLEL = 200
TOTAL = 5


async def quota_race(scale: Scale, seed: int) -> Row:
    rounds = scale.of(1, 50)
    wrong: list[str] = []
    async with world(apis=2, workers=1, **scale.settings) as w:
        ledger = await Ledger(w).open()
        client = w.client()
        await client.warm_up(PARALLEL // 2)
        for number, person in enumerate(await w.people(rounds)):
            load = Load(client, ledger, [person], random.Random(seed + number), also=frozenset({403}))
            answers = await load.all_at_once([f"Round {number}, send {send}" for send in range(PARALLEL)])
            left = sorted(a.json["remainingMessages"] for a in answers if a and a.status == 202)
            codes = {a.json["code"] for a in answers if a and a.status == 403}
            if load.statuses != {202: TOTAL, 403: PARALLEL - TOTAL} or left != [*range(TOTAL)] or load.complaints:
                wrong.append(f"round {number}: {dict(load.statuses)}, remaining {left}, {load.complaints[:2]}")
            if codes != {"quota_exceeded"} or (used := await _usage(client, person)) != TOTAL:
                wrong.append(f"round {number}: codes {codes}, usage {used}")
        settled = await ledger.settled(seconds=scale.bound(60))
        calls = (await w.model_log())["total"]
        report = await ledger.report()
    return Row(
        f"{PARALLEL} parallel sends by one Basic user over 2 API processes, {rounds} rounds",
        f"each round {TOTAL} × 202, {PARALLEL - TOTAL} × 403, {TOTAL} calls of the model, usage {TOTAL}",
        f"{len(wrong)} rounds differ {wrong[:3] or ''}, {calls} calls; {report}",
        not wrong and calls == rounds * TOTAL and settled is not None and report.kept,
    )


async def refund_race(scale: Scale, seed: int) -> Row:
    rounds, chance = scale.of(1, 20), random.Random(seed)
    async with world(apis=2, workers=2, **scale.settings) as w:
        ledger = await Ledger(w).open()
        # It fails permanently, but not at once, so that the kills meet calls that are running.
        w.gemini.fault("error_in_stream", times=None, error="bad_request", after=1)
        w.gemini.pace(first_chunk_seconds=0.3)
        client = w.client()
        people = await w.people(rounds)
        load = Load(client, ledger, people, chance, also=frozenset({403}))
        seen: Counter[int] = Counter()
        async with beside(_kill_now_and_then(w, scale, chance)):
            for person in people:
                async with beside(_sample_usage(client, person, seen)):
                    for _ in range(4):  # refunded allowance is used again
                        await asyncio.gather(*(load.send(person=person) for _ in range(PARALLEL)))
                        await asyncio.sleep(chance.uniform(0, 0.4))
        settled = await ledger.settled(seconds=scale.bound(60))
        report = await ledger.report()
        usage = {await _usage(client, person) for person in people}
    all_failed = set(report.statuses) == {"failed"}
    return Row(
        f"the same 4 times in a row while every call fails for good and workers are killed, {rounds} rounds",
        "one refund for each failed message, usage always 0..5 and 0 at the end",
        f"usage sampled {sum(seen.values())} times: {min(seen)}..{max(seen)}, at the end {usage};"
        f" {len(load.complaints)} complaints {load.complaints[:2] or ''}; {report}",
        settled is not None
        and report.kept
        and all_failed
        and usage == {0}
        and min(seen) >= 0
        and max(seen) <= TOTAL
        and not load.complaints,
    )


async def one_key(scale: Scale, seed: int) -> Row:
    rounds = scale.of(1, 10)
    wrong: list[str] = []
    async with world(apis=2, workers=1, **scale.settings) as w:
        ledger = await Ledger(w).open()
        client = w.client()
        await client.warm_up(PARALLEL // 2)
        for person in await w.people(rounds):
            key = f"key-{random.Random(seed).getrandbits(64):x}"
            answers = await asyncio.gather(*(_send_until_answered(client, person, key) for _ in range(PARALLEL)))
            bodies, statuses = {body for _, body in answers}, {status for status, _ in answers}
            stored = await w.fetch("SELECT id FROM messages WHERE user_id = $1::text::uuid", person.id)
            ledger.accepted |= {str(row["id"]) for row in stored}
            if statuses != {202} or len(bodies) != 1 or len(stored) != 1 or await _usage(client, person) != 1:
                wrong.append(f"statuses {statuses}, {len(bodies)} different answers, {len(stored)} messages")
        settled = await ledger.settled(seconds=scale.bound(60))
        calls, report = (await w.model_log())["total"], await ledger.report()
    return Row(
        f"{PARALLEL} parallel requests with one Idempotency-Key over 2 API processes, {rounds} rounds",
        "one message, usage 1, one call of the model, the same answer for all",
        f"{len(wrong)} rounds differ {wrong[:3] or ''}, {calls} calls; {report}",
        not wrong and calls == rounds and settled is not None and report.kept,
    )


async def fairness(scale: Scale, seed: int) -> Row:
    """A Pro user has the maximum in flight, at a worker with few free slots."""
    turn = 0.3
    settings = {
        **scale.settings,
        "RATE_LIMITS": "on",
        "PRO_MESSAGES_PER_MINUTE": "100000",
        "RATE_MESSAGES": "100000/60",
        "WORKER_CONCURRENCY": "20",
    }
    async with world(apis=1, workers=1, **settings) as w:
        ledger = await Ledger(w).open()
        w.gemini.pace(first_chunk_seconds=turn)
        client = w.client()
        flooder = (await w.people(1, tier=Tier.PRO))[0]
        chance = random.Random(seed)
        flood = Load(client, ledger, [flooder], chance, also=frozenset({429}))
        waits: list[list[float]] = []
        for flooded in (False, True):
            people = await w.people(20)
            one_each = Load(client, ledger, people, chance)
            async with beside(_flood(flood)) if flooded else nullcontext():
                while flooded and not flood.statuses[429]:  # noqa: ASYNC110 - only the answers show it
                    await asyncio.sleep(0.05)
                await asyncio.gather(*(one_each.send(person=person) for person in people))
                await _until_answered(w, people)
                waits.append(await _waits(w, people))
        settled = await ledger.settled(seconds=scale.bound(60))
        report = await ledger.report()
    quiet, busy = (f"p50 {percentile(waits[at], 50):.2f} s, longest {max(waits[at]):.2f} s" for at in (0, 1))
    return Row(
        "20 Basic users send one each while a Pro user floods; one worker for 20 at a time",
        "they wait for one turn of the model (0.3 s) at most longer, the flooder gets 429 beyond 10",
        f"without {quiet}; with {busy}; flooder {dict(flood.statuses)}; {report}",
        max(waits[1]) <= max(waits[0]) + turn + scale.bound(0.4)
        and flood.statuses[429] > 0
        and settled is not None
        and report.kept
        and not flood.complaints,
    )


async def _usage(client: Client, person: Person) -> int:
    answer = await client.ask(person, "GET", "/user/me")
    assert answer.status == 200, answer.body
    return int(answer.json["data"]["usage"]["used"])


async def _sample_usage(client: Client, person: Person, seen: Counter[int]) -> None:
    while True:
        seen[await _usage(client, person)] += 1
        await asyncio.sleep(0.03)


async def _kill_now_and_then(w: World, scale: Scale, chance: random.Random) -> None:
    while True:
        await asyncio.sleep(chance.uniform(*scale.of((0.2, 0.6), (0.5, 2.0))))
        w.kill_worker(chance.choice(w.workers))
        w.start_worker()
        await w.workers_ready()


async def _send_until_answered(client: Client, person: Person, key: str) -> tuple[int, bytes]:
    """Like a client that repeats its request while the first is still running."""
    while True:
        answer = await client.ask(
            person, "POST", f"/chatroom/{person.room}/message", {"input": "Once?"}, {"Idempotency-Key": key}
        )
        if answer.status != 409 or int(answer.headers.get("retry-after", "0")) < 1:
            return answer.status, answer.body
        await asyncio.sleep(float(answer.headers["retry-after"]))


async def _flood(load: Load) -> None:
    async def one() -> None:
        while True:
            answer = await load.send()
            await asyncio.sleep(0.2 if answer and answer.status == 429 else 0)

    await asyncio.gather(*(one() for _ in range(20)))


async def _until_answered(w: World, people: list[Person]) -> None:
    while len(await _waits(w, people)) < len(people):  # noqa: ASYNC110 - only the database shows it
        await asyncio.sleep(0.05)


async def _waits(w: World, people: list[Person]) -> list[float]:
    ids = [person.id for person in people]
    return [
        row["wait"]
        for row in await w.fetch(
            "SELECT extract(epoch FROM completed_at - created_at)::float8 AS wait FROM messages"
            " WHERE user_id = ANY($1::text[]::uuid[]) AND completed_at IS NOT NULL",
            ids,
        )
    ]
