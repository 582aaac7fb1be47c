"""Chatrooms: creating, listing and opening them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from application.ports.chat import ChatroomLists, Chatrooms
from application.ports.runtime import Clock, Ids
from domain.accounts import User
from domain.chat import Chatroom, Message
from domain.errors import Unavailable
from domain.ids import ChatroomId, MessageId

T = TypeVar("T", Chatroom, Message)

PAGE = 50


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """`items` newest first; `next` is the id to ask onwards from, None at the end."""

    items: Sequence[T]
    next: ChatroomId | MessageId | None

    @classmethod
    def cut(cls, found: Sequence[T], limit: int) -> Page[T]:
        """From what was found when one more than `limit` was asked for."""
        items = found[:limit]
        return cls(items, items[-1].id if len(found) > limit else None)


@dataclass(frozen=True, slots=True)
class CreateChatroom:
    """Open a new chatroom. With a `chatroom_id` of the caller's, doing it again has no further effect."""

    chatrooms: Chatrooms
    clock: Clock
    ids: Ids

    async def __call__(self, *, user: User, name: str, chatroom_id: ChatroomId | None = None) -> Chatroom:
        room = Chatroom(
            id=chatroom_id or ChatroomId(self.ids.new()), user_id=user.id, name=name, created_at=self.clock.now()
        )
        return await self.chatrooms.add(room)


@dataclass(frozen=True, slots=True)
class ListChatrooms:
    """The caller's chatrooms, newest first; the usual first page from the cache while nothing has changed."""

    chatrooms: Chatrooms
    lists: ChatroomLists

    async def __call__(self, *, user: User, limit: int, cursor: ChatroomId | None = None) -> Page[Chatroom]:
        if cursor is None and limit == PAGE:
            return Page.cut(await self._first_page(user), limit)
        return Page.cut(await self.chatrooms.list_of(user.id, limit=limit + 1, before=cursor), limit)

    async def _first_page(self, user: User) -> list[Chatroom]:
        version = user.chatrooms_version
        try:
            if (cached := await self.lists.get(user.id, version)) is not None:
                return cached
        except Unavailable:
            return await self.chatrooms.list_of(user.id, limit=PAGE + 1)
        found = await self.chatrooms.list_of(user.id, limit=PAGE + 1)
        with suppress(Unavailable):
            await self.lists.put(user.id, version, found)
        return found


@dataclass(frozen=True, slots=True)
class OpenChatroom:
    """A chatroom with its messages: the newest `limit`, or those before a given one."""

    chatrooms: Chatrooms

    async def __call__(
        self, *, user: User, chatroom_id: ChatroomId, limit: int, before: MessageId | None = None
    ) -> tuple[Chatroom, Page[Message]]:
        room, found = await self.chatrooms.open(chatroom_id, user.id, limit=limit + 1, before=before)
        return room, Page.cut(found, limit)
