"""The cache of room lists."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from adapters.redis.connection import RedisConnection
from application.ports.chat import ChatroomLists
from domain.chat import Chatroom
from domain.ids import UserId

_ROOMS = TypeAdapter(list[Chatroom])
_SHAPE = 2  # of what is cached: to be raised with Chatroom's fields, so that two versions can serve side by side
_LIFETIME_SECONDS = 600


class RedisChatroomLists(ChatroomLists):
    def __init__(self, redis: RedisConnection, *, namespace: str) -> None:
        self._redis = redis
        self._prefix = f"{namespace}:chatrooms:{_SHAPE}"

    async def get(self, user_id: UserId, version: int) -> list[Chatroom] | None:
        async with self._redis.bounded() as client:
            cached = await client.get(self._key(user_id, version))
        try:
            return None if cached is None else _ROOMS.validate_json(cached)
        except ValidationError:
            return None

    async def put(self, user_id: UserId, version: int, rooms: list[Chatroom]) -> None:
        async with self._redis.bounded() as client:
            await client.set(self._key(user_id, version), _ROOMS.dump_json(rooms), ex=_LIFETIME_SECONDS)

    def _key(self, user_id: UserId, version: int) -> str:
        return f"{self._prefix}:{user_id}:{version}"
