"""Whether calls cost more beside other people's data, or in an old room."""

from __future__ import annotations

from tests.benchmarks.calls import PAGE, hot_calls
from tests.benchmarks.figures import Figure, Figures
from tests.benchmarks.load import request_bytes
from tests.benchmarks.stage import Called, Measured, Scale, of_bare, staged

CALLS = ("me", "list", "room", "post")
_OTHERS = 20
#: Messages of the rooms that are compared with one of a page, as shares of the longest.
_SHARES = {"tenth": 10, "longest": 1}


async def measure(scale: Scale) -> Figures:
    async with staged(scale) as stage:
        calls = {name: call for name, call in (await hot_calls(stage, stage.url)).items() if name in CALLS}
        (person,) = await stage.world.people(1)
        rooms = dict(zip(_SHARES, (room for _, room in await stage.rooms([person], len(_SHARES))), strict=True))
        for name, share in _SHARES.items():
            await stage.history([rooms[name]], scale.messages_of_room // share)
            read = request_bytes("GET", f"/chatroom/{rooms[name]}", token=person.token)
            calls[f"room-{name}"] = Called(lambda _, read=read: read, stage.url)  # type: ignore[misc]
        before = await stage.rounds(calls)
        others = await stage.world.people(_OTHERS)
        await stage.history([other.room for other in others], scale.messages_of_others // _OTHERS)
        after = await stage.rounds({name: calls[name] for name in CALLS})
    found = of_bare(before["bare"])
    for name in calls:
        found[f"{name}.alone"] = _cost(before, name)
    for name in CALLS:
        found[f"{name}.others"] = _cost(after, name)
        found[f"{name}.beside"] = Figure.once(found[f"{name}.alone"].value / found[f"{name}.others"].value, "×")
    for name in _SHARES:
        pairs = zip(before["room"], before[f"room-{name}"], strict=True)
        found[f"room-{name}.rate"] = Figure.of((long.per_second / short.per_second for short, long in pairs), "×")
    found["others"] = Figure.once(scale.messages_of_others, "messages")
    found["longest"] = Figure.once(scale.messages_of_room, "messages")
    found["page"] = Figure.once(PAGE, "messages")
    return found


def _cost(rounds: dict[str, list[Measured]], name: str) -> Figure:
    """CPU of API and Postgres together."""
    pairs = zip(rounds[name], rounds["bare"], strict=True)
    return Figure.of(((one.cpu["api"] + one.cpu["postgres"]) / bare.cpu["bare"] for one, bare in pairs), "f")
