"""The cache of room lists."""

from __future__ import annotations

import structlog
from pydantic import TypeAdapter
from redis.exceptions import RedisError

from adapters.redis.connection import RedisConnection
from application.ports.chat import ChatroomLists
from domain.chat import Chatroom
from domain.ids import ChatroomId, UserId

log = structlog.get_logger(__name__)

_ROOMS = TypeAdapter(list[Chatroom])
_LIFETIME_SECONDS = 600


class RedisChatroomLists(ChatroomLists):
    def __init__(self, redis: RedisConnection, *, namespace: str) -> None:
        self._redis = redis
        self._namespace = namespace

    async def get(
        self, user_id: UserId, version: int, *, limit: int, before: ChatroomId | None
    ) -> list[Chatroom] | None:
        try:
            cached = await self._redis.client.get(self._key(user_id, version, limit, before))
        except (RedisError, OSError) as error:
            log.warning("cache_unavailable", error=type(error).__name__)
            return None
        return None if cached is None else _ROOMS.validate_json(cached)

    async def put(
        self, user_id: UserId, version: int, rooms: list[Chatroom], *, limit: int, before: ChatroomId | None
    ) -> None:
        try:
            await self._redis.client.set(
                self._key(user_id, version, limit, before), _ROOMS.dump_json(rooms), ex=_LIFETIME_SECONDS
            )
        except (RedisError, OSError) as error:
            log.warning("cache_unavailable", error=type(error).__name__)

    def _key(self, user_id: UserId, version: int, limit: int, before: ChatroomId | None) -> str:
        return f"{self._namespace}:chatrooms:{user_id}:{version}:{limit}:{before or ''}"
