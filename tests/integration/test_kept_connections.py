"""Connections that are kept between two uses: still the pool's, and never in a state that the next user would meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from adapters.postgres.connection import rows
from adapters.postgres.kept import KeptConnections
from tests.support.database import connected, connections_out, new_database, open_pool
from tests.support.patience import HANG


@pytest.fixture(scope="module")
def own_database(postgres_url: str) -> Iterator[str]:
    with new_database(postgres_url, migrated=False) as url:
        yield url


@pytest.fixture
async def pool(own_database: str) -> AsyncIterator[Any]:
    pool = await asyncpg.create_pool(own_database, min_size=0, max_size=2)
    yield pool
    pool.terminate()  # a failed test may not have returned all


async def used(connections: KeptConnections, sql: str = "SELECT pg_backend_pid()", *, failed: bool = False) -> Any:
    kept = await connections.acquire(seconds=HANG)
    try:
        return await kept.connection.fetchval(sql)
    finally:
        await connections.release(kept, failed=failed)


async def test_the_next_user_gets_the_same_one(pool: Any) -> None:
    connections = KeptConnections(pool)
    assert await used(connections) == await used(connections)
    assert (connections.free, pool.get_size()) == (1, 1)
    await connections.close()
    assert (connections.free, pool.get_idle_size()) == (0, 1)


async def test_who_waits_gets_the_next_free_one(pool: Any) -> None:
    connections = KeptConnections(pool)
    async with asyncio.timeout(HANG):
        pids = await asyncio.gather(*(used(connections, "SELECT pg_backend_pid(), pg_sleep(0.002)") for _ in range(40)))
    assert len(set(pids)) == pool.get_size() == 2
    await connections.close()


async def test_it_is_waited_for_no_longer_than_asked(pool: Any) -> None:
    connections = KeptConnections(pool)
    held = [await connections.acquire(seconds=HANG) for _ in range(2)]
    with pytest.raises(TimeoutError):
        await connections.acquire(seconds=0.05)
    for kept in held:
        await connections.release(kept, failed=False)
    assert connections.free == 2
    await connections.close()


async def test_who_waits_longest_is_next(pool: Any) -> None:
    connections = KeptConnections(pool)
    held = [await connections.acquire(seconds=HANG) for _ in range(2)]
    order: list[int] = []

    async def wait(number: int) -> None:
        kept = await connections.acquire(seconds=HANG)
        order.append(number)
        await connections.release(kept, failed=number % 3 == 0)

    tasks = [asyncio.create_task(wait(number)) for number in range(9)]
    await asyncio.sleep(0)
    await connections.release(held[0], failed=False)
    async with asyncio.timeout(HANG):
        await asyncio.gather(*tasks)
    assert order == sorted(order)
    await connections.release(held[1], failed=False)
    await connections.close()
    assert pool.get_idle_size() == pool.get_size()


async def test_one_handed_to_somebody_who_left_goes_to_the_next(pool: Any) -> None:
    connections = KeptConnections(pool)
    held = [await connections.acquire(seconds=HANG) for _ in range(2)]
    first, second = (asyncio.create_task(connections.acquire(seconds=HANG)) for _ in range(2))
    await asyncio.sleep(0)
    await connections.release(held[0], failed=False)
    first.cancel()  # in the same turn: it has the connection and cannot use it
    async with asyncio.timeout(HANG):
        handed = await second
    assert first.cancelled()
    assert handed.connection is held[0].connection
    third = asyncio.create_task(connections.acquire(seconds=HANG))
    await asyncio.sleep(0)
    await connections.release(held[1], failed=False)
    third.cancel()
    await asyncio.wait([third])
    assert connections.free == 1
    await connections.release(handed, failed=False)
    await connections.close()


async def test_what_is_in_use_when_all_are_cleared_is_not_kept_after_it(pool: Any) -> None:
    """After a failover, those to the demoted server are let go, busy ones too."""
    connections = KeptConnections(pool)
    busy = await connections.acquire(seconds=HANG)
    await connections.clear()
    await connections.release(busy, failed=False)
    assert connections.free == 0
    await used(connections)
    assert connections.free == 1, "the next one is kept"
    await connections.close()


async def test_what_cannot_be_returned_is_no_error_of_its_user(pool: Any) -> None:
    """Its statement was answered. The place is free again."""

    class Refusing:
        """A pool whose server hangs when a connection is closed."""

        acquire, get_max_size = pool.acquire, pool.get_max_size

        async def release(self, connection: asyncpg.Connection, *, timeout: float) -> None:
            await pool.release(connection, timeout=timeout)
            raise TimeoutError

    connections = KeptConnections(Refusing(), seconds=0)
    for _ in range(3):
        await used(connections)
    assert connections.free == 0


async def test_a_place_in_the_pool_that_becomes_free_is_taken(pool: Any) -> None:
    connections = KeptConnections(pool)
    held = [await connections.acquire(seconds=HANG) for _ in range(2)]
    task = asyncio.create_task(connections.acquire(seconds=HANG))
    await asyncio.sleep(0)
    held[0].connection.terminate()
    await connections.release(held[0], failed=True)
    async with asyncio.timeout(HANG):
        kept = await task
    assert await kept.connection.fetchval("SELECT 1") == 1
    await connections.release(kept, failed=False)
    await connections.release(held[1], failed=False)
    await connections.close()


async def test_after_a_failure_the_pool_cleans_it_up(pool: Any) -> None:
    connections = KeptConnections(pool)
    kept = await connections.acquire(seconds=HANG)
    await kept.connection.execute("BEGIN")
    await connections.release(kept, failed=True)
    assert (connections.free, pool.get_idle_size()) == (0, 1)
    kept = await connections.acquire(seconds=HANG)
    assert not kept.connection.is_in_transaction()
    await connections.release(kept, failed=False)
    await connections.close()


async def test_one_that_is_lost_is_replaced(pool: Any) -> None:
    connections = KeptConnections(pool)
    kept = await connections.acquire(seconds=HANG)
    await connections.release(kept, failed=False)
    kept.connection.terminate()
    assert await used(connections) > 0
    assert (connections.free, pool.get_size()) == (1, 1)
    await connections.close()


async def test_after_a_while_it_goes_back_to_the_pool(pool: Any) -> None:
    connections = KeptConnections(pool, seconds=0)
    await used(connections)
    assert (connections.free, pool.get_idle_size()) == (0, 1)


async def test_one_that_is_not_needed_goes_back_when_others_are_used(pool: Any) -> None:
    connections = KeptConnections(pool, seconds=0.2)
    held = [await connections.acquire(seconds=HANG) for _ in range(2)]
    for kept in held:
        await connections.release(kept, failed=False)
    async with asyncio.timeout(HANG):
        while pool.get_idle_size() == 0:
            await used(connections)
            await asyncio.sleep(0.01)
    await connections.close()


async def test_a_cancelled_user_leaves_nothing_to_the_next(own_database: str) -> None:
    async with connected(own_database, pool=1, acquire_seconds=HANG):
        for _ in range(5):
            task = asyncio.create_task(rows("SELECT pg_sleep(60)"))
            await asyncio.sleep(0.01)
            task.cancel()
            assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
            assert (await rows("SELECT 1 AS one"))[0]["one"] == 1
        assert await connections_out() == 0
        assert (await open_pool()).get_size() == 1
