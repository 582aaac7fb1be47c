"""Chatrooms in memory, and the cache of their lists."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from adapters.memory.accounts import Belongings, MemoryUsers
from adapters.memory.chat import MemoryMessages
from application.ports.chat import ChatroomLists, Chatrooms, RoomMessages
from domain.accounts import User
from domain.chat.chatrooms import Chatroom
from domain.errors import ChatroomNotFound, TooManyChatrooms, UserNotFound
from domain.ids import ChatroomId, MessageId, UserId


class MemoryChatrooms(Chatrooms, Belongings):
    def __init__(self, users: MemoryUsers, messages: MemoryMessages) -> None:
        self._users = users
        self._messages = messages
        self.table = messages.rooms
        users.belongings.append(self)

    def user_added(self, user: User) -> None:
        self._messages.restore_days_use(user)

    def user_deleted(self, user: User) -> None:
        for room in [room for room in self.table.all() if room.user_id == user.id]:
            self._messages.remove_all(room.id)
            self.table.put(room.id, None)
        self._messages.keep_days_use(user)

    def purge(self, today: date) -> None:
        self._messages.purge_days_use(today)

    async def add(self, chatroom: Chatroom, *, limit: int | None = None) -> Chatroom:
        if self._users.table.get(chatroom.user_id) is None:
            raise UserNotFound
        stored = self.table.get(chatroom.id) or chatroom
        owned = [room for room in self.table.all() if room.user_id == chatroom.user_id]
        if limit is not None and len(owned) >= limit and stored not in owned:
            raise TooManyChatrooms
        self._put(stored)
        return stored

    async def change(
        self,
        chatroom_id: ChatroomId,
        user_id: UserId,
        *,
        name: str | None = None,
        instructions: str | None = None,
    ) -> Chatroom:
        room = self._own(chatroom_id, user_id)
        if name is not None:
            room = replace(room, name=name, auto_title=False)
        if instructions is not None:
            room = replace(room, instructions=instructions or None)
        self._put(room)
        return room

    async def set_title(self, chatroom_id: ChatroomId, title: str) -> bool:
        room = self.table.get(chatroom_id)
        if room is None or not room.auto_title:
            return False
        self._put(replace(room, name=title, auto_title=False))
        return True

    async def delete(self, chatroom_id: ChatroomId, user_id: UserId) -> list[MessageId]:
        self._put(self._own(chatroom_id, user_id))
        self.table.put(chatroom_id, None)
        return self._messages.remove_all(chatroom_id)

    def _own(self, chatroom_id: ChatroomId, user_id: UserId) -> Chatroom:
        room = self.table.get(chatroom_id)
        if room is None or room.user_id != user_id:
            raise ChatroomNotFound
        return room

    def _put(self, room: Chatroom) -> None:
        self.table.put(room.id, room)
        if owner := self._users.table.get(room.user_id):
            self._users.table.put(owner.id, replace(owner, chatrooms_version=owner.chatrooms_version + 1))

    async def list_for_user(self, user_id: UserId, *, limit: int, before: ChatroomId | None = None) -> list[Chatroom]:
        rooms = [r for r in self.table.all() if r.user_id == user_id and (before is None or r.id < before)]
        return sorted(rooms, key=lambda room: room.id, reverse=True)[:limit]

    async def get_with_messages(
        self, chatroom_id: ChatroomId, user_id: UserId, *, limit: int, before: MessageId | None = None
    ) -> RoomMessages:
        room = self._own(chatroom_id, user_id)
        found = self._messages.newest(chatroom_id, limit=limit, before=before)
        return RoomMessages(room, [message.view for message in found])


class MemoryChatroomLists(ChatroomLists):
    def __init__(self) -> None:
        self.pages: dict[UserId, tuple[int, list[Chatroom]]] = {}

    async def get(self, user_id: UserId, version: int) -> list[Chatroom] | None:
        cached_version, rooms = self.pages.get(user_id, (None, None))
        return rooms if cached_version == version else None

    async def put(self, user_id: UserId, version: int, rooms: list[Chatroom]) -> None:
        self.pages[user_id] = (version, rooms)
