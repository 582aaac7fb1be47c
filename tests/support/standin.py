"""Stand-ins as real servers for tests: a process on a free port, and blocking calls of its /control."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar
from urllib.request import Request, urlopen

from tests.support.patience import HANG, PROCESS_HANG

Json = dict[str, Any]
T = TypeVar("T")


class StandInProcess:
    """Its calls block for about a millisecond on loopback: simple, and usable from any test."""

    def __init__(self, url: str) -> None:
        self.url = url

    def control(self, method: str, path: str, body: Any = None) -> Json:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = Request(f"{self.url}/control{path}", data=data, method=method, headers=headers)  # noqa: S310 - loopback
        with urlopen(request, timeout=2 * HANG) as response:  # noqa: S310
            reply: Json = json.load(response)
            return reply


StandIn = TypeVar("StandIn", bound=StandInProcess)


def start_standin(made: type[StandIn], *command: str) -> Generator[StandIn, None, None]:
    """`python -m command…` on a free port, until the iterator is closed."""
    with subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert "http://" in line, f"the stand-in did not start: {line!r}"
            yield made(line.split()[-1])
        finally:
            process.terminate()
            try:
                process.wait(PROCESS_HANG)
            except subprocess.TimeoutExpired:
                process.kill()


async def until(look: Callable[[], T], condition: Callable[[T], bool], *, seconds: float = HANG) -> T:
    """What `look` returns, as soon as the condition holds for it."""
    give_up = time.monotonic() + seconds
    while not condition(found := look()):
        assert time.monotonic() < give_up, f"did not come true within {seconds} s"
        await asyncio.sleep(0.01)
    return found
