"""Messages in Postgres. Every contended verb is one conditional statement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

import asyncpg

from adapters.postgres.lookup import Lookup
from adapters.postgres.mapping import to_entity, to_row
from adapters.postgres.statements import Statement, Statements
from application.ports.chat import MessageDesk, MessageQueue, Messages
from domain.billing import Allowance, SendingLimits
from domain.chat.calls import ModelCall
from domain.chat.conversation import Context, Exchange
from domain.chat.history import oldest_id_in
from domain.chat.messages import (
    MAX_CONTINUED_CHARACTERS,
    MAX_DEATHS,
    MAX_THOUGHT_CHARACTERS,
    Message,
    MessageStatus,
    Outcome,
)
from domain.chat.queue import Worker
from domain.chat.usage import Usage
from domain.errors import ChatroomNotFound, MessageEnded, MessageNotFound
from domain.ids import ChatroomId, MessageId, UserId

SQL = Statements("messages")

# To avoid deadlocks, all statements lock rows in one order: the chatroom (KEY SHARE, or UPDATE to delete it), workers,
# entries of the queue by message, messages by id, model calls, the user's counters, the user. The chatroom is locked
# explicitly, since its foreign key would do so too late.


class PostgresMessages(Messages, MessageQueue, MessageDesk):
    def __init__(self) -> None:
        self._usage: Lookup[UserId, Usage] = Lookup(SQL.usages, partial(to_entity, Usage))

    async def accept(self, message: Message, *, limits: SendingLimits) -> Allowance:
        while True:
            try:
                consumed = await _consume(SQL.accept, message, message.created_at, limits, input=message.input)
            except asyncpg.UniqueViolationError:  # sent before, under the same Idempotency-Key
                return await self.allowance(message.user_id, day=message.allowance_day, total=limits.daily)
            except asyncpg.ForeignKeyViolationError as error:
                raise ChatroomNotFound from error  # deleted concurrently, with its owner
            if consumed:
                return consumed
            found = await SQL.refusal(id=message.id, chatroom_id=message.chatroom_id, user_id=message.user_id)
            if not found:
                raise ChatroomNotFound
            if found[0]["is_stored"]:
                return await self.allowance(message.user_id, day=message.allowance_day, total=limits.daily)
            usage = to_entity(Usage, found[0]) if found[0]["day"] else None
            _refuse(usage, message, message.created_at, limits)

    async def regenerate(self, message: Message, *, limits: SendingLimits) -> Allowance:
        return await self._queue_again(SQL.regenerate, Message.regenerated, message, limits)

    async def continue_reply(self, message: Message, *, limits: SendingLimits) -> Allowance:
        values = {"max_characters": MAX_CONTINUED_CHARACTERS}
        return await self._queue_again(SQL.continue_reply, Message.continued, message, limits, **values)

    async def _queue_again(
        self,
        statement: Statement,
        verb: Callable[..., Message],
        message: Message,
        limits: SendingLimits,
        **values: object,
    ) -> Allowance:
        at, plan = message.queued_at, {"max_output_tokens": message.max_output_tokens, "thinking": message.thinking}
        while True:
            if consumed := await _consume(statement, message, at, limits, request_id=message.request_id, **values):
                return consumed
            stored = await self.get(message.id, message.chatroom_id, message.user_id)
            if stored.was_queued_by(message.request_id):
                return await self.allowance(message.user_id, day=message.allowance_day, total=limits.daily)
            verb(stored, at=at, **plan)  # raises what its state forbids
            _refuse(await self._usage(message.user_id), message, at, limits)

    async def allowance(self, user_id: UserId, *, day: date, total: int | None) -> Allowance:
        usage = await self._usage(user_id)
        return usage.allowance(total, day=day) if usage else Allowance(day, 0, total)

    async def get(self, message_id: MessageId, chatroom_id: ChatroomId, user_id: UserId) -> Message:
        found = await SQL.get(id=message_id, chatroom_id=chatroom_id, user_id=user_id)
        if not found:
            raise MessageNotFound
        return to_entity(Message, found[0])

    async def cancel(self, message_id: MessageId, chatroom_id: ChatroomId, user_id: UserId) -> Message:
        for _ in range(5):  # again only after a change in between
            cancelled = await SQL.cancel(id=message_id, chatroom_id=chatroom_id, user_id=user_id)
            message = await self.get(message_id, chatroom_id, user_id)
            if cancelled:
                return message
            if message.status.is_final:
                break
        raise MessageEnded

    async def cancel_requested(self) -> set[MessageId]:
        return {MessageId(row["message_id"]) for row in await SQL.cancel_requested()}

    async def ended(self, message_ids: Sequence[MessageId]) -> set[MessageId]:
        unanswered = await SQL.unanswered(ids=message_ids)
        return set(message_ids) - {MessageId(row["message_id"]) for row in unanswered}

    async def context(self, message: Message, *, limit: int) -> Context:
        found = await SQL.context(
            id=message.id, chatroom_id=message.chatroom_id, limit=limit, oldest=oldest_id_in(message.chatroom_id)
        )
        if not found:
            return Context()
        earlier = [to_entity(Exchange, row) for row in found if row["id"] is not None]
        return Context(earlier, found[0]["instructions"], found[0]["auto_title"])

    async def claim(self, message_id: MessageId, *, worker: Worker, alone: bool = False) -> Message | None:
        for _ in range(2):
            [row] = await SQL.claim(id=message_id, worker=worker.id, alone=alone, suspect_deaths=MAX_DEATHS - 1)
            if row["is_live"]:
                return None if row["id"] is None else to_entity(Message, row)
            await self.renew(worker)
        return None

    async def is_suspect(self, message_id: MessageId) -> bool:
        return bool(await SQL.is_suspect(id=message_id, suspect_deaths=MAX_DEATHS - 1))

    async def renew(self, worker: Worker, held: Sequence[tuple[MessageId, int]] = ()) -> set[MessageId]:
        await SQL.renew(worker=worker.id, lease=worker.lease)
        if not held:
            return set()
        # A second statement: it sees what others took before the lease was renewed. Afterwards they find it alive.
        ids, attempts = [message_id for message_id, _ in held], [attempt for _, attempt in held]
        kept = await SQL.held(worker=worker.id, ids=ids, attempts=attempts)
        return {MessageId(row["message_id"]) for row in kept}

    async def forget_workers(self, *, expired_for: timedelta) -> None:
        while await SQL.forget_workers(expired_for=expired_for):
            pass

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
        return bool(await SQL.requeue(id=message_id))

    async def list_by_status(self, status: MessageStatus, *, limit: int) -> list[Message]:
        match status:
            case MessageStatus.QUEUED | MessageStatus.GENERATING:
                found = await SQL.list_open(is_held=status is MessageStatus.GENERATING, limit=limit)
            case MessageStatus.COMPLETED:
                found = await SQL.list_completed(limit=limit)
            case _:
                found = await SQL.list_unanswered(status=status, limit=limit)
        return [to_entity(Message, row) for row in found]

    async def take_expired(self, *, limit: int, notified_before: timedelta) -> list[MessageId]:
        taken = await SQL.take_expired(limit=limit, notified_before=notified_before)
        return [MessageId(row["message_id"]) for row in taken]

    async def take_unnotified(self, *, limit: int, notified_before: timedelta) -> list[MessageId]:
        taken = await SQL.take_unnotified(limit=limit, notified_before=notified_before)
        return [MessageId(row["message_id"]) for row in taken]


async def _consume(
    statement: Statement, message: Message, at: datetime, limits: SendingLimits, **values: object
) -> Allowance | None:
    consumed = await statement(
        id=message.id,
        chatroom_id=message.chatroom_id,
        user_id=message.user_id,
        at=at,
        day=message.allowance_day,
        daily=limits.daily,
        in_flight=limits.in_flight,
        per_minute=limits.per_minute,
        max_output_tokens=message.max_output_tokens,
        thinking=message.thinking,
        **values,
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


def _refuse(usage: Usage | None, message: Message, at: datetime, limits: SendingLimits) -> None:
    """Raise the limit that is reached; there is none any more if a slot became free meanwhile."""
    day = message.allowance_day
    (usage or Usage(day=day, minute_from=at)).consumed(limits, day=day, at=at)
