"""Chatrooms and messages in Postgres. Each contended verb is one conditional statement."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from tortoise.exceptions import IntegrityError

from adapters.postgres.connection import rows
from adapters.postgres.mapping import to_entity
from adapters.postgres.tables import ChatroomRow, MessageRow
from application.ports.chat import Chatrooms, Messages
from domain.billing import Allowance
from domain.chat import Chatroom, Message, MessageStatus, Outcome
from domain.errors import ChatroomNotFound, MessageNotFound, QuotaExceeded
from domain.ids import ChatroomId, MessageId, UserId


class PostgresChatrooms(Chatrooms):
    async def add(self, chatroom: Chatroom) -> None:
        await rows(
            "WITH owner AS (UPDATE users SET chatrooms_version = chatrooms_version + 1 WHERE id = $2)"
            " INSERT INTO chatrooms (id, user_id, name, created_at) VALUES ($1, $2, $3, $4)",
            chatroom.id,
            chatroom.user_id,
            chatroom.name,
            chatroom.created_at,
        )

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
            "SELECT room.user_id AS owner_id, room.name AS room_name, room.created_at AS opened_at, message.*"
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
        room = Chatroom(id=chatroom_id, user_id=user_id, name=found[0]["room_name"], created_at=found[0]["opened_at"])
        return room, [to_entity(Message, row) for row in found if row["id"] is not None]


class PostgresMessages(Messages):
    async def accept(self, message: Message, *, total: int | None) -> Allowance:
        try:
            result = await rows(
                "WITH room AS (SELECT id FROM chatrooms WHERE id = $2 AND user_id = $3),"
                " consumed AS ("
                "   INSERT INTO daily_usage (user_id, day, used)"
                "   SELECT $3, $6, 1 FROM room WHERE $7::int IS NULL OR $7 > 0"
                "   ON CONFLICT (user_id, day) DO UPDATE SET used = daily_usage.used + 1"
                "   WHERE $7::int IS NULL OR daily_usage.used < $7"
                "   RETURNING used"
                " ), stored AS ("
                "   INSERT INTO messages (id, chatroom_id, user_id, input, created_at, status, allowance_day,"
                "     max_output_tokens, attempt, failures, deaths, due_at, rung_at)"
                "   SELECT $1, $2, $3, $4, $5, 'queued', $6, $8, 0, 0, 0, now(), now() FROM consumed"
                " ) SELECT (SELECT used FROM consumed) AS used, EXISTS (SELECT FROM room) AS room_exists",
                message.id,
                message.chatroom_id,
                message.user_id,
                message.input,
                message.created_at,
                message.allowance_day,
                total,
                message.max_output_tokens,
            )
        except IntegrityError as error:  # the room was deleted between the look and the insert
            raise ChatroomNotFound from error
        if not result[0]["room_exists"]:
            raise ChatroomNotFound
        if result[0]["used"] is None:
            assert total is not None
            raise QuotaExceeded(total=total, resets_at=Allowance(message.allowance_day, total, total).resets_at)
        return Allowance(message.allowance_day, result[0]["used"], total)

    async def allowance(self, user_id: UserId, *, day: date, total: int | None) -> Allowance:
        found = await rows("SELECT used FROM daily_usage WHERE user_id = $1 AND day = $2", user_id, day)
        return Allowance(day, found[0]["used"] if found else 0, total)

    async def get(self, message_id: MessageId, chatroom_id: ChatroomId, user_id: UserId) -> Message:
        row = await MessageRow.get_or_none(id=message_id, chatroom_id=chatroom_id, user_id=user_id)
        if row is None:
            raise MessageNotFound
        return to_entity(Message, row)

    async def before(self, message: Message, *, limit: int) -> list[Message]:
        query = MessageRow.filter(chatroom_id=message.chatroom_id, id__lt=message.id, status=MessageStatus.COMPLETED)
        return [to_entity(Message, row) for row in await query.order_by("-id").limit(limit)]

    async def claim(self, message_id: MessageId, *, lease: timedelta) -> Message | None:
        claimed = await rows(
            "UPDATE messages SET status = 'generating', attempt = attempt + 1, lease_until = now() + $2,"
            " deaths = deaths + (status = 'generating')::int"
            " WHERE id = $1 AND (status = 'queued' AND due_at <= now()"
            " OR status = 'generating' AND lease_until <= now()) RETURNING *",
            message_id,
            lease,
        )
        return to_entity(Message, claimed[0]) if claimed else None

    async def extend(self, held: Sequence[tuple[MessageId, int]], *, lease: timedelta) -> set[MessageId]:
        extended = await rows(
            "UPDATE messages SET lease_until = now() + $3 FROM unnest($1::uuid[], $2::int[]) AS held (id, attempt)"
            " WHERE messages.id = held.id AND messages.attempt = held.attempt AND status = 'generating'"
            " RETURNING messages.id",
            [message_id for message_id, _ in held],
            [attempt for _, attempt in held],
            lease,
        )
        return {MessageId(row["id"]) for row in extended}

    async def finish(self, message_id: MessageId, attempt: int, outcome: Outcome) -> bool:
        ended = await rows(
            "WITH ended AS ("
            "   UPDATE messages SET status = $3, response = $4, finish_reason = $5, input_tokens = $6,"
            "     output_tokens = $7, error_code = $8, error_detail = $9, lease_until = NULL,"
            "     completed_at = date_trunc('milliseconds', now())"
            "   WHERE id = $1 AND attempt = $2 AND status = 'generating' RETURNING user_id, allowance_day"
            " ), refunded AS ("
            "   UPDATE daily_usage SET used = used - 1 FROM ended WHERE $3 = 'failed'"
            "   AND daily_usage.user_id = ended.user_id AND day = ended.allowance_day"
            " ) SELECT 1 FROM ended",
            message_id,
            attempt,
            outcome.status,
            outcome.response,
            outcome.finish_reason,
            outcome.input_tokens,
            outcome.output_tokens,
            outcome.error_code,
            outcome.error_detail,
        )
        return bool(ended)

    async def retry(self, message_id: MessageId, attempt: int, *, delay: timedelta) -> bool:
        return await self._requeue(message_id, attempt, delay, failures=1)

    async def release(self, message_id: MessageId, attempt: int) -> bool:
        return await self._requeue(message_id, attempt, timedelta(), failures=0)

    async def _requeue(self, message_id: MessageId, attempt: int, delay: timedelta, *, failures: int) -> bool:
        return bool(
            await rows(
                "UPDATE messages SET status = 'queued', lease_until = NULL, due_at = now() + $3,"
                " failures = failures + $4 WHERE id = $1 AND attempt = $2 AND status = 'generating' RETURNING id",
                message_id,
                attempt,
                delay,
                failures,
            )
        )

    async def take_unrung(self, *, limit: int, quiet: timedelta) -> list[MessageId]:
        # A bell is missing if it never rang since the message became claimable, or if it rang and
        # nobody came for a while, a while that grows with the wait: then the queue is merely long.
        # Half the wait, so that the first bell, about as old as the message, is found missing too.
        taken = await rows(
            "WITH unrung AS MATERIALIZED ("
            "   SELECT id FROM messages"
            "   WHERE status = 'queued' AND due_at <= now() AND (rung_at < due_at"
            "     OR rung_at <= now() - greatest($2::interval, least((now() - created_at) / 2, 3 * $2::interval)))"
            "   OR status = 'generating' AND lease_until <= now()"
            "     AND (rung_at < lease_until OR rung_at <= now() - $2::interval)"
            "   ORDER BY due_at, id LIMIT $1 FOR UPDATE SKIP LOCKED"
            " ), taken AS ("
            "   UPDATE messages SET rung_at = now() FROM unrung WHERE messages.id = unrung.id"
            "   RETURNING messages.id, due_at"
            " ) SELECT id FROM taken ORDER BY due_at, id",
            limit,
            quiet,
        )
        return [MessageId(row["id"]) for row in taken]
