"""What UnitOfWork, Clock and Ids promise."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from adapters.memory.runtime import MemoryClock
from adapters.system import SystemClock, TimeOrderedIds
from application.ports.runtime import Clock
from domain.accounts import User
from tests.contracts.conftest import Adapters, InPostgresAndRedis
from tests.support.database import connections_out


async def is_stored(adapters: Adapters, user: User) -> bool:
    return await adapters.users.find_by_mobile(user.mobile) == user


class TestUnitOfWork:
    async def test_commits_at_the_end(self, adapters: Adapters) -> None:
        async with adapters.unit_of_work():
            users = [await adapters.user() for _ in range(3)]
            assert [await is_stored(adapters, user) for user in users] == [True] * 3, "it sees its own writes"
        assert [await is_stored(adapters, user) for user in users] == [True] * 3

    async def test_rolls_all_back_when_left_by_an_exception(self, adapters: Adapters) -> None:
        users: list[User] = []

        async def fail() -> None:
            async with adapters.unit_of_work():
                users.extend([await adapters.user() for _ in range(3)])
                raise LookupError("of the caller's own")

        with pytest.raises(LookupError, match="of the caller's own"):
            await fail()
        assert [await is_stored(adapters, user) for user in users] == [False] * 3

    async def test_leaves_what_was_before(self, adapters: Adapters) -> None:
        user = await adapters.user(name="before")
        async with adapters.rolled_back():
            await adapters.users.set_password(user.id, "first")
            await adapters.users.set_password(user.id, "second")
        assert await is_stored(adapters, user)
        async with adapters.unit_of_work():
            await adapters.users.set_password(user.id, "third")
        found = await adapters.users.find_by_mobile(user.mobile)
        assert found is not None
        assert found.password_hash == "third"

    async def test_rolls_back_when_its_task_is_cancelled(self, adapters: Adapters) -> None:
        user, written = adapters.new_user(), asyncio.Event()

        async def write_and_wait() -> None:
            async with adapters.unit_of_work():
                await adapters.users.add(user)
                written.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(write_and_wait())
        await written.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not await is_stored(adapters, user)

    async def test_one_after_the_other_in_one_task(self, adapters: Adapters) -> None:
        async with adapters.rolled_back():
            lost = await adapters.user()
        async with adapters.unit_of_work():
            kept = await adapters.user()
        after = await adapters.user()
        assert [await is_stored(adapters, user) for user in (lost, kept, after)] == [False, True, True]

    async def test_many_at_once_do_not_mix(self, adapters: Adapters) -> None:
        async def work(number: int) -> User:
            if number % 2:
                async with adapters.unit_of_work():
                    user = await adapters.user()
                    await asyncio.sleep(0)
                    await adapters.users.set_password(user.id, "hash")
            else:
                async with adapters.rolled_back():
                    user = await adapters.user()
                    await asyncio.sleep(0)
            return user

        users = await asyncio.gather(*(work(number) for number in range(30)))
        found = [await adapters.users.find_by_mobile(user.mobile) for user in users]
        assert [user and user.password_hash for user in found] == [None, "hash"] * 15

    async def test_they_do_not_nest(self, adapters: Adapters) -> None:
        async def nest() -> None:
            async with adapters.unit_of_work(), adapters.unit_of_work():
                pass

        with pytest.raises(AssertionError, match="do not nest"):
            await nest()
        assert await is_stored(adapters, await adapters.user())

    async def test_others_see_it_after_the_commit_and_not_before(self, real: InPostgresAndRedis) -> None:
        user, written, commit = real.new_user(), asyncio.Event(), asyncio.Event()

        async def write() -> None:
            async with real.unit_of_work():
                await real.users.add(user)
                written.set()
                await commit.wait()

        task = asyncio.create_task(write())
        await written.wait()
        assert not await is_stored(real, user)
        commit.set()
        await task
        assert await is_stored(real, user)

    async def test_a_client_that_leaves_at_any_moment_leaks_nothing(self, real: InPostgresAndRedis) -> None:
        async def work() -> None:
            async with real.unit_of_work():
                user = await real.user()
                await real.session(user)

        for steps in range(60):
            task = asyncio.create_task(work())
            for _ in range(steps // 3):
                await asyncio.sleep(0 if steps % 3 else 0.0005)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert await connections_out() == 0


@pytest.fixture(params=[SystemClock, MemoryClock])
def clock(request: pytest.FixtureRequest) -> Clock:
    made: Clock = request.param()
    return made


def test_a_clock_tells_utc_cut_to_the_millisecond(clock: Clock) -> None:
    times = [clock.now() for _ in range(1000)]
    assert {time.tzinfo for time in times} == {UTC}
    assert {time.microsecond % 1000 for time in times} == {0}
    assert times == sorted(times)


def test_the_systems_clock_is_the_machines() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    assert before <= SystemClock().now() <= datetime.now(UTC)


def test_a_memory_clock_stands_still_until_it_is_moved() -> None:
    clock = MemoryClock(datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC))
    before = clock.now()
    assert clock.now() == before
    clock.move(timedelta(seconds=1))
    assert clock.now() == datetime(2026, 3, 1, tzinfo=UTC)


class TestIds:
    def test_a_hundred_thousand_are_strictly_increasing(self) -> None:
        ids = TimeOrderedIds()
        made = [ids.new() for _ in range(100_000)]
        assert all(earlier < later for earlier, later in pairwise(made))
        assert {id.version for id in made} == {7}
        assert {id.variant for id in made} == {"specified in RFC 4122"}
        assert [str(id) for id in made] == sorted(str(id) for id in made), "their text sorts as they do"

    def test_they_begin_with_the_millisecond(self) -> None:
        before = datetime.now(UTC).timestamp()
        milliseconds = TimeOrderedIds().new().int >> 80
        assert int(before * 1000) <= milliseconds <= int(datetime.now(UTC).timestamp() * 1000)

    def test_two_sources_do_not_collide(self) -> None:
        sources = [TimeOrderedIds() for _ in range(4)]
        assert len({source.new() for _ in range(5_000) for source in sources}) == 20_000
