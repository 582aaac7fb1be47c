"""The hot calls under a load of 32 connections."""

from __future__ import annotations

from tests.benchmarks.figures import Figure, Figures
from tests.benchmarks.load import request_bytes
from tests.benchmarks.stage import Called, Scale, Stage, costs, of_bare, send_bytes, staged

USERS = 20
ROOMS = 10
PAGE = 20
#: Limits that are checked and never reached.
_LIMITED = {
    "RATE_LIMITS": "on",
    "RATE_READS": "999999/60",
    "BASIC_IN_FLIGHT": "1000000",
    "PRO_IN_FLIGHT": "1000000",
}


async def measure(scale: Scale) -> Figures:
    async with staged(scale) as stage:
        calls = await hot_calls(stage, stage.url)
        limited = await stage.world.start_api(workers=1, **_LIMITED)
        calls["me-limited"] = Called(calls["me"].request, limited)
        calls["post-limited"] = Called(calls["post"].request, limited, 202)
        rounds = await stage.rounds(calls)
    found = of_bare(rounds["bare"])
    for name in calls:
        found |= costs(name, rounds)
    for name in ("me", "post"):
        pairs = zip(rounds[f"{name}-limited"], rounds[name], rounds["bare"], strict=True)
        more = [(limited.cpu["api"] - free.cpu["api"]) / bare.cpu["bare"] for limited, free, bare in pairs]
        found[f"{name}-limits"] = Figure.of(more, "f")
    return found


async def hot_calls(stage: Stage, url: str) -> dict[str, Called]:
    """Of 20 people, each with 10 rooms; the one that is read has a page of answered messages."""
    people = await stage.world.people(USERS)
    rooms = await stage.rooms(people, ROOMS - 1)
    await stage.history([person.room for person in people], PAGE)
    me = [request_bytes("GET", "/user/me", token=person.token) for person in people]
    lists = [request_bytes("GET", "/chatroom/", token=person.token) for person in people]
    reads = [request_bytes("GET", f"/chatroom/{person.room}", token=person.token) for person in people]
    posts = [send_bytes(person.token, room) for person, room in rooms]
    return {
        "me": Called(lambda number: me[number % USERS], url),
        "list": Called(lambda number: lists[number % USERS], url),
        "room": Called(lambda number: reads[number % USERS], url),
        "post": Called(lambda number: posts[number % len(posts)], url, 202),
        "post-one": Called(lambda _: posts[0], url, 202),
    }
