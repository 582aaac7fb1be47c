"""The clock that all hosts share."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from adapters.memory.runtime import MemoryClock
from adapters.postgres.clock import PostgresClock
from adapters.postgres.connection import rows
from adapters.system import SystemClock, TimeOrderedIds
from domain.errors import DatabaseUnavailable
from entrypoints.container import Container
from tests.support.database import connected
from tests.support.patience import HANG

SOON = timedelta(seconds=30)
TEN_MINUTES = timedelta(minutes=10)


async def time_of_postgres() -> datetime:
    [row] = await rows("SELECT clock_timestamp() AS now")
    found: datetime = row["now"]
    return found


@pytest.mark.parametrize("wrong_by", [TEN_MINUTES, -TEN_MINUTES], ids=["ahead", "behind"])
async def test_it_is_that_of_postgres_whatever_the_hosts_clock_shows(container: Container, wrong_by: timedelta) -> None:
    host = MemoryClock(SystemClock().now() + wrong_by)
    clock = PostgresClock(host)
    assert clock.now() == host.now(), "nothing is known yet"
    await clock.start()
    try:
        assert abs(clock.now() - await time_of_postgres()) < SOON
        host.move(-3 * wrong_by)
        assert abs(clock.now() - await time_of_postgres()) < SOON
        assert clock.now().microsecond % 1000 == 0
        await asyncio.gather(*(clock.read() for _ in range(50)))
        assert abs(clock.now() - await time_of_postgres()) < SOON
    finally:
        await clock.close()


async def test_it_goes_on_without_postgres() -> None:
    host = MemoryClock(SystemClock().now() + TEN_MINUTES)
    clock = PostgresClock(host)
    async with connected("postgres://nobody@127.0.0.1:1/none", acquire_seconds=0.1):
        async with asyncio.timeout(HANG):
            await clock.start()
        with pytest.raises(DatabaseUnavailable):
            await clock.read()
        assert clock.now() == host.now()
        await clock.close()


async def test_ids_follow_the_clock_and_never_go_back(container: Container) -> None:
    clock = MemoryClock()
    ids = TimeOrderedIds(clock)
    made = []
    for step in (0, 1, -1, -600, 1_200, 0):
        clock.move(timedelta(seconds=step))
        made += [ids.new() for _ in range(5_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert abs(made[-1].int >> 80) - clock.now().timestamp() * 1000 < 10
