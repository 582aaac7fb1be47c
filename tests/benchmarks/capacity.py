"""What a number of people needs: a formula whose inputs are stored figures, settings and stated assumptions."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from entrypoints.settings import Settings
from tests.benchmarks.figures import Results, short

_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Habits:
    """Assumptions about people and the model. Change them to yours."""

    active: float = 0.1
    """Of all people, on one day."""
    messages: int = 10
    """Of an active person, a day."""
    peak: float = 3.0
    """The busiest second, in multiples of the average."""
    reads: int = 2
    """Of each of the three reading calls, for a message."""
    reply_seconds: float = 10.0
    pieces: int = 50
    """Of a reply, as its reader gets them."""
    busy: float = 0.5
    """Of a core, when it is busiest."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All at the busiest second, but for the bytes."""

    people: int
    messages: float
    calls: float
    api_cores: float
    worker_cores: float
    postgres_cores: float
    streams: float
    api_processes: int
    worker_processes: int
    connections: int
    redis_operations: float
    log_a_day: float
    stored_a_day: float


_PEOPLE = (10_000, 100_000, 1_000_000, 10_000_000)
_READS = ("me", "list", "room")


def planned(results: Results, people: int, habits: Habits) -> Plan:
    of = results.value
    settings = Settings.from_environment({})
    day = people * habits.active * habits.messages
    messages = day / _DAY * habits.peak
    f = of("calls.f") / 1e6 / habits.busy
    reading = {part: habits.reads * sum(of(f"calls.{call}.{part}") for call in _READS) for part in ("api", "postgres")}
    streaming = habits.pieces * of("streams.many.piece-f")
    api = messages * f * (of("replies.fresh.api") + reading["api"] + streaming)
    worker = messages * f * of("replies.fresh.worker")
    in_flight = messages * habits.reply_seconds
    apis = max(2, ceil(api), ceil(in_flight / settings.streams.per_process))
    workers = max(2, ceil(worker), ceil(in_flight / settings.worker.concurrency))
    return Plan(
        people=people,
        messages=messages,
        calls=messages * (1 + habits.reads * len(_READS)),
        api_cores=api,
        worker_cores=worker,
        postgres_cores=messages * f * (of("replies.fresh.postgres") + reading["postgres"]),
        streams=in_flight,
        api_processes=apis,
        worker_processes=workers,
        connections=(apis + workers) * settings.postgres.pool,
        redis_operations=messages * (of("writes.redis.operations") + habits.pieces),
        log_a_day=day * of("writes.wal"),
        stored_a_day=day * of("writes.stored"),
    )


def inputs(results: Results) -> str:
    habits = Habits()
    lines = [
        f"people active on a day: {habits.active:.0%}, who send {habits.messages} messages each",
        f"the busiest second has {short(habits.peak)} times the average",
        f"for each message, each of the three reading calls {habits.reads} times",
        f"a reply takes {short(habits.reply_seconds)} s and reaches its reader in {habits.pieces} pieces",
        f"no core is more than {habits.busy:.0%} busy; f is {results['calls.f']}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def plan(results: Results) -> str:
    plans = [planned(results, people, Habits()) for people in _PEOPLE]
    rows = {
        "messages a second": [short(one.messages) for one in plans],
        "calls a second": [short(one.calls) for one in plans],
        "replies in flight, streams": [short(one.streams) for one in plans],
        "cores for the API": [short(one.api_cores) for one in plans],
        "cores for workers": [short(one.worker_cores) for one in plans],
        "cores for Postgres": [short(one.postgres_cores) for one in plans],
        "API processes": [short(one.api_processes) for one in plans],
        "worker processes": [short(one.worker_processes) for one in plans],
        "Postgres connections": [short(one.connections) for one in plans],
        "Redis operations a second": [short(one.redis_operations) for one in plans],
        "write-ahead log a day": [_bytes(one.log_a_day) for one in plans],
        "stored a day": [_bytes(one.stored_a_day) for one in plans],
    }
    head = ["people", *(short(people) for people in _PEOPLE)]
    lines = [head, ["---"] * len(head), *([name, *cells] for name, cells in rows.items())]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{short(count)} {unit}"
        count /= 1000
    return f"{short(count)} TB"
