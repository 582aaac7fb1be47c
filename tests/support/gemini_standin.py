"""Gemini's stand-in as a real server for tests."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from tests.support.patience import HANG
from tests.support.standin import Json, StandInProcess, start_standin, until

#: Directives for every prompt in tests; a prompt's own override them.
SIMPLE = "[[echo]] [[thoughts tokens=0]]"


class GeminiStandIn(StandInProcess):
    def fault(self, kind: str, *, times: int | None = 1, match: str | None = None, **parameters: Any) -> None:
        """The next calls, or those whose text contains `match`, fail; the docstring of local.gemini has the kinds."""
        self.control("POST", "/faults", {"kind": kind, "times": times, "match": match} | parameters)

    def reply(self, text: str, **parameters: Any) -> None:
        self.fault("reply", text=text, **parameters)

    def clear(self) -> None:
        """No faults, calls, waiting or cache; short replies that quote the prompt, without thoughts."""
        self.control("DELETE", "/faults")
        self.control("DELETE", "/calls")
        self.control("DELETE", "/cache")
        self.pace(first_chunk_seconds=0, chunk_seconds=0, chunks=9)
        self.directives(SIMPLE)

    def directives(self, text: str) -> None:
        """For every prompt. With "" it thinks and writes as Gemini does."""
        self.control("PUT", "/directives", {"text": text})

    def sold(self, limit: int = 50_000) -> Json:
        """{open, sums, models, calls}: what a ledger of the calls has to agree with."""
        return self.control("GET", f"/sold?limit={limit}")

    def pace(self, **seconds: float) -> None:
        """`first_chunk_seconds`, `chunk_seconds`, `chunks`; those left out stay."""
        self.control("PUT", "/pace", seconds)

    def log(self, limit: int = 50_000) -> Json:
        """{total, open, mostOpen, counts, lastBody, calls}"""
        return self.control("GET", f"/calls?limit={limit}")

    def calls(self) -> list[Json]:
        calls: list[Json] = self.log()["calls"]
        return calls

    async def until(self, condition: Callable[[Json], bool], *, seconds: float = HANG) -> Json:
        """The log as soon as the condition holds for it, such as `lambda log: log["open"] == 0`."""
        return await until(self.log, condition, seconds=seconds)


def start_gemini_standin(*arguments: str) -> Generator[GeminiStandIn, None, None]:
    """In its own process, until the iterator is closed; with SIMPLE unless the arguments change that."""
    return start_standin(GeminiStandIn, "local.gemini", "--port", "0", "--directives", SIMPLE, *arguments)


@pytest.fixture(scope="session")
def gemini_standin_server() -> Iterator[GeminiStandIn]:
    yield from start_gemini_standin("--first-chunk-seconds", "0", "--chunk-seconds", "0")


@pytest.fixture
def gemini_standin(gemini_standin_server: GeminiStandIn) -> GeminiStandIn:
    """The session's stand-in, cleared of what earlier tests did."""
    gemini_standin_server.clear()
    return gemini_standin_server
