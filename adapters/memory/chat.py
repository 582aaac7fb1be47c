"""Chatrooms, messages and their queue in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, timedelta

from adapters.memory.accounts import Belongings, MemoryUsers
from adapters.memory.store import Table
from application.ports.chat import ChatroomLists, Chatrooms, Messages, ModelBudget, ModelSetup
from application.ports.runtime import Clock
from domain.accounts import MobileNumber, User
from domain.billing import Allowance, SendingLimits
from domain.chat.calls import LOST, CallPurpose, ModelCall
from domain.chat.chatrooms import Chatroom
from domain.chat.conversation import Context, Exchange
from domain.chat.messages import MAX_DEATHS, Message, MessageStatus, Outcome
from domain.errors import (
    ChatroomNotFound,
    MessageEnded,
    MessageNotEnded,
    MessageNotFound,
    QuotaExceeded,
    SendingTooFast,
    TooManyInFlight,
    UserNotFound,
)
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

    async def add(self, chatroom: Chatroom) -> Chatroom:
        if self._users.table.get(chatroom.user_id) is None:
            raise UserNotFound
        stored = self.table.get(chatroom.id) or chatroom
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
    ) -> tuple[Chatroom, list[Message]]:
        room = self._own(chatroom_id, user_id)
        return room, self._messages.newest(chatroom_id, limit=limit, before=before)


@dataclass(frozen=True, slots=True)
class _Queued:
    message: Message
    due_at: datetime
    lease_until: datetime | None
    notified_at: datetime
    #: The model was asked since it was queued.
    called: bool = False

    def claimable_since(self, now: datetime) -> datetime | None:
        since = {MessageStatus.QUEUED: self.due_at, MessageStatus.GENERATING: self.lease_until}.get(self.message.status)
        return since if since is not None and since <= now else None


_MINUTE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class _Counted:
    day: date
    used: int
    in_flight: int
    minute_from: datetime
    minute_used: int
    input_tokens: int = 0
    output_tokens: int = 0
    empty_cuts: int = 0

    def at(self, day: date, now: datetime) -> _Counted:
        """With the day and the minute turned, if they have; a day never goes back."""
        counted = self if self.day >= day else _Counted(day, 0, self.in_flight, self.minute_from, self.minute_used)
        return counted if now < self.minute_from + _MINUTE else replace(counted, minute_from=now, minute_used=0)


class MemoryMessages(Messages):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.rooms: Table[ChatroomId, Chatroom] = Table()
        self.table: Table[MessageId, _Queued] = Table()
        self.allowances: Table[UserId, _Counted] = Table()
        self.kept_allowances: Table[MobileNumber, _Counted] = Table()
        self.calls: Table[tuple[MessageId, int, CallPurpose], ModelCall] = Table()

    def keep_days_use(self, user: User) -> None:
        """For the number's next account, of the day that is not over."""
        counted = self.allowances.get(user.id)
        if counted and counted.day >= self._clock.now().date():
            self.kept_allowances.put(user.mobile, replace(counted, in_flight=0))
        self.allowances.put(user.id, None)

    def restore_days_use(self, user: User) -> None:
        if kept := self.kept_allowances.get(user.mobile):
            self.kept_allowances.put(user.mobile, None)
            self.allowances.put(user.id, kept)

    def purge_days_use(self, today: date) -> None:
        for mobile, kept in self.kept_allowances.items():
            if kept.day < today:
                self.kept_allowances.put(mobile, None)

    def newest(self, chatroom_id: ChatroomId, *, limit: int, before: MessageId | None) -> list[Message]:
        found = [
            row.message
            for row in self.table.all()
            if row.message.chatroom_id == chatroom_id and (before is None or row.message.id < before)
        ]
        return sorted(found, key=lambda message: message.id, reverse=True)[:limit]

    def remove_all(self, chatroom_id: ChatroomId) -> list[MessageId]:
        """Those of a room; returns the unanswered ones."""
        unanswered = []
        for message in sorted((row.message for row in self.table.all()), key=lambda message: message.id):
            if message.chatroom_id == chatroom_id:
                self.table.put(message.id, None)
                if not message.status.is_final:
                    self._end(message, gives_back=False)
                    unanswered.append(message.id)
        return unanswered

    async def accept(self, message: Message, *, limits: SendingLimits) -> Allowance:
        room = self.rooms.get(message.chatroom_id)
        if room is None or room.user_id != message.user_id:
            raise ChatroomNotFound
        if self.table.get(message.id):
            return await self.allowance(message.user_id, day=message.allowance_day, total=limits.daily)
        return self._queue(message, message.created_at, limits)

    async def regenerate(self, message: Message, *, limits: SendingLimits) -> Allowance:
        stored = await self.get(message.id, message.chatroom_id, message.user_id)
        if message.request_id is not None and stored.request_id == message.request_id:
            return await self.allowance(message.user_id, day=message.allowance_day, total=limits.daily)
        if not stored.status.is_final:
            raise MessageNotEnded
        return self._queue(replace(message, attempt=stored.attempt), message.queued_at, limits)

    async def continue_reply(self, message: Message, *, limits: SendingLimits) -> Allowance:
        stored = await self.get(message.id, message.chatroom_id, message.user_id)
        if message.request_id is not None and stored.request_id == message.request_id:
            return await self.allowance(message.user_id, day=message.allowance_day, total=limits.daily)
        continued = stored.continued(
            at=message.queued_at,
            max_output_tokens=message.max_output_tokens,
            thinking=message.thinking,
            request_id=message.request_id,
        )
        return self._queue(replace(continued, allowance_day=message.allowance_day), message.queued_at, limits)

    def _queue(self, message: Message, at: datetime, limits: SendingLimits) -> Allowance:
        before = self.allowances.get(message.user_id) or _Counted(message.allowance_day, 0, 0, at, 0)
        now = before.at(message.allowance_day, at)
        if limits.daily is not None and now.used >= limits.daily:
            raise QuotaExceeded(total=limits.daily, resets_at=Allowance(now.day, 0, None).resets_at)
        if limits.in_flight is not None and now.in_flight >= limits.in_flight:
            raise TooManyInFlight(limits.in_flight)
        if limits.per_minute is not None and now.minute_used >= limits.per_minute:
            left = now.minute_from + _MINUTE - at
            raise SendingTooFast(limits.per_minute, retry_after=left.total_seconds())
        counted = replace(now, used=now.used + 1, in_flight=now.in_flight + 1, minute_used=now.minute_used + 1)
        self.allowances.put(message.user_id, counted)
        due = self._clock.now()
        stored = replace(message, allowance_day=counted.day)
        self.table.put(message.id, _Queued(stored, due_at=due, lease_until=None, notified_at=due))
        return Allowance(counted.day, counted.used, limits.daily, counted.input_tokens, counted.output_tokens)

    async def allowance(self, user_id: UserId, *, day: date, total: int | None) -> Allowance:
        counted = self.allowances.get(user_id)
        if counted is None or counted.day < day:
            return Allowance(day, 0, total)
        return Allowance(counted.day, counted.used, total, counted.input_tokens, counted.output_tokens)

    async def get(self, message_id: MessageId, chatroom_id: ChatroomId, user_id: UserId) -> Message:
        row = self.table.get(message_id)
        if row is None or row.message.chatroom_id != chatroom_id or row.message.user_id != user_id:
            raise MessageNotFound
        return row.message

    async def cancel(self, message_id: MessageId, chatroom_id: ChatroomId, user_id: UserId) -> Message:
        message = await self.get(message_id, chatroom_id, user_id)
        if message.status.is_final:
            raise MessageEnded
        row, now = self.table.get(message_id), self._clock.now()
        assert row is not None
        cancelled = replace(message, cancel_requested=True)
        if message.status is MessageStatus.QUEUED or row.claimable_since(now):
            cancelled = _with(cancelled, cancelled.in_all(Outcome(status=MessageStatus.CANCELLED)), now)
            gives_back = self._is_unasked(message_id)
            self._lose(message)
            row, cancelled = (
                replace(row, lease_until=None),
                replace(cancelled, charged=message.charged and not gives_back),
            )
            self._end(message, gives_back=gives_back)
        self.table.put(message_id, replace(row, message=cancelled))
        return cancelled

    async def cancel_requested(self) -> set[MessageId]:
        messages = [row.message for row in self.table.all()]
        return {m.id for m in messages if m.cancel_requested and m.status is MessageStatus.GENERATING}

    async def ended(self, message_ids: Sequence[MessageId]) -> set[MessageId]:
        rows = {message_id: self.table.get(message_id) for message_id in message_ids}
        return {message_id for message_id, row in rows.items() if row is None or row.message.status.is_final}

    async def context(self, message: Message, *, limit: int) -> Context:
        room = self.rooms.get(message.chatroom_id)
        if room is None:
            return Context()
        found = self.newest(room.id, limit=len(self.table.all()), before=message.id)
        earlier = [
            Exchange(past.id, past.input, past.response, past.window_from)
            for past in found
            if past.has_reply and past.response is not None
        ]
        return Context(earlier[:limit], room.instructions, room.auto_title)

    async def claim(self, message_id: MessageId, *, lease: timedelta, alone: bool = False) -> Message | None:
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
        if claimed.deaths >= MAX_DEATHS - 1 and not alone:
            return None
        self._lose(row.message)
        called = row.called or row.message.status is MessageStatus.GENERATING
        self.table.put(message_id, replace(row, message=claimed, lease_until=now + lease, called=called))
        return claimed

    async def is_suspect(self, message_id: MessageId) -> bool:
        row = self.table.get(message_id)
        if row is None or row.claimable_since(self._clock.now()) is None:
            return False
        return row.message.deaths + (row.message.status is MessageStatus.GENERATING) >= MAX_DEATHS - 1

    async def extend(self, held: Sequence[tuple[MessageId, int]], *, lease: timedelta) -> set[MessageId]:
        kept = set()
        for message_id, attempt in held:
            if row := self._held(message_id, attempt):
                self.table.put(message_id, replace(row, lease_until=self._clock.now() + lease))
                kept.add(message_id)
        return kept

    async def finish(
        self, message_id: MessageId, attempt: int, outcome: Outcome, *, call: ModelCall | None = None
    ) -> bool:
        row = self._held(message_id, attempt)
        if call:
            await self.book(call)
        if row is None:
            return False
        message = row.message
        is_unasked = not row.called and call is None
        gives_back = message.charged and (
            outcome.status is MessageStatus.FAILED or (outcome.status is MessageStatus.CANCELLED and is_unasked)
        )
        if gives_back and outcome.is_empty_cut:
            gives_back = self._count_empty_cut(message)
        ended = replace(
            _with(message, message.in_all(outcome), self._clock.now()), charged=message.charged and not gives_back
        )
        self.table.put(message_id, replace(row, message=ended, lease_until=None))
        self._end(message, gives_back=gives_back)
        return True

    def _is_unasked(self, message_id: MessageId) -> bool:
        """Whether a message that nobody answers is charged though the model was never asked."""
        row = self.table.get(message_id)
        return row is not None and row.message.charged and row.message.status is MessageStatus.QUEUED and not row.called

    def _count_empty_cut(self, message: Message) -> bool:
        """Whether it was the day's first, which is given back."""
        counted = self.allowances.get(message.user_id)
        if counted is None or counted.day != message.allowance_day:
            return True
        self.allowances.put(message.user_id, replace(counted, empty_cuts=counted.empty_cuts + 1))
        return counted.empty_cuts == 0

    def _end(self, message: Message, *, gives_back: bool) -> None:
        """Count it as in flight no more."""
        counted = self.allowances.get(message.user_id)
        assert counted is not None
        used = counted.used - (gives_back and counted.day == message.allowance_day)
        self.allowances.put(message.user_id, replace(counted, in_flight=counted.in_flight - 1, used=used))

    def _lose(self, message: Message) -> None:
        """Book the call of an attempt whose worker died."""
        key = (message.id, message.attempt, CallPurpose.REPLY)
        if message.status is MessageStatus.GENERATING and self.calls.get(key) is None:
            lost = ModelCall(
                user_id=message.user_id,
                message_id=message.id,
                attempt=message.attempt,
                purpose=CallPurpose.REPLY,
                model="",
                outcome=LOST,
                day=message.allowance_day,
            )
            self.calls.put(key, lost)

    async def book(self, call: ModelCall) -> None:
        key = (call.message_id, call.attempt, call.purpose)
        known = self.calls.get(key)
        if known is not None and known.outcome != LOST:
            return
        self.calls.put(key, call)
        counted = self.allowances.get(call.user_id)
        if call.usage and call.purpose is CallPurpose.REPLY and counted and counted.day == call.day:
            input_tokens = counted.input_tokens + call.usage.input
            output_tokens = counted.output_tokens + call.usage.output
            counted = replace(counted, input_tokens=input_tokens, output_tokens=output_tokens)
            self.allowances.put(call.user_id, counted)

    async def retry(
        self, message_id: MessageId, attempt: int, *, delay: timedelta, call: ModelCall | None = None
    ) -> bool:
        return await self._put_back(message_id, attempt, delay, call, failures=1)

    async def release(
        self, message_id: MessageId, attempt: int, *, delay: timedelta = timedelta(), call: ModelCall | None = None
    ) -> bool:
        return await self._put_back(message_id, attempt, delay, call, failures=0)

    async def requeue(self, message_id: MessageId) -> bool:
        row = self.table.get(message_id)
        if row is None or row.message.status is not MessageStatus.FAILED:
            return False
        now = self._clock.now()
        queued = replace(
            row.message,
            status=MessageStatus.QUEUED,
            failures=0,
            deaths=0,
            error_code=None,
            error_detail=None,
            finish_reason=None,
            completed_at=None,
            cancel_requested=False,
            queued_at=now,
        )
        self.table.put(message_id, _Queued(queued, due_at=now, lease_until=None, notified_at=now - timedelta(days=1)))
        if counted := self.allowances.get(queued.user_id):
            self.allowances.put(queued.user_id, replace(counted, in_flight=counted.in_flight + 1))
        return True

    async def list_by_status(self, status: MessageStatus, *, limit: int) -> list[Message]:
        found = [row.message for row in self.table.all() if row.message.status is status]
        return sorted(found, key=lambda message: message.id, reverse=True)[:limit]

    async def take_expired(self, *, limit: int, notified_before: timedelta) -> list[MessageId]:
        return self._take(MessageStatus.GENERATING, limit, lambda _: notified_before)

    async def take_unnotified(self, *, limit: int, notified_before: timedelta) -> list[MessageId]:
        def patience(message: Message) -> timedelta:
            return max(notified_before, min((self._clock.now() - message.queued_at) / 2, 3 * notified_before))

        return self._take(MessageStatus.QUEUED, limit, patience)

    def _take(self, status: MessageStatus, limit: int, patience: Callable[[Message], timedelta]) -> list[MessageId]:
        now = self._clock.now()
        found = [
            (since, row.message.id)
            for row in self.table.all()
            if row.message.status is status
            and (since := row.claimable_since(now)) is not None
            and (row.notified_at < since or row.notified_at <= now - patience(row.message))
        ]
        ids = [message_id for _, message_id in sorted(found)[:limit]]
        for message_id in ids:
            if row := self.table.get(message_id):
                self.table.put(message_id, replace(row, notified_at=now))
        return ids

    def _held(self, message_id: MessageId, attempt: int) -> _Queued | None:
        row = self.table.get(message_id)
        held = row and row.message.attempt == attempt and row.message.status is MessageStatus.GENERATING
        return row if held else None

    async def _put_back(
        self, message_id: MessageId, attempt: int, delay: timedelta, call: ModelCall | None, *, failures: int
    ) -> bool:
        if call:
            await self.book(call)
        row = self._held(message_id, attempt)
        if row is None:
            return False
        queued = replace(row.message, status=MessageStatus.QUEUED, failures=row.message.failures + failures)
        due = self._clock.now() + (timedelta() if queued.cancel_requested else delay)
        called = row.called or call is not None
        self.table.put(message_id, replace(row, message=queued, lease_until=None, due_at=due, called=called))
        return True


def _with(message: Message, outcome: Outcome, at: datetime) -> Message:
    return replace(message, completed_at=at, **{field.name: getattr(outcome, field.name) for field in fields(outcome)})


class MemoryChatroomLists(ChatroomLists):
    def __init__(self) -> None:
        self.pages: dict[UserId, tuple[int, list[Chatroom]]] = {}

    async def get(self, user_id: UserId, version: int) -> list[Chatroom] | None:
        cached_version, rooms = self.pages.get(user_id, (None, None))
        return rooms if cached_version == version else None

    async def put(self, user_id: UserId, version: int, rooms: list[Chatroom]) -> None:
        self.pages[user_id] = (version, rooms)


class MemoryModelBudget(ModelBudget):
    """As many calls at once as a minute has, then none until the next."""

    def __init__(self, clock: Clock, per_minute: int) -> None:
        self._clock = clock
        self._per_minute = per_minute
        self._made: list[datetime] = []

    async def reserve(self, *, within: float) -> float | None:
        now = self._clock.now()
        self._made = [made for made in self._made if made > now - _MINUTE]
        if not self._per_minute or len(self._made) < self._per_minute:
            self._made.append(now)
            return 0.0
        wait = (self._made[-self._per_minute] + _MINUTE - now).total_seconds()
        if wait > within:
            return None
        self._made.append(now + timedelta(seconds=wait))
        return wait


class MemoryModelSetup(ModelSetup):
    def __init__(self) -> None:
        self._reasons: Table[str, str] = Table()

    async def report(self, refused_for: str | None) -> None:
        self._reasons.put("refused_for", refused_for)

    async def refused_for(self) -> str | None:
        return self._reasons.get("refused_for")
