"""One and two processes of the API and of the worker."""

from __future__ import annotations

from tests.benchmarks.calls import hot_calls
from tests.benchmarks.figures import Figures
from tests.benchmarks.replies import USERS, rate
from tests.benchmarks.stage import Called, Scale, costs, of_bare, staged

_CALLS = ("me", "room", "post")


async def measure(scale: Scale) -> Figures:
    async with staged(scale) as stage:
        one = {name: call for name, call in (await hot_calls(stage, stage.url)).items() if name in _CALLS}
        two = await stage.world.start_api(workers=2)
        calls = {f"{name}-1": call for name, call in one.items()}
        calls |= {f"{name}-2": Called(call.request, two, call.expect) for name, call in one.items()}
        rounds = await stage.rounds(calls)
        found = of_bare(rounds["bare"])
        for name in calls:
            found |= costs(name, rounds)
    async with staged(scale) as stage:
        people = await stage.world.people(USERS)
        for workers in (1, 2):
            rooms = await stage.rooms(people, -(-scale.replies // USERS))
            of_workers = await rate(stage, rooms, workers=workers)
            found |= {f"workers-{workers}.{name}": figure for name, figure in of_workers.items()}
    return found
