"""Where the CPU of a call goes: the same call at increasing depth, each cost a difference of two handlers."""

from __future__ import annotations

from tests.benchmarks.calls import hot_calls
from tests.benchmarks.figures import Figure, Figures
from tests.benchmarks.layered import CALLS, DEPTHS
from tests.benchmarks.load import load, request_bytes
from tests.benchmarks.stage import Called, Scale, child, line, of_bare, staged

#: What each depth adds to the one before.
LAYERS = ("bare", *DEPTHS, "reply")


async def measure(scale: Scale) -> Figures:
    async with staged(scale) as stage:
        with child("tests.benchmarks.layered", **stage.world.environment) as process:
            url = (await line(process))["url"]
            stage.others.append(process.pid)
            whole = {name: call for name, call in (await hot_calls(stage, url)).items() if name in CALLS}
            calls: dict[str, Called] = {}
            for name, call in whole.items():
                await _set_body(url, name, call)
                calls |= {f"{name}.{depth}": _at_depth(call, depth) for depth in DEPTHS}
                calls[f"{name}.reply"] = call
            rounds = await stage.rounds(calls)
    found = of_bare(rounds["bare"])
    for name in CALLS:
        bare = [one.cpu["bare"] for one in rounds["bare"]]
        before = bare
        found[f"{name}.bare"] = Figure.once(1, "f")
        for layer in LAYERS[1:]:
            reached = [one.cpu["api"] for one in rounds[f"{name}.{layer}"]]
            more = [(now - then) / f for now, then, f in zip(reached, before, bare, strict=True)]
            found[f"{name}.{layer}"] = Figure.of(more, "f")
            before = reached
    return found


def _at_depth(call: Called, depth: str) -> Called:
    """The same request to another path."""

    def request(number: int) -> bytes:
        method, path, rest = call.request(number).split(b" ", 2)
        return b" ".join([method, f"/{depth}".encode() + path, rest])

    return Called(request, call.url, call.expect)


async def _set_body(url: str, name: str, call: Called) -> None:
    (body,) = (await load(url, call.request, requests=1, expect=call.expect)).bodies
    await load(url, lambda _: request_bytes("PUT", f"/layer/{name}", body=body), requests=1)
