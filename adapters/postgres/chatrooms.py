"""Chatrooms in Postgres. For the order of locks see chat.py."""

from __future__ import annotations

import asyncpg

from adapters.postgres.connection import transaction
from adapters.postgres.history import erase
from adapters.postgres.mapping import to_entity, to_row
from adapters.postgres.statements import Statements
from application.ports.chat import Chatrooms, RoomMessages
from domain.chat.chatrooms import Chatroom
from domain.chat.history import oldest_id_in
from domain.chat.messages import MessageView
from domain.errors import ChatroomNotFound, TooManyChatrooms, UserNotFound
from domain.ids import ChatroomId, MessageId, UserId

SQL = Statements("chatrooms")

_UNLIMITED = 2**31
#: More rooms than one user can be adding at the same time, at all processes.
_CONCURRENT = 200


class PostgresChatrooms(Chatrooms):
    async def add(self, chatroom: Chatroom, *, limit: int | None = None) -> Chatroom:
        most = _UNLIMITED if limit is None else limit
        # What concurrent requests add meanwhile is not counted, so this leaves more room than they can take.
        if stored := await SQL.add(**to_row(chatroom), limit=most - _CONCURRENT):
            return to_entity(Chatroom, stored[0])

        async def run(connection: asyncpg.Connection) -> Chatroom:
            if not await SQL.lock_owner.on(connection, id=chatroom.user_id):
                raise UserNotFound
            added = await SQL.add.on(connection, **to_row(chatroom), limit=most)
            if not added:
                raise TooManyChatrooms
            return to_entity(Chatroom, added[0])

        return await transaction(run)

    async def change(
        self,
        chatroom_id: ChatroomId,
        user_id: UserId,
        *,
        name: str | None = None,
        instructions: str | None = None,
    ) -> Chatroom:
        changed = await SQL.change(id=chatroom_id, user_id=user_id, name=name, instructions=instructions)
        if not changed:
            raise ChatroomNotFound
        return to_entity(Chatroom, changed[0])

    async def set_title(self, chatroom_id: ChatroomId, title: str) -> bool:
        return bool(await SQL.set_title(id=chatroom_id, name=title))

    async def delete(self, chatroom_id: ChatroomId, user_id: UserId) -> list[MessageId]:
        # A single statement would not see messages that were sent while it waited for the lock.
        async def run(connection: asyncpg.Connection) -> list[MessageId]:
            if not await SQL.lock.on(connection, id=chatroom_id, user_id=user_id):
                raise ChatroomNotFound
            unanswered = await SQL.end_unanswered.on(connection, id=chatroom_id, user_id=user_id)
            await SQL.delete.on(connection, id=chatroom_id, user_id=user_id)
            await erase(connection, chatroom_id)  # what is left is erased by workers
            return [MessageId(row["message_id"]) for row in unanswered]

        return await transaction(run)

    async def list_for_user(self, user_id: UserId, *, limit: int, before: ChatroomId | None = None) -> list[Chatroom]:
        found = await SQL.list_for_user(user_id=user_id, limit=limit, before=before)
        return [to_entity(Chatroom, row) for row in found]

    async def get_with_messages(
        self, chatroom_id: ChatroomId, user_id: UserId, *, limit: int, before: MessageId | None = None
    ) -> RoomMessages:
        found = await SQL.get_with_messages(
            id=chatroom_id, user_id=user_id, limit=limit, before=before, oldest=oldest_id_in(chatroom_id)
        )
        if not found:
            raise ChatroomNotFound
        room = Chatroom(
            id=chatroom_id,
            user_id=user_id,
            name=found[0]["room_name"],
            instructions=found[0]["instructions"],
            auto_title=found[0]["auto_title"],
            created_at=found[0]["opened_at"],
        )
        return RoomMessages(room, [to_entity(MessageView, row) for row in found if row["id"] is not None])
