"""Work in a few threads, for different callers in turn."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import ExitStack

import pytest

from adapters.fair_threads import (
    MAX_UNDER_WAY,
    MAX_UNDER_WAY_PER_CALLER,
    MAX_WAITING,
    MAX_WAITING_PER_CALLER,
    FairThreads,
)
from adapters.security import Argon2Hasher
from domain.errors import HashingBusy
from tests.support.patience import HANG


class Work:
    """Takes a thread until it is let go. Remembers whose turns there were."""

    def __init__(self, threads: int = 2) -> None:
        self.threads = FairThreads(threads)
        self.done: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self.busy = 0
        self.most = 0
        self._lock = threading.Lock()
        self._go = threading.Event()

    def _work(self, caller: str) -> None:
        with self._lock:
            self.busy += 1
            self.most = max(self.most, self.busy)
        assert self._go.wait(HANG)
        with self._lock:
            self.busy -= 1
            self.done.append(caller)

    async def ask(self, caller: str) -> None:
        try:
            await self.threads.run(caller, self._work, caller)
        except HashingBusy:
            self.outcomes[f"{caller} refused"] += 1
        else:
            self.outcomes[f"{caller} done"] += 1

    async def all_at_work(self, threads: int = 2) -> None:
        async with asyncio.timeout(HANG):
            while self.busy < threads:  # noqa: ASYNC110 - threads have no event of the loop
                await asyncio.sleep(0.001)

    async def waits(self, *callers: str) -> list[asyncio.Task[None]]:
        """Ask in this order; who waits is known when it returns."""
        tasks = []
        for caller in callers:
            tasks.append(asyncio.create_task(self.ask(caller)))
            await asyncio.sleep(0)
        return tasks

    async def finish(self, tasks: list[asyncio.Task[None]]) -> None:
        self._go.set()
        async with asyncio.timeout(HANG):
            await asyncio.gather(*tasks)


@pytest.fixture
def work() -> Work:
    return Work()


async def test_no_more_than_its_threads_work_at_once_and_the_loop_goes_on(work: Work) -> None:
    tasks = await work.waits(*"aabbccdd")
    await work.all_at_work()
    for _ in range(100):
        await asyncio.sleep(0)
    await work.finish(tasks)
    assert (work.most, len(work.done)) == (2, 8)


async def test_a_crowd_waits_for_itself(work: Work) -> None:
    tasks = await work.waits("x", "x", *["crowd"] * MAX_WAITING_PER_CALLER, "owner")
    await work.all_at_work()
    await work.finish(tasks)
    assert work.outcomes.total() == len(tasks)
    assert "owner" in work.done[:5], "its turn is the second: behind those at work and one of the crowd"


async def test_the_surplus_of_a_caller_is_refused_at_once(work: Work) -> None:
    tasks = await work.waits("x", "x", *["crowd"] * 2_000, "owner")
    assert work.outcomes["crowd refused"] == 2_000 - MAX_WAITING_PER_CALLER
    await work.all_at_work()
    await work.finish(tasks)
    assert (work.outcomes["crowd done"], work.outcomes["owner done"]) == (MAX_WAITING_PER_CALLER, 1)


async def test_if_too_much_waits_in_all_the_one_with_the_most_gives_way(work: Work) -> None:
    crowds = [f"crowd {n}" for n in range(MAX_WAITING // MAX_WAITING_PER_CALLER)]
    tasks = await work.waits("x", "x", *(crowd for crowd in crowds for _ in range(MAX_WAITING_PER_CALLER)))
    assert work.outcomes.total() == 0
    tasks += await work.waits("owner", "other")
    await work.all_at_work()
    await work.finish(tasks)
    assert (work.outcomes["owner done"], work.outcomes["other done"]) == (1, 1)
    assert sum(work.outcomes[f"{crowd} refused"] for crowd in crowds) == 2


async def test_who_gives_up_while_waiting_leaves_the_queue(work: Work) -> None:
    tasks = await work.waits("x", "x", *["gone"] * MAX_WAITING_PER_CALLER)
    await work.all_at_work()
    for task in tasks[2:]:
        task.cancel()
    await asyncio.gather(*tasks[2:], return_exceptions=True)
    tasks = [*tasks[:2], *await work.waits(*["gone"] * MAX_WAITING_PER_CALLER)]
    await work.finish(tasks)
    assert (work.outcomes["gone done"], work.outcomes["gone refused"]) == (MAX_WAITING_PER_CALLER, 0)


async def test_work_that_has_begun_keeps_its_thread_though_nobody_waits_for_it(work: Work) -> None:
    tasks = await work.waits("x", "x")
    await work.all_at_work()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    later = await work.waits("y", "y")
    assert work.busy == 2
    await work.finish(later)
    async with asyncio.timeout(HANG):
        while len(work.done) < 4:  # noqa: ASYNC110 - threads have no event of the loop
            await asyncio.sleep(0.001)
    assert work.most == 2


async def test_a_turn_that_comes_with_a_cancellation_is_passed_on(work: Work) -> None:
    for _ in range(50):
        tasks = await work.waits("x", "x", "y", "z")
        work._go.set()  # noqa: SLF001 - the turn comes at some moment during the cancellation
        await asyncio.sleep(0)
        tasks[2].cancel()
        async with asyncio.timeout(HANG):
            await asyncio.gather(*tasks, return_exceptions=True)
        work._go.clear()  # noqa: SLF001
    async with asyncio.timeout(HANG):
        while work.threads._free < 2:  # noqa: ASYNC110, SLF001 - no thread is lost
            await asyncio.sleep(0.001)


def test_of_a_caller_only_so_much_is_under_way_at_once() -> None:
    threads = FairThreads(2)
    with ExitStack() as crowd:
        for _ in range(MAX_UNDER_WAY_PER_CALLER):
            crowd.enter_context(threads.admitted("crowd"))
        with pytest.raises(HashingBusy), threads.admitted("crowd"):
            pytest.fail("it is admitted")
        with threads.admitted("owner"):
            pass
        for number in range(MAX_UNDER_WAY - MAX_UNDER_WAY_PER_CALLER):
            crowd.enter_context(threads.admitted(f"caller {number}"))
        with pytest.raises(HashingBusy), threads.admitted("owner"):
            pytest.fail("it is admitted")
    for _ in range(100):
        with threads.admitted("crowd"), threads.admitted("owner"):
            pass


async def test_codes_and_passwords_have_threads_of_their_own() -> None:
    codes, passwords = (Argon2Hasher(memory_mib=1, iterations=1, key=key) for key in (b"key", b""))
    await asyncio.gather(*(passwords.hash("correct horse", caller=str(n)) for n in range(MAX_WAITING)))
    hashed = await codes.hash("042137")
    assert await codes.matches("042137", hashed)
