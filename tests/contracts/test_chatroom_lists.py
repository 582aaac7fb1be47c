"""What the cache of room lists promises."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from adapters.redis.cache import MAX_BYTES, RedisChatroomLists
from adapters.redis.connection import RedisConnection
from adapters.system import TimeOrderedIds
from domain.chat.chatrooms import Chatroom
from domain.errors import (
    RedisUnavailable,
)
from domain.ids import ChatroomId, UserId
from entrypoints.container import Container
from tests.contracts.conftest import Adapters, InPostgresAndRedis
from tests.support.patience import HANG
from tests.support.ports import free_port


class TestChatroomLists:
    def rooms(self, adapters: Adapters, count: int) -> list[Chatroom]:
        user = adapters.new_user()
        return [
            Chatroom(
                id=ChatroomId(adapters.ids.new()),
                user_id=user.id,
                name=f'"ünï" 🌻 {n}',
                created_at=datetime(2026, 1, 1, 23, 59, 59, 999_000, tzinfo=UTC),
            )
            for n in range(count)
        ]

    @pytest.mark.parametrize("count", [0, 1, 51])
    async def test_gives_back_what_was_put(self, adapters: Adapters, count: int) -> None:
        user, rooms = adapters.new_user(), self.rooms(adapters, count)
        assert await adapters.lists.get(user.id, 3) is None
        await adapters.lists.put(user.id, 3, rooms)
        assert await adapters.lists.get(user.id, 3) == rooms

    async def test_the_user_and_the_version_count(self, adapters: Adapters) -> None:
        [room], user = self.rooms(adapters, 1), adapters.new_user()
        await adapters.lists.put(user.id, 3, [room])
        assert await adapters.lists.get(user.id, 4) is None
        assert await adapters.lists.get(user.id, 2) is None
        assert await adapters.lists.get(adapters.new_user().id, 3) is None
        assert await adapters.lists.get(user.id, 3) == [room]

    async def test_there_is_one_version_at_most(self, adapters: Adapters) -> None:
        user, rooms = adapters.new_user(), self.rooms(adapters, 2)
        await adapters.lists.put(user.id, 3, rooms[:1])
        await adapters.lists.put(user.id, 4, rooms)
        assert await adapters.lists.get(user.id, 3) is None
        assert await adapters.lists.get(user.id, 4) == rooms
        await adapters.lists.put(user.id, 3, rooms[:1])  # by one who was slow
        assert await adapters.lists.get(user.id, 4) is None, "a miss, and not the old one"

    async def test_the_last_put_counts(self, adapters: Adapters) -> None:
        user, rooms = adapters.new_user(), self.rooms(adapters, 2)
        for put in (rooms[:1], rooms, []):
            await adapters.lists.put(user.id, 0, put)
            assert await adapters.lists.get(user.id, 0) == put

    @pytest.mark.parametrize("value", [b"", b"garbage", b"{}", b'[{"id": 1}]', b"\xff"])
    async def test_what_has_another_shape_is_absent(
        self, real: InPostgresAndRedis, container: Container, value: bytes
    ) -> None:
        """As another version of the service may have left it."""
        user, rooms = real.new_user(), self.rooms(real, 2)
        await real.lists.put(user.id, 3, rooms)
        redis = container.redis().client
        [key] = [key async for key in redis.scan_iter(f"*{user.id}*")]
        await redis.set(key, value)
        assert await real.lists.get(user.id, 3) is None
        await real.lists.put(user.id, 3, rooms)
        assert await real.lists.get(user.id, 3) == rooms

    async def test_a_list_that_is_too_large_is_not_kept(self, real: InPostgresAndRedis, container: Container) -> None:
        user = real.new_user()
        rooms = [replace(room, instructions="🌻" * 4_000) for room in self.rooms(real, 51)]
        await real.lists.put(user.id, 3, rooms)
        assert await real.lists.get(user.id, 3) is None
        assert [key async for key in container.redis().client.scan_iter(f"*{user.id}*")] == []
        await real.lists.put(user.id, 3, rooms[:3])
        assert await real.lists.get(user.id, 3) == rooms[:3]

    @pytest.mark.parametrize(("length", "times"), [(1, 200), (4_000, 60)])
    async def test_changing_and_listing_in_turns_fills_nothing(
        self, real: InPostgresAndRedis, container: Container, length: int, times: int
    ) -> None:
        user = await real.user()
        rooms = [await real.room(user, instructions="🌻" * length) for _ in range(51)]
        redis = container.redis().client
        for number in range(times):
            await real.chatrooms.change(rooms[number % 51].id, user.id, name=f"Room {number}")
            current = await real.users.find_by_mobile(user.mobile)
            assert current
            page = await container.list_chatrooms()(user=current, limit=50)
            assert f"Room {number}" in {room.name for room in page.items} or number % 51 == 0, "the oldest is on page 2"
        keys = [key async for key in redis.scan_iter(f"*{user.id}*")]
        assert len(keys) <= 1
        assert sum([await redis.memory_usage(key, samples=0) or 0 for key in keys]) < 2 * MAX_BYTES

    async def test_expires_by_itself(self, real: InPostgresAndRedis, container: Container) -> None:
        user = real.new_user()
        await real.lists.put(user.id, 3, [])
        [key] = [key async for key in container.redis().client.scan_iter(f"*{user.id}*")]
        assert 0 < await container.redis().client.ttl(key) <= 600

    async def test_away_it_says_so_soon(self) -> None:
        redis = RedisConnection(f"redis://127.0.0.1:{free_port()}", command_seconds=0.5)
        lists, ids = RedisChatroomLists(redis, namespace="test"), TimeOrderedIds()
        async with asyncio.timeout(HANG):
            with pytest.raises(RedisUnavailable):
                await lists.get(UserId(ids.new()), 0)
            with pytest.raises(RedisUnavailable):
                await lists.put(UserId(ids.new()), 0, [])
        await redis.close()
