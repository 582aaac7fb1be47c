"""Calls that arrive together share one round trip, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from adapters.batching import Batched


class Store:
    """Answers with ten times the question, when it is let; remembers what it was asked at once."""

    def __init__(self) -> None:
        self.trips: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.error: BaseException | None = None

    async def ask(self, questions: Sequence[int]) -> list[int]:
        self.trips.append(list(questions))
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return [10 * question for question in questions]


@pytest.fixture
async def store() -> Store:
    return Store()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_arrives_together_is_one_trip(store: Store) -> None:
    ask = Batched(store.ask)
    assert await asyncio.gather(*(ask(number) for number in (3, 1, 3, 2))) == [30, 10, 30, 20]
    assert store.trips == [[3, 1, 3, 2]]


async def test_a_call_alone_waits_for_one_turn_of_the_loop(store: Store) -> None:
    ask = Batched(store.ask)
    call = asyncio.create_task(ask(1))
    await asyncio.sleep(0)  # it is in
    await asyncio.sleep(0)  # the trip's task has begun, and lets the others that are ready come along
    assert store.trips == []
    await asyncio.sleep(0)
    assert store.trips == [[1]]
    assert await call == 10


async def test_no_reply_is_older_than_its_call(store: Store) -> None:
    ask = Batched(store.ask)
    store.open.clear()
    first = asyncio.create_task(ask(1))
    await settle()
    second = asyncio.create_task(ask(1))
    await settle()
    assert store.trips == [[1]]
    store.open.set()
    assert [await first, await second] == [10, 10]
    assert store.trips == [[1], [1]]


async def test_trips_are_of_a_limited_size_and_follow_each_other(store: Store) -> None:
    ask = Batched(store.ask, size=2)
    store.open.clear()
    calls = [asyncio.create_task(ask(number)) for number in range(5)]
    await settle()
    assert store.trips == [[0, 1]]
    store.open.set()
    assert await asyncio.gather(*calls) == [10 * number for number in range(5)]
    assert store.trips == [[0, 1], [2, 3], [4]]


async def test_a_cancelled_call_leaves_the_others_alone(store: Store) -> None:
    ask = Batched(store.ask)
    store.open.clear()
    first, second = (asyncio.create_task(ask(number)) for number in (1, 2))
    await settle()
    third, fourth = (asyncio.create_task(ask(number)) for number in (3, 4))
    await settle()
    first.cancel()  # on its way
    third.cancel()  # not asked yet
    store.open.set()
    assert [await second, await fourth] == [20, 40]
    assert first.cancelled()
    assert third.cancelled()
    assert store.trips == [[1, 2], [4]]


async def test_a_failed_trip_fails_all_that_wait_and_nobody_after(store: Store) -> None:
    ask = Batched(store.ask)
    store.open.clear()
    first = asyncio.create_task(ask(1))
    await settle()
    second = asyncio.create_task(ask(2))
    await settle()
    store.error = ConnectionError("gone")
    store.open.set()
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionError, ConnectionError]
    assert store.trips == [[1]]
    store.error = None
    assert await ask(3) == 30


async def test_a_trip_that_is_cancelled_cancels_who_waits(store: Store) -> None:
    ask = Batched(store.ask)
    store.error = asyncio.CancelledError()
    results = await asyncio.gather(ask(1), ask(2), return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 2
    store.error = None
    assert await ask(3) == 30
