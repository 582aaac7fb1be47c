"""Chatrooms: creating, listing, opening, changing and deleting them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from application.ports.chat import ChatroomLists, Chatrooms, ReplyStream
from application.ports.runtime import Clock, Ids
from domain.accounts import User
from domain.chat.chatrooms import Chatroom
from domain.chat.messages import MessageView
from domain.errors import Unavailable
from domain.ids import ChatroomId, MessageId

T = TypeVar("T", Chatroom, MessageView)

PAGE = 50


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """`items`, newest first, and the cursor of the `next` page, None at the end."""

    items: Sequence[T]
    next: ChatroomId | MessageId | None

    @classmethod
    def cut(cls, found: Sequence[T], limit: int) -> Page[T]:
        """Of items that were requested with one more than `limit`."""
        items = found[:limit]
        return cls(items, items[-1].id if len(found) > limit else None)


@dataclass(frozen=True, slots=True)
class CreateChatroom:
    """Open a new chatroom, unless the user has `limit` of them. With the caller's own `chatroom_id`, repeating it has
    no further effect.

    `instructions` are the system instruction of every conversation in it; with `auto_title` the model
    renames it after the first exchange.
    """

    chatrooms: Chatrooms
    clock: Clock
    ids: Ids
    limit: int | None = None

    async def __call__(
        self,
        *,
        user: User,
        name: str,
        instructions: str | None = None,
        auto_title: bool = False,
        chatroom_id: ChatroomId | None = None,
    ) -> Chatroom:
        room = Chatroom(
            id=chatroom_id or ChatroomId(self.ids.new()),
            user_id=user.id,
            name=name,
            instructions=instructions,
            auto_title=auto_title,
            created_at=self.clock.now(),
        )
        return await self.chatrooms.add(room, limit=self.limit)


@dataclass(frozen=True, slots=True)
class ListChatrooms:
    """The caller's chatrooms, newest first. The first page of the usual size is cached until it changes."""

    chatrooms: Chatrooms
    lists: ChatroomLists

    async def __call__(self, *, user: User, limit: int, cursor: ChatroomId | None = None) -> Page[Chatroom]:
        if cursor is None and limit == PAGE:
            return Page.cut(await self._first_page(user), limit)
        return Page.cut(await self.chatrooms.list_for_user(user.id, limit=limit + 1, before=cursor), limit)

    async def _first_page(self, user: User) -> list[Chatroom]:
        version = user.chatrooms_version
        try:
            if (cached := await self.lists.get(user.id, version)) is not None:
                return cached
        except Unavailable:
            return await self.chatrooms.list_for_user(user.id, limit=PAGE + 1)
        found = await self.chatrooms.list_for_user(user.id, limit=PAGE + 1)
        with suppress(Unavailable):
            await self.lists.put(user.id, version, found)
        return found


class OpenedChatroom(NamedTuple):
    chatroom: Chatroom
    messages: Page[MessageView]


@dataclass(frozen=True, slots=True)
class OpenChatroom:
    """A chatroom with its newest `limit` messages, or those before a given one."""

    chatrooms: Chatrooms

    async def __call__(
        self, *, user: User, chatroom_id: ChatroomId, limit: int, before: MessageId | None = None
    ) -> OpenedChatroom:
        room, found = await self.chatrooms.get_with_messages(chatroom_id, user.id, limit=limit + 1, before=before)
        return OpenedChatroom(room, Page.cut(found, limit))


@dataclass(frozen=True, slots=True)
class ChangeChatroom:
    """Rename a chatroom, or change its instructions from the next message on; "" removes them."""

    chatrooms: Chatrooms

    async def __call__(
        self, *, user: User, chatroom_id: ChatroomId, name: str | None = None, instructions: str | None = None
    ) -> Chatroom:
        return await self.chatrooms.change(chatroom_id, user.id, name=name, instructions=instructions)


@dataclass(frozen=True, slots=True)
class DeleteChatroom:
    """Delete a chatroom with all its messages. Readers of unanswered messages are informed."""

    chatrooms: Chatrooms
    stream: ReplyStream

    async def __call__(self, *, user: User, chatroom_id: ChatroomId) -> None:
        unanswered = await self.chatrooms.delete(chatroom_id, user.id)
        await asyncio.gather(*(self.stream.wake(message_id) for message_id in unanswered))
