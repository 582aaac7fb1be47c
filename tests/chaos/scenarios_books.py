"""Compares what the model sold with what was booked, while workers are killed and frozen and messages cancelled."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tests.chaos.client import Person
from tests.chaos.ledger import Ledger
from tests.chaos.load import Load
from tests.chaos.scenarios_delivery import MANY
from tests.chaos.world import World, world
from tests.support.scenarios import Row, Scale

#: Tokens of the prompt, from the cache, of thoughts, and of all output.
Tokens: TypeAlias = tuple[int, int, int, int]
_FAULTS = ("cut", "error_in_stream", "blank", "internal", "blocked_mid_stream")


@dataclass
class Comparison:
    equal: int = 0
    sold: Counter[str] = field(default_factory=Counter)
    booked: Counter[str] = field(default_factory=Counter)
    #: Sold to a worker that died: no other process knows of it.
    lost: list[str] = field(default_factory=list)
    #: Sold in a chunk that was in transit when the worker hung up.
    on_its_way: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        sums = [", ".join(f"{n} {kind}" for kind, n in sorted(counted.items())) for counted in (self.sold, self.booked)]
        return (
            f"{self.equal} calls equal: sold {sums[0]}; booked {sums[1]}; beside them {len(self.lost)} lost with their"
            f" worker, {len(self.on_its_way)} left with a chunk on its way, {len(self.wrong)} wrong"
            f" {self.wrong[:3] or ''}"
        )


_MAYBE_UNREAD = ("client_left", "completed")


async def books(scale: Scale, seed: int) -> Row:
    messages, per_second = scale.of(100, 2_000), scale.of(15.0, 40.0)
    chance = random.Random(seed)
    async with world(apis=1, workers=scale.of(2, 4), **MANY, **scale.settings) as w:
        ledger = await Ledger(w).open()
        w.gemini.directives("[[echo]] [[thoughts tokens=40]]")
        w.gemini.pace(first_chunk_seconds=0.2, chunk_seconds=0.15, chunks=4)
        for kind in _FAULTS:
            w.gemini.fault(kind, times=messages // 20, match=f"({kind})")
        people = await w.people(scale.of(20, 100))
        await w.execute("UPDATE chatrooms SET auto_title = true WHERE random() < 0.5")
        load = Load(w.client(), ledger, people, chance)
        async with asyncio.TaskGroup() as going:
            going.create_task(_kill_and_freeze(w, scale, chance, seconds=messages / per_second))
            began = time.monotonic()
            for number in range(messages):
                await asyncio.sleep(began + number / per_second - time.monotonic())
                fault = f" ({chance.choice(_FAULTS)})" if chance.random() < 0.2 else ""
                going.create_task(_send(load, chance, f"Question {number}{fault}"))
        settled = await ledger.settled(seconds=scale.bound(60))
        await w.gemini.until(lambda log: log["open"] == 0)
        compared, give_up = await _compared(w), time.monotonic() + scale.bound(5)
        while compared.wrong and time.monotonic() < give_up:  # a frozen worker books late
            await asyncio.sleep(0.5)
            compared = await _compared(w)
        report = await ledger.report()
    return Row(
        f"{messages} messages with kills, a frozen worker, cancels, {len(_FAULTS)} kinds of failure and titles",
        "the tokens booked of each call are those that the model reported to its worker",
        f"{compared}; {report}",
        report.kept
        and settled is not None
        and not compared.wrong
        and compared.sold == compared.booked
        and compared.equal >= messages * 0.6
        and not load.complaints,
    )


async def _send(load: Load, chance: random.Random, text: str) -> None:
    person: Person = chance.choice(list(load.people))
    answer = await load.send(text, person)
    if answer is not None and chance.random() < 0.2:
        await asyncio.sleep(chance.random())
        path = f"/chatroom/{person.room}/message/{answer.json['data']['id']}/cancel"
        await load.client.ask(person, "POST", path)


async def _kill_and_freeze(w: World, scale: Scale, chance: random.Random, *, seconds: float) -> None:
    lease = float(w.environment.get("LEASE_SECONDS", "10"))
    frozen = w.start_worker()
    await asyncio.sleep(seconds / 4)
    frozen.signal(signal.SIGSTOP)
    for _ in range(scale.of(2, 15)):
        await asyncio.sleep(seconds / 2 / scale.of(2, 15))
        w.kill_worker(chance.choice([worker for worker in w.workers if worker is not frozen]))
        w.start_worker()
    await asyncio.sleep(lease + 1)
    frozen.signal(signal.SIGCONT)


async def _compared(w: World) -> Comparison:
    sold, log = await asyncio.to_thread(w.gemini.sold), await w.model_log()
    texts = {call["number"]: call for call in log["calls"]}
    of_text: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for call in sold["calls"]:
        asked = texts[call["number"]]
        text, purpose = asked["lastUserText"], "title" if asked["asksForTitle"] else "reply"
        if purpose == "title":
            text = text.removeprefix("User: ").split("\n")[0]
        if call["reported"]:
            of_text[text, purpose].append(call)
    rows: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    booked = "SELECT model_calls.*, input FROM model_calls JOIN messages ON messages.id = message_id"
    for row in await w.fetch(booked):
        rows[row["input"], row["purpose"]].append(row)
    compared = Comparison()
    for key in of_text.keys() | rows.keys():
        _compare(compared, f"{key[0]} {key[1]}", of_text[key], rows[key])
    return compared


def _compare(compared: Comparison, name: str, calls: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """The calls of one message and purpose, whose attempts differ little."""
    for row in [row for row in rows if row["output_tokens"] is not None]:
        tokens = (row["input_tokens"], row["cached_tokens"], row["thought_tokens"], row["output_tokens"])
        call = next((call for call in calls if _tokens(call) == tokens), None)
        if call is not None:
            compared.equal += 1
            _add(compared.sold, _tokens(call))
            _add(compared.booked, tokens)
        else:
            # A worker may have hung up after the model sent its last chunk.
            left = [call for call in calls if call["outcome"] in _MAYBE_UNREAD and _covers(_tokens(call), tokens)]
            call = left[0] if left and row["outcome"] in ("cancelled", "interrupted") else None
            (compared.wrong if call is None else compared.on_its_way).append(
                f"{name}: booked {row['outcome']} {tokens}"
            )
        if call is not None:
            calls.remove(call)
    lost = sum(row["outcome"] == "lost" for row in rows)
    unread = sum(row["output_tokens"] is None and row["outcome"] in ("cancelled", "interrupted") for row in rows)
    for call in calls:
        text = f"{name}: sold {_tokens(call)} ({call['outcome']})"
        if name.endswith("title") and not rows:  # no other worker takes over a title
            compared.lost.append(text)
        elif lost:
            lost -= 1
            compared.lost.append(text)
        elif unread and call["outcome"] in _MAYBE_UNREAD:
            unread -= 1
            compared.on_its_way.append(text)
        else:
            compared.wrong.append(text)


def _tokens(call: dict[str, Any]) -> Tokens:
    return call["prompt"], call["cached"], call["thoughts"], call["thoughts"] + call["candidates"]


def _covers(sold: Tokens, booked: Tokens) -> bool:
    return all(one >= other for one, other in zip(sold, booked, strict=True))


def _add(sums: Counter[str], tokens: Tokens) -> None:
    sums.update(dict(zip(("input", "cached", "thoughts", "output"), tokens, strict=True)))
