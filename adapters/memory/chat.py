"""Chatrooms, messages and their queue in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from adapters.memory.accounts import MemoryUsers
from adapters.memory.store import Table
from application.ports.chat import ChatroomLists, Chatrooms, JobQueue, Messages
from application.ports.runtime import Clock
from domain.billing import Allowance
from domain.chat import Chatroom, Message, MessageStatus, Outcome
from domain.errors import ChatroomNotFound, MessageNotFound, QuotaExceeded
from domain.ids import ChatroomId, MessageId, UserId


class MemoryChatrooms(Chatrooms):
    def __init__(self, users: MemoryUsers, messages: MemoryMessages) -> None:
        self._users = users
        self._messages = messages
        self.table = messages.rooms

    async def add(self, chatroom: Chatroom) -> None:
        if owner := self._users.table.get(chatroom.user_id):
            self._users.table.put(owner.id, replace(owner, chatrooms_version=owner.chatrooms_version + 1))
        self.table.put(chatroom.id, chatroom)

    async def list_of(self, user_id: UserId, *, limit: int, before: ChatroomId | None = None) -> list[Chatroom]:
        rooms = [r for r in self.table.all() if r.user_id == user_id and (before is None or r.id < before)]
        return sorted(rooms, key=lambda room: room.id, reverse=True)[:limit]

    async def open(
        self, chatroom_id: ChatroomId, user_id: UserId, *, limit: int, before: MessageId | None = None
    ) -> tuple[Chatroom, list[Message]]:
        room = self.table.get(chatroom_id)
        if room is None or room.user_id != user_id:
            raise ChatroomNotFound
        return room, self._messages.newest(chatroom_id, limit=limit, before=before)


@dataclass(frozen=True, slots=True)
class _Queued:
    message: Message
    due_at: datetime
    lease_until: datetime | None
    rung_at: datetime

    def claimable_since(self, now: datetime) -> datetime | None:
        since = {MessageStatus.QUEUED: self.due_at, MessageStatus.GENERATING: self.lease_until}.get(self.message.status)
        return since if since is not None and since <= now else None


class MemoryMessages(Messages):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.rooms: Table[ChatroomId, Chatroom] = Table()
        self.table: Table[MessageId, _Queued] = Table()
        self.usage: Table[tuple[UserId, date], int] = Table()

    def newest(self, chatroom_id: ChatroomId, *, limit: int, before: MessageId | None) -> list[Message]:
        found = [
            row.message
            for row in self.table.all()
            if row.message.chatroom_id == chatroom_id and (before is None or row.message.id < before)
        ]
        return sorted(found, key=lambda message: message.id, reverse=True)[:limit]

    async def accept(self, message: Message, *, total: int | None) -> Allowance:
        room = self.rooms.get(message.chatroom_id)
        if room is None or room.user_id != message.user_id:
            raise ChatroomNotFound
        key = (message.user_id, message.allowance_day)
        used = self.usage.get(key) or 0
        if total is not None and used >= total:
            raise QuotaExceeded(total=total, resets_at=Allowance(message.allowance_day, used, total).resets_at)
        now = self._clock.now()
        self.usage.put(key, used + 1)
        self.table.put(message.id, _Queued(message, due_at=now, lease_until=None, rung_at=now))
        return Allowance(message.allowance_day, used + 1, total)

    async def allowance(self, user_id: UserId, *, day: date, total: int | None) -> Allowance:
        return Allowance(day, self.usage.get((user_id, day)) or 0, total)

    async def get(self, message_id: MessageId, chatroom_id: ChatroomId, user_id: UserId) -> Message:
        row = self.table.get(message_id)
        if row is None or row.message.chatroom_id != chatroom_id or row.message.user_id != user_id:
            raise MessageNotFound
        return row.message

    async def before(self, message: Message, *, limit: int) -> list[Message]:
        found = self.newest(message.chatroom_id, limit=len(self.table.all()), before=message.id)
        return [past for past in found if past.status is MessageStatus.COMPLETED][:limit]

    async def claim(self, message_id: MessageId, *, lease: timedelta) -> Message | None:
        now = self._clock.now()
        row = self.table.get(message_id)
        if row is None or row.claimable_since(now) is None:
            return None
        claimed = replace(
            row.message,
            status=MessageStatus.GENERATING,
            attempt=row.message.attempt + 1,
            deaths=row.message.deaths + (row.message.status is MessageStatus.GENERATING),
        )
        self.table.put(message_id, replace(row, message=claimed, lease_until=now + lease))
        return claimed

    async def extend(self, held: Sequence[tuple[MessageId, int]], *, lease: timedelta) -> set[MessageId]:
        kept = set()
        for message_id, attempt in held:
            if row := self._held(message_id, attempt):
                self.table.put(message_id, replace(row, lease_until=self._clock.now() + lease))
                kept.add(message_id)
        return kept

    async def finish(self, message_id: MessageId, attempt: int, outcome: Outcome) -> bool:
        row = self._held(message_id, attempt)
        if row is None:
            return False
        ended = replace(
            row.message,
            status=outcome.status,
            response=outcome.response,
            finish_reason=outcome.finish_reason,
            input_tokens=outcome.input_tokens,
            output_tokens=outcome.output_tokens,
            error_code=outcome.error_code,
            error_detail=outcome.error_detail,
            completed_at=self._clock.now(),
        )
        self.table.put(message_id, replace(row, message=ended, lease_until=None))
        if outcome.status is MessageStatus.FAILED:
            key = (ended.user_id, ended.allowance_day)
            self.usage.put(key, (self.usage.get(key) or 0) - 1)
        return True

    async def retry(self, message_id: MessageId, attempt: int, *, delay: timedelta) -> bool:
        return self._requeue(message_id, attempt, delay, failures=1)

    async def release(self, message_id: MessageId, attempt: int) -> bool:
        return self._requeue(message_id, attempt, timedelta(), failures=0)

    async def take_unrung(self, *, limit: int, quiet: timedelta) -> list[MessageId]:
        now = self._clock.now()
        taken: list[tuple[datetime, MessageId]] = []
        for row in self.table.all():
            since = row.claimable_since(now)
            waited = min((now - row.message.created_at) / 2, 3 * quiet)
            patience = max(quiet, waited) if row.message.status is MessageStatus.QUEUED else quiet
            if since is not None and (row.rung_at < since or row.rung_at <= now - patience):
                taken.append((row.due_at, row.message.id))
        ids = [message_id for _, message_id in sorted(taken)[:limit]]
        for message_id in ids:
            if found := self.table.get(message_id):
                self.table.put(message_id, replace(found, rung_at=now))
        return ids

    def _held(self, message_id: MessageId, attempt: int) -> _Queued | None:
        row = self.table.get(message_id)
        held = row and row.message.attempt == attempt and row.message.status is MessageStatus.GENERATING
        return row if held else None

    def _requeue(self, message_id: MessageId, attempt: int, delay: timedelta, *, failures: int) -> bool:
        row = self._held(message_id, attempt)
        if row is None:
            return False
        queued = replace(row.message, status=MessageStatus.QUEUED, failures=row.message.failures + failures)
        self.table.put(message_id, replace(row, message=queued, lease_until=None, due_at=self._clock.now() + delay))
        return True


class MemoryChatroomLists(ChatroomLists):
    def __init__(self) -> None:
        self.pages: dict[tuple[UserId, int, int, ChatroomId | None], list[Chatroom]] = {}

    async def get(
        self, user_id: UserId, version: int, *, limit: int, before: ChatroomId | None
    ) -> list[Chatroom] | None:
        return self.pages.get((user_id, version, limit, before))

    async def put(
        self, user_id: UserId, version: int, rooms: list[Chatroom], *, limit: int, before: ChatroomId | None
    ) -> None:
        self.pages[user_id, version, limit, before] = rooms


class MemoryJobQueue(JobQueue):
    """Rings into a list; `broken` makes it a bell that cannot be rung."""

    def __init__(self) -> None:
        self.rung: list[MessageId] = []
        self.broken = False

    async def ring(self, message_ids: Sequence[MessageId]) -> bool:
        if not self.broken:
            self.rung += message_ids
        return not self.broken
