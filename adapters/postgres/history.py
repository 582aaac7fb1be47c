"""The history of messages: partitions by month of their ids, and what is removed from it.

messages_past has what was sent before there were months, messages_later all ids after the last month that was made:
so each id has its place, whatever became of housekeeping. There is no default partition, so that Postgres reads months
in their order and stops at the limit of a page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from itertools import islice, takewhile
from uuid import UUID

import asyncpg
import structlog

from adapters.postgres.connection import transaction
from adapters.postgres.statements import Statements
from application.ports.chat import MessageHistory
from application.ports.runtime import Clock
from domain.chat.history import first_id, month_of, next_month, time_of
from domain.errors import DatabaseUnavailable
from domain.ids import ChatroomId

log = structlog.get_logger(__name__)

SQL = Statements("history")

PAST, LATER, BEYOND = "messages_past", "messages_later", "messages_beyond"
#: At least this many are there before their month begins, and twice as many are made at a time.
MONTHS_AHEAD = 3
BATCH = 1_000
_PUT_OFF = (asyncpg.LockNotAvailableError, asyncpg.InsufficientPrivilegeError)


class PostgresMessageHistory(MessageHistory):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def prepare(self) -> None:
        this_month = month_of(self._clock.now())
        wanted = list(islice(months(this_month), 1 + 2 * MONTHS_AHEAD))

        async def run(connection: asyncpg.Connection) -> None:
            if not await _may_change(connection):
                return
            begins = time_of((await SQL.partitions.on(connection))[-1]["first"])
            if begins > wanted[MONTHS_AHEAD]:
                return
            ends = wanted[-1]
            is_used = await SQL.is_used.on(connection, next=first_id(ends))
            await connection.execute(f"ALTER TABLE messages DETACH PARTITION {LATER}")
            if is_used:  # nobody made the months in time: what they hold becomes one partition
                await connection.execute(attach_beyond(ends))
                await SQL.move_on.on(connection, next=first_id(ends))
                await connection.execute(attach_as_months(begins, ends))
            else:
                for month in takewhile(lambda month: month < ends, months(begins)):
                    await connection.execute(make_month(month))
                await connection.execute(attach_later(ends))
            log.info("message_months_made", until=ends.date().isoformat())

        if time_of((await SQL.partitions())[-1]["first"]) <= wanted[MONTHS_AHEAD]:
            await self._change(run)

    async def remove_before(self, time: datetime) -> None:
        first_kept = first_id(month_of(time))
        for partition in await SQL.partitions():
            if partition["next"] is not None and partition["next"] <= first_kept:
                await self._drop(partition["name"], partition["next"])
            elif partition["name"] == PAST:
                await self._shorten_past(first_kept)

    async def _drop(self, name: str, following: UUID) -> None:
        async def run(connection: asyncpg.Connection) -> None:
            if await _may_change(connection):
                await connection.execute(f'DROP TABLE IF EXISTS "{name}"')
                # Only now can none of its messages be queued again.
                while await SQL.end_open.on(connection, next=following):
                    pass
                log.info("message_month_dropped", partition=name)

        await self._change(run)

    async def _shorten_past(self, first_kept: UUID) -> None:
        await self._end_open(first_kept)
        while len(await SQL.delete_past(next=first_kept, limit=BATCH)) == BATCH:
            pass
        await self._end_open(first_kept)  # what was queued again meanwhile

    async def _end_open(self, following: UUID) -> None:
        while await SQL.end_open(next=following):
            pass

    async def _change(self, run: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
        """Housekeeping comes again: a change that is in others' way, or that this role may not make, is put off."""
        try:
            await transaction(run)
        except (*_PUT_OFF, DatabaseUnavailable) as error:
            cause = error.__cause__ if isinstance(error, DatabaseUnavailable) else error
            if not isinstance(cause, _PUT_OFF):
                raise
            log.warning("message_months_put_off", error=type(cause).__name__)

    async def erase_deleted(self) -> bool:
        async def run(connection: asyncpg.Connection) -> bool:
            found = await SQL.deleted_chatroom.on(connection)
            if found:
                await erase(connection, ChatroomId(found[0]["id"]))
            return bool(found)

        return await transaction(run)


async def erase(connection: asyncpg.Connection, chatroom_id: ChatroomId) -> None:
    """One batch of a deleted room's messages."""
    if len(await SQL.erase.on(connection, chatroom_id=chatroom_id, limit=BATCH)) < BATCH:
        await SQL.forget_chatroom.on(connection, chatroom_id=chatroom_id)


async def _may_change(connection: asyncpg.Connection) -> bool:
    await SQL.limit_waiting.on(connection)
    return bool((await SQL.lock.on(connection))[0]["is_locked"])


def months(first: datetime) -> Iterator[datetime]:
    month = month_of(first)
    while True:
        yield month
        month = next_month(month)


def name_of(month: datetime) -> str:
    return f"messages_{month:%Y_%m}"


def make_month(month: datetime) -> str:
    return (
        f"CREATE TABLE {name_of(month)} PARTITION OF messages"
        f" FOR VALUES FROM ('{first_id(month)}') TO ('{first_id(next_month(month))}')"
    )


def attach_later(begins: datetime) -> str:
    return f"ALTER TABLE messages ATTACH PARTITION {LATER} FOR VALUES FROM ('{first_id(begins)}') TO (MAXVALUE)"


def attach_beyond(ends: datetime) -> str:
    """A new place for ids after the last month."""
    return f"""
        CREATE TABLE {BEYOND} (LIKE messages INCLUDING DEFAULTS);
        ALTER TABLE messages ATTACH PARTITION {BEYOND} FOR VALUES FROM ('{first_id(ends)}') TO (MAXVALUE)"""


def attach_as_months(begins: datetime, ends: datetime) -> str:
    return f"""
        ALTER TABLE {LATER} RENAME TO {name_of(begins)};
        ALTER TABLE {BEYOND} RENAME TO {LATER};
        ALTER TABLE messages ATTACH PARTITION {name_of(begins)}
            FOR VALUES FROM ('{first_id(begins)}') TO ('{first_id(ends)}')"""
