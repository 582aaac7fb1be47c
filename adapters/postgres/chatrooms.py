"""Chatrooms in Postgres. Of the order in which rows are locked see chat.py."""

from __future__ import annotations

import asyncpg

from adapters.postgres.connection import rows, transaction
from adapters.postgres.mapping import to_entity
from adapters.postgres.tables import ChatroomRow
from application.ports.chat import Chatrooms
from domain.chat.chatrooms import Chatroom
from domain.chat.messages import Message
from domain.errors import ChatroomNotFound, UserNotFound
from domain.ids import ChatroomId, MessageId, UserId

_RAISED = """
raised AS (
    UPDATE users SET chatrooms_version = chatrooms_version + 1 FROM changed WHERE users.id = changed.user_id
)
"""
_CHANGE = f"""
WITH changed AS (
    UPDATE chatrooms SET name = coalesce($3, name), auto_title = auto_title AND $3::text IS NULL,
        instructions = CASE WHEN $4::text IS NULL THEN instructions ELSE nullif($4, '') END
    WHERE id = $1 AND user_id = $2 RETURNING *
),
{_RAISED}
SELECT * FROM changed
"""
_ENTITLE = f"""
WITH changed AS (
    UPDATE chatrooms SET name = $2, auto_title = false WHERE id = $1 AND auto_title RETURNING user_id
),
{_RAISED}
SELECT FROM changed
"""


class PostgresChatrooms(Chatrooms):
    async def add(self, chatroom: Chatroom) -> Chatroom:
        stored = await rows(
            "WITH owner AS (UPDATE users SET chatrooms_version = chatrooms_version + 1 WHERE id = $2 RETURNING id)"
            " INSERT INTO chatrooms (id, user_id, name, instructions, auto_title, created_at)"
            " SELECT $1, id, $3, $4, $5, $6 FROM owner ON CONFLICT (id) DO UPDATE SET id = excluded.id RETURNING *",
            chatroom.id,
            chatroom.user_id,
            chatroom.name,
            chatroom.instructions,
            chatroom.auto_title,
            chatroom.created_at,
        )
        if not stored:
            raise UserNotFound
        return to_entity(Chatroom, stored[0])

    async def change(
        self,
        chatroom_id: ChatroomId,
        user_id: UserId,
        *,
        name: str | None = None,
        instructions: str | None = None,
    ) -> Chatroom:
        changed = await rows(_CHANGE, chatroom_id, user_id, name, instructions)
        if not changed:
            raise ChatroomNotFound
        return to_entity(Chatroom, changed[0])

    async def entitle(self, chatroom_id: ChatroomId, title: str) -> bool:
        return bool(await rows(_ENTITLE, chatroom_id, title))

    async def delete(self, chatroom_id: ChatroomId, user_id: UserId) -> list[MessageId]:
        # One statement would not do: it would not see what was sent while it waited for the room.
        async def run(connection: asyncpg.Connection) -> list[MessageId]:
            room = "SELECT FROM chatrooms WHERE id = $1 AND user_id = $2 FOR UPDATE"
            if not await connection.fetch(room, chatroom_id, user_id):
                raise ChatroomNotFound
            unanswered = await connection.fetch(
                "WITH unanswered AS MATERIALIZED ("
                "   SELECT id FROM messages WHERE chatroom_id = $1 AND status IN ('queued', 'generating')"
                "   ORDER BY id FOR UPDATE"
                " ), ended AS ("
                "   UPDATE allowances SET in_flight = in_flight - (SELECT count(*) FROM unanswered)"
                "   WHERE user_id = $2 AND EXISTS (SELECT FROM unanswered)"
                " ) SELECT id FROM unanswered ORDER BY id",
                chatroom_id,
                user_id,
            )
            await connection.execute(
                "WITH deleted AS (DELETE FROM chatrooms WHERE id = $1)"
                " UPDATE users SET chatrooms_version = chatrooms_version + 1 WHERE id = $2",
                chatroom_id,
                user_id,
            )
            return [MessageId(row["id"]) for row in unanswered]

        return await transaction(run)

    async def list_of(self, user_id: UserId, *, limit: int, before: ChatroomId | None = None) -> list[Chatroom]:
        query = ChatroomRow.filter(user_id=user_id)
        if before:
            query = query.filter(id__lt=before)
        return [to_entity(Chatroom, row) for row in await query.order_by("-id").limit(limit)]

    async def open(
        self, chatroom_id: ChatroomId, user_id: UserId, *, limit: int, before: MessageId | None = None
    ) -> tuple[Chatroom, list[Message]]:
        # One round trip, below the ORM: an empty room is one row without a message.
        found = await rows(
            "SELECT room.name AS room_name, room.instructions, room.auto_title, room.created_at AS opened_at, message.*"
            " FROM chatrooms room LEFT JOIN LATERAL ("
            "   SELECT * FROM messages WHERE chatroom_id = room.id AND ($4::uuid IS NULL OR id < $4)"
            "   ORDER BY id DESC LIMIT $3"
            " ) message ON true WHERE room.id = $1 AND room.user_id = $2 ORDER BY message.id DESC",
            chatroom_id,
            user_id,
            limit,
            before,
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
        return room, [to_entity(Message, row) for row in found if row["id"] is not None]
