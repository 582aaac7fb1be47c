"""A model that fails in every way: each message ends in a named state. And how fast the model is called."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

from tests.chaos.ledger import Ledger
from tests.chaos.load import Load, percentile
from tests.chaos.scenarios_delivery import MANY
from tests.chaos.world import World, world
from tests.support.patience import PROCESS_HANG
from tests.support.scenarios import Row, Scale

#: How each permanent failure is produced, and the status and code of its message.
_ENDINGS: dict[str, tuple[dict[str, Any], str, str, int]] = {
    "daily_quota": ({}, "failed", "model_quota_exhausted", 1),
    "bad_key": ({}, "failed", "model_not_configured", 1),
    "broken_json": ({"after": 1}, "failed", "model_unavailable", 2),
    "error_in_stream": ({"after": 1, "error": "internal"}, "failed", "model_unavailable", 2),
    "cut": ({"after": 1}, "failed", "model_unavailable", 2),
    "disconnect": ({}, "failed", "model_unavailable", 2),
    "hang": ({}, "failed", "model_timed_out", 2),
    "hang_mid_stream": ({"after": 1}, "failed", "model_timed_out", 2),
    "blocked": ({}, "blocked", "reply_blocked", 1),
    "blocked_mid_stream": ({"after": 1}, "blocked", "reply_blocked", 1),
    "empty": ({"reason": "MAX_TOKENS"}, "failed", "reply_empty", 1),
}


async def model_faults(scale: Scale, seed: int) -> Row:
    """All at once: a delay that the model requests, and each kind of failure until it is permanent."""
    asked_to_wait, deadline = scale.of(2.016, 53.016), scale.of(3.0, 2.0)
    # Two attempts each, and one person's messages only, so the breaker stays closed.
    settings = {
        "MAX_ATTEMPTS": "2",
        "FIRST_TOKEN_SECONDS": str(deadline),
        "SILENCE_SECONDS": str(2 * deadline),
    }
    async with world(apis=1, workers=1, **MANY, **settings, **scale.settings) as w:
        ledger = await Ledger(w).open()
        client = w.client()
        load = Load(client, ledger, await w.people(5), random.Random(seed))
        ids: dict[str, str] = {}
        w.gemini.fault("rate_limit", match="Wait", retry_delay=f"{asked_to_wait}s")
        ids["Wait"] = await _sent(load, "Wait")
        for kind, (parameters, *_) in _ENDINGS.items():
            w.gemini.fault(kind, times=None, match=f"Fault {kind}.", **parameters)
            ids[kind] = await _sent(load, f"Fault {kind}.")
            await load.all_at_once([f"Fine {kind} {number}" for number in range(4)])
        settled = await ledger.settled(seconds=scale.bound(120))
        report, log = await ledger.report(), await w.model_log()
        stored = {str(row["id"]): row for row in await w.fetch("SELECT * FROM messages")}
    calls: dict[str, list[dict[str, float]]] = {}
    for call in log["calls"]:
        calls.setdefault(call["lastUserText"], []).append(call)
    wrong = []
    for kind, (_, status, code, times) in _ENDINGS.items():
        row, made = stored[ids[kind]], calls[f"Fault {kind}."]
        if (row["status"], row["error_code"], len(made)) != (status, code, times):
            wrong.append(f"{kind}: {row['status']} {row['error_code']} after {len(made)} calls")
    first, second = (call["at"] for call in calls["Wait"])
    hung = [call["closedAt"] - call["openedAt"] for call in calls["Fault hang."]]
    hung_mid = [call["closedAt"] - call["openedAt"] for call in calls["Fault hang_mid_stream."]]
    in_time = max(hung) <= deadline + scale.bound(1) and max(hung_mid) <= 2 * deadline + scale.bound(1)
    return Row(
        f"429 with RetryInfo {asked_to_wait} s · daily quota · hang · broken JSON · {len(_ENDINGS) - 3} other failures",
        f"next call ≥ {asked_to_wait} s later · 0 retries · cut at the deadline · named state each",
        f"next call {second - first:.3f} s later; daily quota {len(calls['Fault daily_quota.'])} call;"
        f" hanging calls cut after {max(hung):.2f} s (deadline {deadline:.0f}) and in mid-stream {max(hung_mid):.2f} s"
        f" (deadline {2 * deadline:.0f}); wrong endings: {wrong or 'none'}; {report}",
        report.kept
        and settled is not None
        and second - first >= asked_to_wait
        and stored[ids["Wait"]]["status"] == "completed"
        and not wrong
        and in_time
        and not load.complaints,
    )


#: Faults of the stand-in that make a message fail on every attempt.
_BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "no candidates": ("no_candidates", {}),
    "empty STOP": ("empty", {"reason": "STOP"}),
    "500": ("internal", {}),
    "silence": ("hang", {}),
    "white space": ("blank", {}),
}


async def bad_messages(scale: Scale, seed: int) -> Row:
    """One user's messages always fail, and four other users are answered as if they did not."""
    rounds, counts = scale.of(4, 12), scale.of((10,), (3, 10))
    async with world(apis=1, workers=1, FIRST_TOKEN_SECONDS="3", **MANY, **scale.settings) as w:
        ledger = await Ledger(w).open()
        w.gemini.pace(first_chunk_seconds=0.1, chunk_seconds=0.01)
        bad, *innocent = await w.people(5)
        load = Load(w.client(), ledger, innocent, random.Random(seed))
        for name, (kind, parameters) in _BAD.items():
            w.gemini.fault(kind, times=None, match=f"Bad: {name}.", **parameters)

        async def delays(label: str) -> list[float]:
            for number in range(rounds):
                await asyncio.gather(*(load.send(f"{label} {number}", person) for person in innocent))
                await asyncio.sleep(0.5)
            give_up = time.monotonic() + scale.bound(30)
            while True:
                found = await w.fetch(
                    "SELECT status, extract(epoch FROM completed_at - created_at)::float8 AS after FROM messages"
                    " WHERE starts_with(input, $1)",
                    label,
                )
                if {row["status"] for row in found} == {"completed"}:
                    return [row["after"] for row in found]
                assert time.monotonic() < give_up, found
                await asyncio.sleep(0.1)

        await delays("Warming up")
        without, worst = max(await delays("Alone")), dict[str, float]()
        for name in _BAD:
            for count in counts:
                await asyncio.gather(*(load.send(f"Bad: {name}. {number}", bad) for number in range(count)))
                worst[f"{count} × {name}"] = max(await delays(f"Beside {count} {name}"))
        settled = await ledger.settled(seconds=scale.bound(60))
        report = await ledger.report()
    return Row(
        f"one user's bad messages in {len(_BAD)} variants, four others beside them",
        "each of the others is answered within 1 s of what it takes without them",
        f"at most {without:.2f} s without,"
        f" {', '.join(f'{after:.2f} s beside {name}' for name, after in worst.items())}; {report}",
        report.kept and settled is not None and max(worst.values()) <= without + scale.bound(1) and not load.complaints,
    )


async def storm(scale: Scale, seed: int) -> Row:
    """The small run ends before the breaker's pause of 30 s, so it only sees the breaker open."""
    messages, workers = scale.of(60, 300), scale.of(1, 2)
    async with world(apis=1, workers=workers, MAX_MESSAGE_MINUTES="5", **MANY, **scale.settings) as w:
        ledger = await Ledger(w).open()
        w.gemini.fault("unavailable", times=None)
        client = w.client()
        load = Load(client, ledger, await w.people(10), random.Random(seed))
        await load.all_at_once([f"Question {number}" for number in range(messages)])
        await asyncio.sleep(scale.of(3, 20))
        opened = (await w.model_log())["total"]
        probes, answered = 0, " and no more while it is open"
        if scale.long:
            await asyncio.sleep(30)
            probes = (await w.model_log())["total"] - opened
            w.gemini.clear()
            well = time.monotonic()
            settled = await ledger.settled(seconds=PROCESS_HANG)
            answered = (
                f", then {probes} probe(s) in 30 s; well again, all answered after {time.monotonic() - well:.0f} s"
            )
        else:
            settled = 0.0
        report = await ledger.report()
    if not scale.long:
        report.wrong["stuck"].clear()  # the small run does not wait for the model to recover
    return Row(
        f"503 storm: {messages} messages, {workers} worker(s)",
        "breaker open after ≤ 20 failed calls a worker, and those under way then; then probes alone, and all is"
        " answered when the model is well",
        f"{opened} calls{answered}; {report}",
        report.kept
        and settled is not None
        and opened <= 20 * workers + len(load.people)
        and (not scale.long or (0 < probes <= 2 * workers and set(report.statuses) == {"completed"}))
        and not load.complaints,
    )


async def requests_per_minute(scale: Scale, seed: int) -> Row:
    """The small run checks the sliding window too: the calls that the pace allows in the time watched."""
    limit, workers, watched = 120, 2, scale.of(8, 150)
    messages = scale.of(40, 400)
    async with world(
        apis=1, workers=workers, GEMINI_MAX_RPM=str(limit), MAX_MESSAGE_MINUTES="20", **MANY, **scale.settings
    ) as w:
        ledger = await Ledger(w).open()
        client = w.client()
        load = Load(client, ledger, await w.people(10), random.Random(seed))
        await load.all_at_once([f"Question {number}" for number in range(messages)])
        if scale.long:
            await asyncio.sleep(watched)
        else:  # the burst, and some paced calls
            await w.gemini.until(lambda log: log["total"] >= limit // 10 + watched)
        at = sorted(call["at"] for call in (await w.model_log())["calls"])
        report = await ledger.report()
        report.wrong["stuck"].clear()  # the others are still waiting
    window = 60.0
    most = max(sum(begin <= other < begin + window for other in at) for begin in at)
    # A tenth may come at once, and the rest is paced over the time from the first call to the last.
    allowed = limit if scale.long else limit // 10 + 1 + int((at[-1] - at[0]) * limit / 60)
    return Row(
        f"GEMINI_MAX_RPM={limit} over {workers} workers, {messages} messages at once",
        f"≤ {limit} calls in any 60 s",
        f"at most {most} calls in any 60 s, {len(at)} in {at[-1] - at[0]:.0f} s; {report}",
        report.kept and limit // 10 <= most <= allowed and not load.complaints,
    )


async def burst(scale: Scale, seed: int) -> Row:
    messages = scale.of(100, 300)
    async with world(apis=scale.of(1, 2), workers=1, **MANY, **scale.settings) as w:
        ledger = await Ledger(w).open()
        w.gemini.pace(first_chunk_seconds=0.2, chunk_seconds=0.1)  # nine pieces: one second
        client = w.client()
        await client.warm_up(messages // len(w.urls))
        load = Load(client, ledger, await w.people(messages), random.Random(seed))
        for _ in range(5):  # connections, code paths, caches: the cost of a cold start is another question
            await load.all_at_once([f"Hello {number}" for number in range(5)])
        await ledger.settled(seconds=60)
        began = time.time()
        await asyncio.gather(*(load.send(f"Question {n}", person) for n, person in enumerate(load.people)))
        accepted = time.time()
        settled = await ledger.settled(seconds=scale.bound(60))
        found = await w.fetch(
            "SELECT extract(epoch FROM completed_at)::float8 - $1 AS after FROM messages"
            " WHERE created_at >= to_timestamp($1) - interval '2 ms'",
            began,
        )
        report = await ledger.report()
    after = [row["after"] for row in found]
    return Row(
        f"{messages} messages at once, the model takes 1 s, one worker process",
        "all answered in ≤ 3 s",
        f"accepted within {accepted - began:.2f} s, answered p50 {percentile(after, 50):.2f} s,"
        f" last {max(after):.2f} s after the first was sent; {report}",
        report.kept
        and settled is not None
        and len(after) == messages
        and max(after) <= scale.bound(3)
        and not load.complaints,
    )


async def memory(scale: Scale, seed: int) -> Row:
    replies, each_lasts = scale.of(100, 2048), scale.of([2.0, 10.0, 50.0], [25.0])
    async with world(apis=1, workers=1, WORKER_CONCURRENCY=str(replies + 100), **MANY, **scale.settings) as w:
        ledger = await Ledger(w).open()
        client = w.client()
        load = Load(client, ledger, await w.people(50), random.Random(seed))
        idle = _resident_mb(w, "VmRSS")
        for seconds in each_lasts:  # on a slow machine they are all running only if each lasts longer
            w.gemini.pace(first_chunk_seconds=seconds / 2, chunk_seconds=seconds / 16)
            await load.steadily(replies, per_second=scale.of(200, 300))
            settled = await ledger.settled(seconds=scale.bound(120))
            most = (await w.model_log())["mostOpen"]
            if most >= replies * 0.98:
                break
        peak = _resident_mb(w, "VmHWM")
        report = await ledger.report()
    return Row(
        f"{replies} replies in flight in one worker process",
        "≤ 200 MB RSS",
        f"peak {peak:.0f} MB with {most} in flight at once, {idle:.0f} MB idle; {report}",
        report.kept and settled is not None and peak <= 200 and most >= replies * 0.98 and not load.complaints,
    )


def _resident_mb(w: World, what: str) -> float:
    status = Path(f"/proc/{w.workers[0].process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(what)) / 1024


async def _sent(load: Load, text: str) -> str:
    answer = await load.send(text, load.people[0])
    assert answer is not None
    assert answer.status == 202, answer.body
    return str(answer.json["data"]["id"])
