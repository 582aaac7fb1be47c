"""Messages and their queue in memory: the verbs of the domain over dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta

from adapters.memory.store import Table
from application.ports.chat import (
    MessageDesk,
    MessageHistory,
    MessageQueue,
    Messages,
)
from application.ports.runtime import Clock
from domain.accounts import MobileNumber, User
from domain.billing import Allowance, SendingLimits
from domain.chat.calls import LOST, CallPurpose, ModelCall
from domain.chat.chatrooms import Chatroom
from domain.chat.conversation import Context, Exchange
from domain.chat.history import first_id, month_of
from domain.chat.messages import Message, MessageStatus, Outcome
from domain.chat.queue import GONE, QueueEntry, Worker
from domain.chat.usage import Usage
from domain.errors import ChatroomNotFound, MessageNotFound
from domain.ids import ChatroomId, MessageId, UserId, WorkerId


class MemoryMessages(Messages, MessageQueue, MessageDesk, MessageHistory):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.rooms: Table[ChatroomId, Chatroom] = Table()
        self.entries: Table[MessageId, QueueEntry] = Table()
        #: The leases.
        self.workers: Table[WorkerId, datetime] = Table()
        self.usage: Table[UserId, Usage] = Table()
        self.kept_usage: Table[MobileNumber, Usage] = Table()
        self.calls: Table[tuple[MessageId, int, CallPurpose], ModelCall] = Table()

    def keep_days_use(self, user: User) -> None:
        """For the number's next account, until the day is over."""
        usage = self.usage.get(user.id)
        if usage and usage.day >= self._clock.now().date():
            self.kept_usage.put(user.mobile, replace(usage, in_flight=0))
        self.usage.put(user.id, None)

    def restore_days_use(self, user: User) -> None:
        if kept := self.kept_usage.get(user.mobile):
            self.kept_usage.put(user.mobile, None)
            self.usage.put(user.id, kept)

    def purge_days_use(self, today: date) -> None:
        for mobile, kept in self.kept_usage.items():
            if kept.day < today:
                self.kept_usage.put(mobile, None)

    def newest(self, chatroom_id: ChatroomId, *, limit: int, before: MessageId | None) -> list[Message]:
        found = [
            entry.message
            for entry in self.entries.all()
            if entry.message.chatroom_id == chatroom_id and (before is None or entry.message.id < before)
        ]
        return sorted(found, key=lambda message: message.id, reverse=True)[:limit]

    def remove_all(self, chatroom_id: ChatroomId) -> list[MessageId]:
        """The messages of a room; returns the unanswered ones."""
        unanswered = []
        for message in sorted((entry.message for entry in self.entries.all()), key=lambda message: message.id):
            if message.chatroom_id == chatroom_id:
                self.entries.put(message.id, None)
                if not message.status.is_final:
                    self._free(message, _CANCELLED, refundable=False)
                    unanswered.append(message.id)
        return unanswered

    async def accept(self, message: Message, *, limits: SendingLimits) -> Allowance:
        room = self.rooms.get(message.chatroom_id)
        if room is None or room.user_id != message.user_id:
            raise ChatroomNotFound
        if self.entries.get(message.id):
            return await self.allowance(message.user_id, day=message.allowance_day, total=limits.daily)
        return self._queue(replace(message, queued_at=message.created_at), message.allowance_day, limits)

    async def regenerate(self, message: Message, *, limits: SendingLimits) -> Allowance:
        stored = await self.get(message.id, message.chatroom_id, message.user_id)
        return await self._queue_again(stored, stored.regenerated, message, limits)

    async def continue_reply(self, message: Message, *, limits: SendingLimits) -> Allowance:
        stored = await self.get(message.id, message.chatroom_id, message.user_id)
        return await self._queue_again(stored, stored.continued, message, limits)

    async def _queue_again(
        self, stored: Message, again: Callable[..., Message], message: Message, limits: SendingLimits
    ) -> Allowance:
        if stored.was_queued_by(message.request_id):
            return await self.allowance(message.user_id, day=message.allowance_day, total=limits.daily)
        queued = again(
            at=message.queued_at,
            max_output_tokens=message.max_output_tokens,
            thinking=message.thinking,
            request_id=message.request_id,
        )
        return self._queue(queued, message.allowance_day, limits)

    def _queue(self, message: Message, day: date, limits: SendingLimits) -> Allowance:
        usage = self.usage.get(message.user_id) or Usage(day=day, minute_from=message.queued_at)
        usage = usage.consumed(limits, day=day, at=message.queued_at)
        self.usage.put(message.user_id, usage)
        self.entries.put(message.id, QueueEntry.of(replace(message, allowance_day=usage.day), self._clock.now()))
        return usage.allowance(limits.daily, day=day)

    async def allowance(self, user_id: UserId, *, day: date, total: int | None) -> Allowance:
        usage = self.usage.get(user_id)
        return usage.allowance(total, day=day) if usage else Allowance(day, 0, total)

    async def get(self, message_id: MessageId, chatroom_id: ChatroomId, user_id: UserId) -> Message:
        entry = self.entries.get(message_id)
        if entry is None or entry.message.chatroom_id != chatroom_id or entry.message.user_id != user_id:
            raise MessageNotFound
        return entry.message

    async def cancel(self, message_id: MessageId, chatroom_id: ChatroomId, user_id: UserId) -> Message:
        message = await self.get(message_id, chatroom_id, user_id)
        entry = self._entry(message_id)
        assert entry is not None
        cancelled = entry.cancelled(self._clock.now())
        if cancelled.message.status.is_final:
            self._lose(message)
            self._free(message, _CANCELLED, refundable=message.charged and not cancelled.message.charged)
        self.entries.put(message_id, cancelled)
        return cancelled.message

    async def cancel_requested(self) -> set[MessageId]:
        messages = [entry.message for entry in self.entries.all()]
        return {m.id for m in messages if m.cancel_requested and m.status is MessageStatus.GENERATING}

    async def ended(self, message_ids: Sequence[MessageId]) -> set[MessageId]:
        entries = {message_id: self.entries.get(message_id) for message_id in message_ids}
        return {message_id for message_id, entry in entries.items() if entry is None or entry.message.status.is_final}

    async def context(self, message: Message, *, limit: int) -> Context:
        room = self.rooms.get(message.chatroom_id)
        if room is None:
            return Context()
        found = self.newest(room.id, limit=len(self.entries.all()), before=message.id)
        earlier = [
            Exchange(past.id, past.input, past.response, past.window_from)
            for past in found
            if past.has_reply and past.response is not None
        ]
        return Context(earlier[:limit], room.instructions, room.auto_title)

    async def claim(self, message_id: MessageId, *, worker: Worker, alone: bool = False) -> Message | None:
        now = self._clock.now()
        if (self.workers.get(worker.id) or GONE) <= now:
            await self.renew(worker)
        entry = self._entry(message_id)
        claimed = entry and entry.claimed(now, worker=worker.id, alone=alone)
        if entry is None or claimed is None:
            return None
        self._lose(entry.message)
        self.entries.put(message_id, claimed)
        return claimed.message

    async def is_suspect(self, message_id: MessageId) -> bool:
        entry = self._entry(message_id)
        return entry is not None and entry.is_suspect(self._clock.now())

    async def renew(self, worker: Worker, held: Sequence[tuple[MessageId, int]] = ()) -> set[MessageId]:
        self.workers.put(worker.id, self._clock.now() + worker.lease)
        entries = [self._held(message_id, attempt) for message_id, attempt in held]
        return {entry.message.id for entry in entries if entry and entry.worker == worker.id}

    async def forget_workers(self, *, expired_for: timedelta) -> None:
        for worker, lease_until in self.workers.items():
            if lease_until <= self._clock.now() - expired_for:
                self.workers.put(worker, None)

    async def finish(
        self, message_id: MessageId, attempt: int, outcome: Outcome, *, call: ModelCall | None = None
    ) -> bool:
        entry = self._held(message_id, attempt)
        if call:
            await self.book(call)
        if entry is None:
            return False
        message, usage = entry.message, self.usage.get(entry.message.user_id)
        assert usage is not None
        refundable = entry.is_refundable(outcome, called=call is not None)
        refunded = refundable and usage.gives_back(message, outcome)
        self.entries.put(message_id, entry.ended(outcome, self._clock.now(), refunded=refunded))
        self._free(message, outcome, refundable=refundable)
        return True

    def _free(self, message: Message, outcome: Outcome, *, refundable: bool) -> None:
        if usage := self.usage.get(message.user_id):
            self.usage.put(message.user_id, usage.freed(message, outcome, refundable=refundable))

    def _lose(self, message: Message) -> None:
        """Book the call of an attempt whose worker died."""
        lost = message.call(model="", outcome=LOST)
        if message.status is MessageStatus.GENERATING and self.calls.get(_key(lost)) is None:
            self.calls.put(_key(lost), lost)

    async def book(self, call: ModelCall) -> None:
        known = self.calls.get(_key(call))
        if known is not None and known.outcome != LOST:
            return
        self.calls.put(_key(call), call)
        if usage := self.usage.get(call.user_id):
            self.usage.put(call.user_id, usage.booked(call))

    async def retry(
        self, message_id: MessageId, attempt: int, *, delay: timedelta, call: ModelCall | None = None
    ) -> bool:
        return await self._return(message_id, attempt, delay, call, failed=True)

    async def release(
        self, message_id: MessageId, attempt: int, *, delay: timedelta = timedelta(), call: ModelCall | None = None
    ) -> bool:
        return await self._return(message_id, attempt, delay, call, failed=False)

    async def _return(
        self, message_id: MessageId, attempt: int, delay: timedelta, call: ModelCall | None, *, failed: bool
    ) -> bool:
        if call:
            await self.book(call)
        entry = self._held(message_id, attempt)
        if entry is None:
            return False
        returned = entry.returned(self._clock.now(), delay=delay, failed=failed, called=call is not None)
        self.entries.put(message_id, returned)
        return True

    async def requeue(self, message_id: MessageId) -> bool:
        entry = self.entries.get(message_id)
        requeued = entry and entry.requeued(self._clock.now())
        if requeued is None:
            return False
        self.entries.put(message_id, requeued)
        if usage := self.usage.get(requeued.message.user_id):
            self.usage.put(requeued.message.user_id, replace(usage, in_flight=usage.in_flight + 1))
        return True

    async def prepare(self) -> None:
        """A dictionary has a place for every id."""

    async def remove_before(self, time: datetime) -> None:
        first_kept = first_id(month_of(time))
        for message in [entry.message for entry in self.entries.all() if entry.message.id < first_kept]:
            self.entries.put(message.id, None)
            if not message.status.is_final:
                self._free(message, _CANCELLED, refundable=False)

    async def erase_deleted(self) -> bool:
        return False  # rooms are deleted with their messages

    async def list_by_status(self, status: MessageStatus, *, limit: int) -> list[Message]:
        found = [entry.message for entry in self.entries.all() if entry.message.status is status]
        return sorted(found, key=lambda message: message.id, reverse=True)[:limit]

    async def take_expired(self, *, limit: int, notified_before: timedelta) -> list[MessageId]:
        return self._take(MessageStatus.GENERATING, limit, notified_before)

    async def take_unnotified(self, *, limit: int, notified_before: timedelta) -> list[MessageId]:
        return self._take(MessageStatus.QUEUED, limit, notified_before)

    def _take(self, status: MessageStatus, limit: int, notified_before: timedelta) -> list[MessageId]:
        now = self._clock.now()
        found = [
            (since, entry.message.id, entry)
            for entry in self.queue_entries()
            if entry.message.status is status
            and (since := entry.claimable_since(now)) is not None
            and entry.lacks_notification(now, notified_before=notified_before)
        ]
        taken = sorted(found, key=lambda row: row[:2])[:limit]
        for _, message_id, entry in taken:
            self.entries.put(message_id, replace(entry, notified_at=now))
        return [message_id for _, message_id, _ in taken]

    def queue_entries(self) -> list[QueueEntry]:
        """All messages, with the present leases of the workers that have them."""
        return [self._leased(entry) for entry in self.entries.all()]

    def _entry(self, message_id: MessageId) -> QueueEntry | None:
        entry = self.entries.get(message_id)
        return entry and self._leased(entry)

    def _leased(self, entry: QueueEntry) -> QueueEntry:
        if entry.worker is None:
            return entry
        return replace(entry, lease_until=self.workers.get(entry.worker) or GONE)

    def _held(self, message_id: MessageId, attempt: int) -> QueueEntry | None:
        entry = self.entries.get(message_id)
        return entry if entry and entry.is_held(attempt) else None


_CANCELLED = Outcome(status=MessageStatus.CANCELLED)


def _key(call: ModelCall) -> tuple[MessageId, int, CallPurpose]:
    return call.message_id, call.attempt, call.purpose
