"""The cache of room lists."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from adapters.redis.connection import RedisConnection
from application.ports.chat import ChatroomLists
from domain.chat.chatrooms import Chatroom
from domain.ids import UserId

_ROOMS = TypeAdapter(list[Chatroom])
_SHAPE = 3  # of the entries: raise it when Chatroom's fields change, so that two versions can run side by side
_LIFETIME_SECONDS = 600
#: Bytes per user in Redis. A page without instructions has 15 kB; with long ones in all rooms, 800 kB.
MAX_BYTES = 65_536


class RedisChatroomLists(ChatroomLists):
    def __init__(self, redis: RedisConnection, *, namespace: str) -> None:
        self._redis = redis
        self._prefix = f"{namespace}:chatrooms:{_SHAPE}"

    async def get(self, user_id: UserId, version: int) -> list[Chatroom] | None:
        async with self._redis.bounded() as client:
            cached: bytes | None = await client.get(self._key(user_id))  # type: ignore[assignment]  # none decoded
        cached_version, _, rooms = (cached or b"").partition(b" ")
        if cached_version != b"%d" % version:
            return None
        try:
            return _ROOMS.validate_json(rooms)
        except ValidationError:
            return None

    async def put(self, user_id: UserId, version: int, rooms: list[Chatroom]) -> None:
        entry = b"%d %s" % (version, _ROOMS.dump_json(rooms))
        if len(entry) > MAX_BYTES:
            return
        async with self._redis.bounded() as client:
            await client.set(self._key(user_id), entry, ex=_LIFETIME_SECONDS)

    def _key(self, user_id: UserId) -> str:
        return f"{self._prefix}:{user_id}"
