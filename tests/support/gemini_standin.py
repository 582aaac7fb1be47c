"""Gemini's stand-in as a real server for tests, and what they tell it and ask of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.support.patience import HANG, PROCESS_HANG

#: Directives of every prompt in tests, which a prompt's own win over.
SIMPLE = "[[echo]] [[thoughts tokens=0]]"


class GeminiStandIn:
    """Blocking calls on loopback of about a millisecond: simple, and usable from any test."""

    def __init__(self, url: str) -> None:
        self.url = url

    def fault(self, kind: str, *, times: int | None = 1, match: str | None = None, **parameters: Any) -> None:
        """The next calls, or those whose text contains `match`, go wrong; the package's docstring has the kinds."""
        self._ask("POST", "/control/faults", {"kind": kind, "times": times, "match": match} | parameters)

    def reply(self, text: str, **parameters: Any) -> None:
        self.fault("reply", text=text, **parameters)

    def clear(self) -> None:
        """No faults, no calls, no waiting, nothing cached; short replies that quote the prompt, without thoughts."""
        self._ask("DELETE", "/control/faults")
        self._ask("DELETE", "/control/calls")
        self._ask("DELETE", "/control/cache")
        self.pace(first_chunk_seconds=0, chunk_seconds=0, chunks=9)
        self.directives(SIMPLE)

    def directives(self, text: str) -> None:
        """Those of every prompt. "" lets it think and write as Gemini does."""
        self._ask("PUT", "/control/directives", {"text": text})

    def sold(self, limit: int = 50_000) -> dict[str, Any]:
        """{open, sums, models, calls}: what a ledger of the calls has to agree with."""
        sold: dict[str, Any] = self._ask("GET", f"/control/sold?limit={limit}")
        return sold

    def pace(self, **seconds: float) -> None:
        """`first_chunk_seconds`, `chunk_seconds`, `chunks`; those not given stay."""
        self._ask("PUT", "/control/pace", seconds)

    def log(self, limit: int = 50_000) -> dict[str, Any]:
        """{total, open, mostOpen, counts, lastBody, calls}"""
        log: dict[str, Any] = self._ask("GET", f"/control/calls?limit={limit}")
        return log

    def calls(self) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = self.log()["calls"]
        return calls

    async def until(self, condition: Callable[[dict[str, Any]], bool], *, seconds: float = HANG) -> dict[str, Any]:
        """The log as soon as the condition holds for it, such as `lambda log: log["open"] == 0`."""
        give_up = time.monotonic() + seconds
        while not condition(log := self.log()):
            assert time.monotonic() < give_up, f"did not come true within {seconds} s"
            await asyncio.sleep(0.01)
        return log

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = Request(self.url + path, data=data, method=method, headers=headers)  # noqa: S310 - loopback
        with urlopen(request, timeout=HANG) as response:  # noqa: S310
            return json.load(response)


def start_gemini_standin(*arguments: str) -> Generator[GeminiStandIn, None, None]:
    """A stand-in in a process of its own on a free port, until the iterator is closed; SIMPLE unless told otherwise."""
    command = [sys.executable, "-m", "local.gemini", "--port", "0", "--directives", SIMPLE, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert "http://" in line, f"the stand-in did not start: {line!r}"
            yield GeminiStandIn(line.split()[-1])
        finally:
            process.terminate()
            try:
                process.wait(PROCESS_HANG)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="session")
def gemini_standin_server() -> Iterator[GeminiStandIn]:
    yield from start_gemini_standin("--first-chunk-seconds", "0", "--chunk-seconds", "0")


@pytest.fixture
def gemini_standin(gemini_standin_server: GeminiStandIn) -> GeminiStandIn:
    """The session's stand-in, forgetful of earlier tests and without waiting."""
    gemini_standin_server.clear()
    return gemini_standin_server
