"""What the cache of room lists promises."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from adapters.redis.cache import RedisChatroomLists
from adapters.redis.connection import RedisConnection
from adapters.system import TimeOrderedIds
from domain.chat import Chatroom
from domain.errors import (
    RedisUnavailable,
)
from domain.ids import ChatroomId, UserId
from entrypoints.container import Container
from entrypoints.local.processes import free_port
from tests.contracts.conftest import Adapters, InPostgresAndRedis


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

    async def test_every_part_of_the_key_counts(self, adapters: Adapters) -> None:
        [room], user = self.rooms(adapters, 1), adapters.new_user()
        await adapters.lists.put(user.id, 3, [room])
        assert await adapters.lists.get(user.id, 4) is None
        assert await adapters.lists.get(user.id, 2) is None
        assert await adapters.lists.get(adapters.new_user().id, 3) is None
        assert await adapters.lists.get(user.id, 3) == [room]

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

    async def test_expires_by_itself(self, real: InPostgresAndRedis, container: Container) -> None:
        user = real.new_user()
        await real.lists.put(user.id, 3, [])
        [key] = [key async for key in container.redis().client.scan_iter(f"*{user.id}*")]
        assert 0 < await container.redis().client.ttl(key) <= 600

    async def test_away_it_says_so_soon(self) -> None:
        redis = RedisConnection(f"redis://127.0.0.1:{free_port()}", command_seconds=0.5)
        lists, ids = RedisChatroomLists(redis, namespace="test"), TimeOrderedIds()
        async with asyncio.timeout(5):
            with pytest.raises(RedisUnavailable):
                await lists.get(UserId(ids.new()), 0)
            with pytest.raises(RedisUnavailable):
                await lists.put(UserId(ids.new()), 0, [])
        await redis.close()
