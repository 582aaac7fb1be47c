"""Messages sent while things fail, and what their sender saw."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import asyncpg

from tests.chaos.client import Answer, Client, Failed, Person
from tests.chaos.ledger import Ledger

T = TypeVar("T")


@dataclass
class Load:
    """Sends messages and records every answer. `complaints` describes the unexpected ones."""

    client: Client
    ledger: Ledger
    people: Sequence[Person]
    random: random.Random
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    also: frozenset[int] = frozenset()
    """Statuses besides 202 that are right if they are problem documents, and 503 if it has Retry-After."""

    async def send(self, text: str | None = None, person: Person | None = None) -> Answer | None:
        person = person or self.random.choice(self.people)
        text = text or f"Question {self.random.getrandbits(64):x}"
        try:
            answer = await self.client.ask(person, "POST", f"/chatroom/{person.room}/message", {"input": text})
        except Failed as failed:
            self.complaints.append(str(failed))
            return None
        self.statuses[answer.status] += 1
        self.seconds.append(answer.seconds)
        if answer.status == 202:
            self.ledger.accepted.add(answer.json["data"]["id"])
        elif answer.status not in self.also or not answer.is_problem or not _says_when(answer):
            self.complaints.append(f"{answer.status} {answer.headers.get('content-type')} {answer.body[:120]!r}")
        return answer

    async def all_at_once(self, texts: Sequence[str]) -> list[Answer | None]:
        return await asyncio.gather(*(self.send(text) for text in texts))

    async def steadily(self, total: int, *, per_second: float) -> None:
        """Open loop: the next message is sent on time, whatever happened to the last."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as sending:
            for number in range(total):
                await asyncio.sleep(began + number / per_second - loop.time())
                sending.create_task(self.send())

    async def read(self, person: Person | None = None) -> None:
        try:
            answer = await self.client.ask(person or self.random.choice(self.people), "GET", "/user/me")
        except Failed as failed:
            self.complaints.append(str(failed))
            return
        self.statuses[answer.status] += 1
        if answer.status != 200 and not (answer.status in self.also and answer.is_problem and _says_when(answer)):
            self.complaints.append(f"{answer.status} {answer.headers.get('content-type')} {answer.body[:120]!r}")

    @asynccontextmanager
    async def reading(self, clients: int, *, pause: float = 0.005) -> AsyncIterator[None]:
        """`readers` clients read beside the block, each one request after the other on a kept connection."""
        stop = asyncio.Event()

        async def read_on() -> None:
            while not stop.is_set():
                await self.read()
                await asyncio.sleep(pause)

        tasks = [asyncio.create_task(read_on()) for _ in range(clients)]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    @asynccontextmanager
    async def running(self, *, per_second: float, unended: int | None = None) -> AsyncIterator[None]:
        """Send steadily beside the block, and wait at its end for the last answers.

        It pauses while `unended` messages have not ended: a machine too slow for the load must not pile it up.
        """
        stop = asyncio.Event()

        async def is_full() -> bool:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # Postgres may be down
                return unended is not None and await self.ledger.open_count() >= unended
            return False

        async def send_on() -> None:
            async with asyncio.TaskGroup() as sending:
                number = 0
                while not stop.is_set():
                    if number % 10 or not await is_full():
                        sending.create_task(self.send())
                        number += 1
                    await asyncio.sleep(1 / per_second)

        task = asyncio.create_task(send_on())
        try:
            yield
        finally:
            stop.set()
            await task


@asynccontextmanager
async def beside(coroutine: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Run it beside the block, and no longer. Its error becomes the block's error."""
    task = asyncio.create_task(coroutine)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()


def _says_when(answer: Answer) -> bool:
    return answer.status not in (429, 503) or int(answer.headers.get("retry-after", "0")) >= 1


def percentile(values: Sequence[float], percent: float) -> float:
    """0.0 for an empty list."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0
