"""Messages in Postgres. Each contended verb is one conditional statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import asyncpg

from adapters.postgres.connection import rows
from adapters.postgres.mapping import to_entity, to_row, violated
from adapters.postgres.statements import Statements
from adapters.postgres.tables import MessageRow
from application.ports.chat import Messages
from domain.billing import Allowance, SendingLimits
from domain.chat.calls import ModelCall
from domain.chat.conversation import Context, Exchange
from domain.chat.messages import (
    MAX_CONTINUED_CHARACTERS,
    MAX_DEATHS,
    MAX_THOUGHT_CHARACTERS,
    Message,
    MessageStatus,
    Outcome,
)
from domain.errors import (
    ChatroomNotFound,
    MessageEnded,
    MessageNotContinuable,
    MessageNotEnded,
    MessageNotFound,
    QuotaExceeded,
    SendingTooFast,
    TooManyInFlight,
)
from domain.ids import ChatroomId, MessageId, UserId

SQL = Statements("messages")

# Whoever locks rows of several tables does it in this order, which keeps deadlocks away: the chatroom (KEY SHARE, or
# UPDATE to delete it), messages by their id, calls of the model, the
# user's counters, the user. What a foreign key locks by itself comes
# too late for that, so the chatroom is locked by name.

# One row holds all of a user's counters, so that one conditional statement decides and two cannot disagree. $4 is
# the time of sending, $5 its day, $6, $7 and $8 the limits; NULL is unlimited. A day never goes back: a message
# stamped before midnight that comes after it is counted on the new day.
_CONSUMED = """
consumed AS (
    INSERT INTO allowances AS a (user_id, day, used, in_flight, minute_from, minute_used)
    SELECT $3, $5, 1, 1, $4, 1 FROM payable
    WHERE coalesce($6::int, 1) > 0 AND coalesce($7::int, 1) > 0 AND coalesce($8::int, 1) > 0
    ON CONFLICT (user_id) DO UPDATE SET
        day = greatest(a.day, excluded.day),
        used = a.used * (a.day >= excluded.day)::int + 1,
        input_tokens = a.input_tokens * (a.day >= excluded.day)::int,
        output_tokens = a.output_tokens * (a.day >= excluded.day)::int,
        empty_cuts = a.empty_cuts * (a.day >= excluded.day)::int,
        in_flight = a.in_flight + 1,
        minute_from = CASE WHEN a.minute_from + interval '60 s' > excluded.minute_from
            THEN a.minute_from ELSE excluded.minute_from END,
        minute_used = a.minute_used * (a.minute_from + interval '60 s' > excluded.minute_from)::int + 1
    WHERE ($6::int IS NULL OR a.used * (a.day >= excluded.day)::int < $6)
        AND ($7::int IS NULL OR a.in_flight < $7)
        AND ($8::int IS NULL OR a.minute_used * (a.minute_from + interval '60 s' > excluded.minute_from)::int < $8)
    RETURNING day, used, input_tokens, output_tokens
)
"""
_ACCEPT = f"""
WITH payable AS (
    SELECT id FROM chatrooms WHERE id = $2 AND user_id = $3 AND NOT EXISTS (SELECT FROM messages WHERE id = $1)
    FOR KEY SHARE
),
{_CONSUMED},
stored AS (
    INSERT INTO messages (id, chatroom_id, user_id, input, created_at, status, allowance_day, charged, queued_at,
        max_output_tokens, thinking, attempt, failures, deaths, due_at, rung_at)
    SELECT $1, $2, $3, $11, $4, 'queued', day, true, $4, $9, $10, 0, 0, 0, now(), now() FROM consumed
)
SELECT * FROM consumed
"""
_REGENERATE = f"""
WITH room AS (SELECT id FROM chatrooms WHERE id = $2 AND user_id = $3 FOR KEY SHARE),
payable AS (
    SELECT messages.id FROM messages JOIN room ON room.id = chatroom_id
    WHERE messages.id = $1 AND status NOT IN ('queued', 'generating')
        AND ($11::uuid IS NULL OR messages.request_id IS DISTINCT FROM $11) FOR UPDATE OF messages
),
{_CONSUMED},
queued AS (
    UPDATE messages SET status = 'queued', response = NULL, thoughts = NULL, thinking_seconds = NULL,
        finish_reason = NULL, input_tokens = NULL, cached_tokens = NULL, output_tokens = NULL, thought_tokens = NULL,
        error_code = NULL, error_detail = NULL, completed_at = NULL, failures = 0, deaths = 0,
        cancel_requested = false, allowance_day = day, charged = true, queued_at = $4, max_output_tokens = $9,
        thinking = $10, kept_characters = 0, kept_attempt = 0, request_id = $11, window_from = NULL, called = false,
        due_at = now(), rung_at = now()
    FROM consumed WHERE id = $1
)
SELECT * FROM consumed
"""
_CONTINUE = f"""
WITH room AS (SELECT id FROM chatrooms WHERE id = $2 AND user_id = $3 FOR KEY SHARE),
payable AS (
    SELECT messages.id FROM messages JOIN room ON room.id = chatroom_id
    WHERE messages.id = $1 AND status = 'completed' AND finish_reason = 'MAX_TOKENS'
        AND length(response) BETWEEN 1 AND $12
        AND ($11::uuid IS NULL OR messages.request_id IS DISTINCT FROM $11) FOR UPDATE OF messages
),
{_CONSUMED},
queued AS (
    UPDATE messages SET status = 'queued', finish_reason = NULL, error_code = NULL, error_detail = NULL,
        completed_at = NULL, failures = 0, deaths = 0, cancel_requested = false, allowance_day = day, charged = true,
        queued_at = $4, max_output_tokens = $9, thinking = $10, request_id = $11, due_at = now(), rung_at = now(),
        kept_attempt = CASE WHEN kept_characters = length(response) THEN kept_attempt ELSE attempt END,
        kept_characters = length(response), called = false
    FROM consumed WHERE id = $1
)
SELECT * FROM consumed
"""


class PostgresMessages(Messages):
    async def accept(self, message: Message, *, limits: SendingLimits) -> Allowance:
        while True:
            try:
                consumed = await _consume(_ACCEPT, message, message.created_at, limits, message.input)
            except asyncpg.IntegrityConstraintViolationError as error:
                if violated(error) == "messages_pkey":  # sent before, under the same Idempotency-Key
                    return await self.allowance(message.user_id, day=message.allowance_day, total=limits.daily)
                raise ChatroomNotFound from error  # deleted with its owner between the look and the insert
            if consumed:
                return consumed
            now = await _counters(message, message.created_at)
            if now["status"] is not None:
                return await self.allowance(message.user_id, day=message.allowance_day, total=limits.daily)
            _refuse(now, limits)

    async def regenerate(self, message: Message, *, limits: SendingLimits) -> Allowance:
        while True:
            if consumed := await _consume(_REGENERATE, message, message.queued_at, limits, message.request_id):
                return consumed
            try:
                now = await _counters(message, message.queued_at)
            except ChatroomNotFound as error:
                raise MessageNotFound from error
            if now["status"] is None:
                raise MessageNotFound
            if message.request_id is not None and now["request_id"] == message.request_id:  # it came before
                return await self.allowance(message.user_id, day=message.allowance_day, total=limits.daily)
            if not MessageStatus(now["status"]).is_final:
                raise MessageNotEnded
            _refuse(now, limits)

    async def continue_reply(self, message: Message, *, limits: SendingLimits) -> Allowance:
        while True:
            values = message.request_id, MAX_CONTINUED_CHARACTERS
            if consumed := await _consume(_CONTINUE, message, message.queued_at, limits, *values):
                return consumed
            stored = await self.get(message.id, message.chatroom_id, message.user_id)
            if message.request_id is not None and stored.request_id == message.request_id:  # it came before
                return await self.allowance(message.user_id, day=message.allowance_day, total=limits.daily)
            if not stored.status.is_final:
                raise MessageNotEnded
            if not stored.is_continuable:
                raise MessageNotContinuable
            try:
                _refuse(await _counters(message, message.queued_at), limits)
            except ChatroomNotFound as error:
                raise MessageNotFound from error

    async def allowance(self, user_id: UserId, *, day: date, total: int | None) -> Allowance:
        found = await rows(
            "SELECT greatest(day, $2) AS day, used * is_now AS used, input_tokens * is_now AS input_tokens,"
            " output_tokens * is_now AS output_tokens"
            " FROM (SELECT *, (day >= $2)::int AS is_now FROM allowances WHERE user_id = $1) AS counted",
            user_id,
            day,
        )
        return _allowance(found[0], total) if found else Allowance(day, 0, total)

    async def get(self, message_id: MessageId, chatroom_id: ChatroomId, user_id: UserId) -> Message:
        row = await MessageRow.get_or_none(id=message_id, chatroom_id=chatroom_id, user_id=user_id)
        if row is None:
            raise MessageNotFound
        return to_entity(Message, row)

    async def cancel(self, message_id: MessageId, chatroom_id: ChatroomId, user_id: UserId) -> Message:
        while True:
            if cancelled := await SQL.cancel(id=message_id, chatroom_id=chatroom_id, user_id=user_id):
                return to_entity(Message, cancelled[0])
            if (await self.get(message_id, chatroom_id, user_id)).status.is_final:
                raise MessageEnded

    async def cancel_requested(self) -> set[MessageId]:
        found = await rows("SELECT id FROM messages WHERE cancel_requested AND status = 'generating'")
        return {MessageId(row["id"]) for row in found}

    async def ended(self, message_ids: Sequence[MessageId]) -> set[MessageId]:
        unanswered = await rows(
            "SELECT id FROM messages WHERE id = ANY($1::uuid[]) AND status IN ('queued', 'generating')", message_ids
        )
        return set(message_ids) - {MessageId(row["id"]) for row in unanswered}

    async def context(self, message: Message, *, limit: int) -> Context:
        found = await rows(
            "SELECT room.instructions, room.auto_title, past.* FROM chatrooms room LEFT JOIN LATERAL ("
            "   SELECT id, input, response, window_from FROM messages"
            "   WHERE chatroom_id = room.id AND id < $2 AND (status = 'completed' OR kept_characters > 0)"
            "   AND response IS NOT NULL ORDER BY id DESC LIMIT $3"
            " ) past ON true WHERE room.id = $1 ORDER BY past.id DESC",
            message.chatroom_id,
            message.id,
            limit,
        )
        if not found:
            return Context()
        earlier = [to_entity(Exchange, row) for row in found if row["id"] is not None]
        return Context(earlier, found[0]["instructions"], found[0]["auto_title"])

    async def claim(self, message_id: MessageId, *, lease: timedelta, alone: bool = False) -> Message | None:
        claimed = await SQL.claim(id=message_id, lease=lease, alone=alone, suspect_deaths=MAX_DEATHS - 1)
        return to_entity(Message, claimed[0]) if claimed else None

    async def is_suspect(self, message_id: MessageId) -> bool:
        return bool(
            await rows(
                "SELECT 1 FROM messages WHERE id = $1 AND (status = 'queued' AND due_at <= now() AND deaths >= $2"
                " OR status = 'generating' AND lease_until <= now() AND deaths >= $2 - 1)",
                message_id,
                MAX_DEATHS - 1,
            )
        )

    async def extend(self, held: Sequence[tuple[MessageId, int]], *, lease: timedelta) -> set[MessageId]:
        extended = await rows(
            "WITH ours AS MATERIALIZED ("
            "   SELECT messages.id FROM messages JOIN unnest($1::uuid[], $2::int[]) AS held (id, attempt) USING (id)"
            "   WHERE messages.attempt = held.attempt AND status = 'generating'"
            "   ORDER BY messages.id FOR NO KEY UPDATE OF messages"
            " ) UPDATE messages SET lease_until = now() + $3 FROM ours WHERE messages.id = ours.id"
            " RETURNING messages.id",
            [message_id for message_id, _ in held],
            [attempt for _, attempt in held],
            lease,
        )
        return {MessageId(row["id"]) for row in extended}

    async def finish(
        self, message_id: MessageId, attempt: int, outcome: Outcome, *, call: ModelCall | None = None
    ) -> bool:
        ended = await SQL.finish(
            id=message_id,
            attempt=attempt,
            is_empty_cut=outcome.is_empty_cut,
            max_thoughts=MAX_THOUGHT_CHARACTERS,
            **to_row(outcome),
            **_booked(call),
        )
        return bool(ended)

    async def retry(
        self, message_id: MessageId, attempt: int, *, delay: timedelta, call: ModelCall | None = None
    ) -> bool:
        return bool(await SQL.put_back(id=message_id, attempt=attempt, delay=delay, failures=1, **_booked(call)))

    async def release(
        self, message_id: MessageId, attempt: int, *, delay: timedelta = timedelta(), call: ModelCall | None = None
    ) -> bool:
        return bool(await SQL.put_back(id=message_id, attempt=attempt, delay=delay, failures=0, **_booked(call)))

    async def book(self, call: ModelCall) -> None:
        await SQL.book(**_booked(call))

    async def requeue(self, message_id: MessageId) -> bool:
        return bool(
            await rows(
                "WITH room AS ("
                "   SELECT FROM chatrooms JOIN messages ON chatrooms.id = chatroom_id WHERE messages.id = $1"
                "   FOR KEY SHARE OF chatrooms"
                " ), requeued AS ("
                "   UPDATE messages SET status = 'queued', failures = 0, deaths = 0, error_code = NULL,"
                "     error_detail = NULL, finish_reason = NULL, completed_at = NULL, cancel_requested = false,"
                "     called = false, queued_at = now(), due_at = now(), rung_at = now() - interval '1 day'"
                "   FROM room WHERE id = $1 AND status = 'failed' RETURNING user_id"
                " ) UPDATE allowances SET in_flight = in_flight + 1 FROM requeued"
                " WHERE allowances.user_id = requeued.user_id RETURNING 1",
                message_id,
            )
        )

    async def with_status(self, status: MessageStatus, *, limit: int) -> list[Message]:
        found = await MessageRow.filter(status=status).order_by("-id").limit(limit)
        return [to_entity(Message, row) for row in found]

    async def take_abandoned(self, *, limit: int, quiet: timedelta) -> list[MessageId]:
        return await _take(
            "status = 'generating' AND lease_until <= now()"
            " AND (rung_at < lease_until OR rung_at <= now() - $2::interval)",
            "lease_until",
            limit,
            quiet,
        )

    async def take_unrung(self, *, limit: int, quiet: timedelta) -> list[MessageId]:
        # A bell is missing if it never rang since the message became due, or if it rang and nobody
        # came for a while, a while that grows with the wait: then the queue is merely long.
        # Half the wait, so that the first bell, about as old as the message, is found missing too.
        return await _take(
            "status = 'queued' AND due_at <= now() AND (rung_at < due_at"
            " OR rung_at <= now() - greatest($2::interval, least((now() - queued_at) / 2, 3 * $2::interval)))",
            "due_at",
            limit,
            quiet,
        )


async def _consume(
    sql: str, message: Message, at: datetime, limits: SendingLimits, *values: object
) -> Allowance | None:
    consumed = await rows(
        sql,
        message.id,
        message.chatroom_id,
        message.user_id,
        at,
        message.allowance_day,
        limits.daily,
        limits.in_flight,
        limits.per_minute,
        message.max_output_tokens,
        message.thinking,
        *values,
    )
    return _allowance(consumed[0], limits.daily) if consumed else None


def _booked(call: ModelCall | None) -> dict[str, object]:
    """As the statements name it; without a call all of it is NULL."""
    usage = call.usage if call else None
    return {
        "call_user": call and call.user_id,
        "call_message": call and call.message_id,
        "call_attempt": call and call.attempt,
        "call_purpose": call and call.purpose.value,
        "call_model": call and call.model,
        "call_outcome": call and call.outcome,
        "call_day": call and call.day,
        "call_input": usage and usage.input,
        "call_cached": usage and usage.cached,
        "call_output": usage and usage.output,
        "call_thoughts": usage and usage.thoughts,
    }


def _allowance(row: Mapping[str, Any], total: int | None) -> Allowance:
    return Allowance(row["day"], row["used"], total, row["input_tokens"], row["output_tokens"])


async def _counters(message: Message, at: datetime) -> Mapping[str, Any]:
    """Why nothing was consumed: what is counted, and the status of the message, None if it is not stored.

    Raises ChatroomNotFound.
    """
    found = await rows(
        "SELECT messages.status, messages.request_id, greatest(day, $3::date) AS day,"
        " coalesce(used * (day >= $3)::int, 0) AS used, coalesce(in_flight, 0) AS in_flight,"
        " CASE WHEN minute_from + interval '60 s' > $4 THEN minute_used ELSE 0 END AS minute_used,"
        " extract(epoch FROM coalesce(minute_from, $4) + interval '60 s' - $4)::float8 AS minute_left"
        " FROM chatrooms LEFT JOIN allowances ON allowances.user_id = $2"
        " LEFT JOIN messages ON messages.id = $5 AND messages.chatroom_id = chatrooms.id"
        " WHERE chatrooms.id = $1 AND chatrooms.user_id = $2",
        message.chatroom_id,
        message.user_id,
        message.allowance_day,
        at,
        message.id,
    )
    if not found:
        raise ChatroomNotFound
    return found[0]


def _refuse(now: Mapping[str, Any], limits: SendingLimits) -> None:
    """Raise the reason; there is none any more if a slot became free meanwhile."""
    if limits.daily is not None and now["used"] >= limits.daily:
        raise QuotaExceeded(total=limits.daily, resets_at=Allowance(now["day"], 0, None).resets_at)
    if limits.in_flight is not None and now["in_flight"] >= limits.in_flight:
        raise TooManyInFlight(limits.in_flight)
    if limits.per_minute is not None and now["minute_used"] >= limits.per_minute:
        raise SendingTooFast(limits.per_minute, retry_after=now["minute_left"])


async def _take(condition: str, since: str, limit: int, quiet: timedelta) -> list[MessageId]:
    """Mark as rung for, and return, what fulfils the condition; both are texts of this file."""
    taken = await rows(
        f"WITH found AS MATERIALIZED ("
        f"   SELECT id, {since} AS since FROM messages WHERE {condition} ORDER BY {since}, id LIMIT $1"
        "    FOR UPDATE SKIP LOCKED"
        " ), taken AS (UPDATE messages SET rung_at = now() FROM found WHERE messages.id = found.id)"
        " SELECT id FROM found ORDER BY since, id",
        limit,
        quiet,
    )
    return [MessageId(row["id"]) for row in taken]
