"""The tables of docs/performance.md."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable

from tests.benchmarks import capacity
from tests.benchmarks.figures import Results, short

_CALLS = {
    "me": "GET /user/me",
    "list": "GET /chatroom/, cached",
    "room": "GET /chatroom/:id, 20 messages",
    "post": "POST …/message, 20 users",
    "post-one": "POST …/message, one user",
}
_LAYERS = {
    "bare": "a bare handler",
    "protocol": "our protocol, routing and headers",
    "steps": "request id, metrics, ids, query and body",
    "session": "token and session",
    "use-case": "the use case and its statements",
    "reply": "making and encoding the reply",
}


#: What is measured, its figure, and the most that it should be; if negative, the least.
_GOALS = (
    ("GET /user/me", "calls.me.api", 2.2),
    ("GET /chatroom/, cached", "calls.list.api", 2.0),
    ("calls a second, GET /user/me", "calls.me.rate", -0.45),
    ("calls a second, GET /chatroom/", "calls.list.rate", -0.45),
    ("GET /chatroom/:id, 20 messages", "calls.room.api", 6.5),
    ("POST …/message, 20 users", "calls.post.api", 5.0),
    ("rate limits, more", "calls.me-limits", 0.5),
    ("a message with its reply, API and worker", "replies.fresh.both", 25.0),
    ("one worker stores a reply every", "replies.each", 44.0),
    ("to the stored reply, idle, p50", "delays.stored.p50-f", 40.0),
    ("to the stored reply, idle, p99", "delays.stored.p99-f", 120.0),
    ("to the first piece, idle, p50", "delays.first.p50", 10.0),
    ("to the first piece, idle, p99", "delays.first.p99", 40.0),
    ("5 pieces a second to each reader, p99", "streams.many.p99", 100.0),
    ("… memory of the API", "streams.many.memory", 250.0),
    ("… CPU of a piece", "streams.many.piece-f", 0.4),
    ("1 piece a second to each reader, p99", "streams.most.p99", 250.0),
    ("… memory of the API", "streams.most.memory", 500.0),
    ("… pieces lost", "streams.most.lost", 0.0),
    ("row versions of `messages`", "writes.messages.versions", 2.0),
    ("HOT updates of what is in progress", "writes.queue_entries.hot", -90.0),
    ("rate beside messages of others, GET /chatroom/:id", "growth.room.beside", -0.95),
    ("rate in the longest chatroom", "growth.room-longest.rate", -0.9),
)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = list(head)
    lines = [columns, ["---"] * len(columns), *map(list, rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _prose(text: str) -> str:
    return "\n\n" + textwrap.fill(text, 105)


def _cells(results: Results, names: Iterable[str]) -> list[str]:
    found = (results[name] for name in names)
    return [f"{figure} ({figure.spread})" if figure.spread else str(figure) for figure in found]


def _runs(results: Results) -> str:
    rows = []
    for name, section in sorted(results.sections.items()):
        at = section.machine
        place = f"{at['processor']}, {at['cores']} cores, {at['memory_gb']} GB, Python {at['python']}"
        rows.append(
            [f"`{name}`", section.date, f"{section.version} ({section.commit})", f"{section.figures['f']}", place]
        )
    return table(["section", "measured (UTC)", "version", "f", "machine"], rows)


def _calls(results: Results) -> str:
    rows = [
        [title, *_cells(results, (f"calls.{name}.{part}" for part in ("api", "postgres", "rate", "p99")))]
        for name, title in _CALLS.items()
    ]
    limits = ", ".join(f"{results[f'calls.{name}-limits']} for {_CALLS[name]}" for name in ("me", "post"))
    return table(["call", "API", "Postgres", "calls a second", "p99"], rows) + _prose(
        f"Rate limits add {limits}. The bare handler answers {results['calls.bare.rate']}."
    )


def _layers(results: Results) -> str:
    calls = ("me", "room", "post")
    rows = [[title, *_cells(results, (f"layers.{call}.{layer}" for call in calls))] for layer, title in _LAYERS.items()]
    return table(["layer", *(_CALLS[call].partition(",")[0] for call in calls)], rows)


def _replies(results: Results) -> str:
    parts = ("both", "api", "worker", "postgres", "redis")
    rows = [
        [title, *_cells(results, (f"replies.{name}.{part}" for part in parts))]
        for name, title in (("fresh", "in new chatrooms"), ("long", "in chatrooms of 39 turns"))
    ]
    text = table(["a message with its reply", "API and worker", "API", "worker", "Postgres", "Redis"], rows)
    rate, each = results["replies.rate"], results["replies.each"]
    return text + _prose(f"One worker stores {rate} to a model that answers at once: one every {each}.")


def _delays(results: Results) -> str:
    rows = [
        [title, *_cells(results, (f"delays.{name}.{of}" for of in ("p50", "p50-f", "p99", "p99-f")))]
        for name, title in (("first", "to the first piece"), ("stored", "to the stored reply"))
    ]
    return table(["from sending, beyond the model's time", "p50", "in f", "p99", "in f"], rows)


def _streams(results: Results) -> str:
    figures = {
        "readers": "readers",
        "p50": "p50",
        "p99": "p99",
        "lost": "pieces lost",
        "memory": "memory of the API (PSS)",
        "piece": "API, CPU of a piece",
        "piece-f": "in f",
        "piece-redis-f": "Redis, CPU of a piece",
    }
    rows = [
        [title, *_cells(results, (f"streams.{scene}.{name}" for scene in ("many", "most")))]
        for name, title in figures.items()
    ]
    return table(["one API process", "5 pieces a second each", "1 piece a second each"], rows)


def _growth(results: Results) -> str:
    names = {"me": "me", "list": "list", "room": "room", "post": "post"}
    rows = [
        [_CALLS[name], *_cells(results, (f"growth.{name}.{of}" for of in ("alone", "others", "beside")))]
        for name in names
    ]
    beside = f"beside {short(results.value('growth.others'))} messages of others"
    longest = results.value("growth.longest")
    rooms = ", ".join(
        f"{results[f'growth.room-{name}.rate']} of the rate with {short(longest / share)} messages"
        for name, share in (("tenth", 10), ("longest", 1))
    )
    return table(["API and Postgres", "alone", beside, "ratio"], rows) + _prose(
        f"Reading the newest page of a chatroom reaches {rooms}, compared with a chatroom of one page."
    )


def _writes(results: Results) -> str:
    found = results.sections["writes"].figures
    names = sorted({name.rpartition(".")[0] for name in found if name.endswith(".versions")})
    rows = [
        [f"`{name}`", str(found[f"{name}.versions"]), str(found[f"{name}.deleted"]), str(found.get(f"{name}.hot", "–"))]
        for name in names
    ]
    text = table(["table", "row versions a message", "deleted", "of its updates, HOT"], rows)
    log, stored, operations = (results[f"writes.{name}"] for name in ("wal", "stored", "redis.operations"))
    return text + _prose(
        f"A message leaves {stored} at rest and {log} of write-ahead log, and takes {operations} of Redis."
    )


def _processes(results: Results) -> str:
    rows = []
    for name in ("me", "room", "post"):
        for count in (1, 2):
            cells = _cells(results, (f"processes.{name}-{count}.{of}" for of in ("rate", "api", "postgres")))
            rows.append([_CALLS[name], str(count), *cells])
    for count in (1, 2):
        cells = _cells(
            results, (f"processes.workers-{count}.{of}" for of in ("rate", "queued.worker", "queued.postgres"))
        )
        rows.append(["replies of workers", str(count), *cells])
    return table(["", "processes", "rate", "API or worker", "Postgres"], rows)


def _goals(results: Results) -> str:
    rows = []
    for title, name, bound in _GOALS:
        figure = results[name]
        is_met = figure.value <= bound if bound >= 0 else figure.value >= -bound
        sign = "at most" if bound >= 0 else "at least"
        rows.append([title, f"{sign} {short(abs(bound))}", str(figure), "yes" if is_met else "no"])
    return table(["", "goal", "measured", "met"], rows)


TABLES: dict[str, Callable[[Results], str]] = {
    "goals": _goals,
    "runs": _runs,
    "calls": _calls,
    "layers": _layers,
    "replies": _replies,
    "delays": _delays,
    "streams": _streams,
    "growth": _growth,
    "writes": _writes,
    "processes": _processes,
    "inputs": capacity.inputs,
    "plan": capacity.plan,
}
