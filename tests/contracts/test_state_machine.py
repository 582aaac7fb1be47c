"""Random verbs, in random order: after each of them Postgres holds what the domain's verbs say.

The same verb is called on Postgres and on memory, whose adapter does nothing but call the verbs of Message, QueueEntry
and Usage. Results, messages, leases, counters and booked calls are compared after each step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import fields, is_dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from adapters.memory.runtime import MemoryClock
from adapters.postgres.connection import rows
from adapters.postgres.mapping import to_entity
from adapters.postgres.statements import Statements
from application.ports.runtime import Clock
from domain.billing import SendingLimits
from domain.chat.calls import CallPurpose, ModelCall, TokenUsage
from domain.chat.chatrooms import Chatroom
from domain.chat.messages import CUT_OFF, Message, MessageStatus, Outcome
from domain.chat.queue import GONE, QueueEntry, Worker
from domain.chat.usage import Usage
from domain.errors import DomainError, GenerationFailed, ReplyBlocked, ReplyEmpty
from domain.ids import MessageId, WorkerId
from tests.contracts.conftest import Adapters, InPostgresAndRedis, in_memory
from tests.support.state_machine import Game, play
from tests.support.workers import new_worker

#: Time moves in steps of 100 s, and nothing that is compared with now is due at a step.
UNIT = timedelta(seconds=100)
OUTCOMES = (
    Outcome(status=MessageStatus.COMPLETED, response="Hello.", finish_reason="STOP", output_tokens=3, input_tokens=2),
    Outcome(status=MessageStatus.COMPLETED, response="Hello.", thoughts="Well", thinking_seconds=1.5, thought_tokens=4),
    Outcome(status=MessageStatus.COMPLETED, response="Half a", finish_reason=CUT_OFF, output_tokens=2, cached_tokens=1),
    Outcome(status=MessageStatus.COMPLETED, response=" reply", finish_reason=CUT_OFF, thoughts="Hm"),
    Outcome(status=MessageStatus.CANCELLED, response="Half", output_tokens=1, thinking_seconds=0.5),
    Outcome(status=MessageStatus.CANCELLED),
    Outcome.of_error(GenerationFailed()),
    Outcome.of_error(ReplyBlocked("SAFETY")),
    *[Outcome.of_error(ReplyEmpty(CUT_OFF))] * 4,
)

messages = st.sampled_from([0, 0, 0, 0, 1, 2, 5])  # the last one most often, so that its story goes on
limits = st.builds(
    SendingLimits,
    daily=st.sampled_from([None] * 4 + [0, 2, 4]),
    in_flight=st.sampled_from([None] * 3 + [2]),
    per_minute=st.sampled_from([None] * 3 + [1, 3]),
)
leases = st.sampled_from([UNIT * 1.5, UNIT * 5.5])
workers = st.sampled_from([UUID(int=11), UUID(int=12)])  # each of which has several messages
delays = st.sampled_from([timedelta(), timedelta(), UNIT * 1.5])
usages = st.sampled_from([None, TokenUsage(5, 1, 7, 2), TokenUsage(input=3)])
request_ids = st.sampled_from([None, None, UUID(int=1), UUID(int=2)])


class Attempt(NamedTuple):
    """A claim, perhaps of long ago."""

    message: Message
    number: int


class AheadOf(MemoryClock):
    """Runs as the real clock does, so that both sides age alike however long a game takes."""

    def __init__(self, real: Clock) -> None:
        super().__init__()
        self._real = real
        self._ahead = timedelta()

    def now(self) -> datetime:
        return self._real.now() + self._ahead

    def move(self, by: timedelta) -> None:
        self._ahead += by


class ChatGame(Game):
    """Two users with a room each. What is drawn is an index into what there is."""

    def __init__(self, real: InPostgresAndRedis, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.real = real
        self.clock = AheadOf(real.clock)
        self.memory = in_memory(self.clock)
        self.rooms: list[Chatroom] = []
        self.sent: list[Message] = []
        self.attempts: list[Attempt] = []

    @initialize()
    def begin(self) -> None:
        self.run(empty())
        for _ in range(2):
            self.rooms.append(self.run(self.open_room()))

    @rule(room=st.integers(0, 1), limits=limits, yesterday=st.sampled_from([False, False, True]))
    def send(self, room: int, limits: SendingLimits, yesterday: bool) -> None:
        message = self.memory.new_message(self.rooms[room], max_output_tokens=64)
        message = replace(message, allowance_day=message.allowance_day - timedelta(days=yesterday))
        self.sent.append(message)
        self.queue("accept", message, limits)

    @precondition(lambda self: self.sent)
    @rule(
        n=messages,
        limits=limits,
        request_id=request_ids,
        verb=st.sampled_from(["accept", *["regenerate", "continue_reply"] * 2]),
    )
    def queue_again(self, n: int, limits: SendingLimits, request_id: UUID | None, verb: str) -> None:
        message = replace(self.chosen(n), allowance_day=self.clock.now().date(), max_output_tokens=32)
        if verb != "accept":  # which knows a message by its own id
            message = replace(message, request_id=request_id)
        self.queue(verb, message, limits)

    def queue(self, verb: str, message: Message, limits: SendingLimits) -> None:
        self.both(
            lambda adapters: getattr(adapters.messages, verb)(
                replace(message, created_at=adapters.clock.now(), queued_at=adapters.clock.now()), limits=limits
            )
        )

    @precondition(lambda self: self.sent)
    @rule(n=messages, worker=workers, lease=leases, alone=st.sampled_from([True, True, False]))
    def claim(self, n: int, worker: UUID, lease: timedelta, alone: bool) -> None:
        self.is_claimed(n, alone, Worker(WorkerId(worker), lease))

    def is_claimed(self, n: int, alone: bool, worker: Worker | None = None) -> bool:
        """By this worker, or by one that has nothing else."""
        chosen, worker = self.chosen(n), worker or new_worker(UNIT * 1.5)
        claimed = self.both(lambda adapters: adapters.messages.claim(chosen.id, worker=worker, alone=alone))
        if isinstance(claimed, Message):
            self.attempts.append(Attempt(claimed, claimed.attempt))
        return isinstance(claimed, Message)

    @rule(room=st.sampled_from([0, 0, 0, 1]), outcome=st.sampled_from(OUTCOMES), usage=usages)
    def send_and_answer(self, room: int, outcome: Outcome, usage: TokenUsage | None) -> None:
        self.send(room, SendingLimits(), False)
        if self.is_claimed(0, True):
            self.finish(0, outcome, True, usage, False)

    @precondition(lambda self: self.sent)
    @rule(n=messages, usage=usages, asked=st.booleans(), failed=st.booleans(), is_cancelled=st.booleans())
    def try_in_vain(self, n: int, usage: TokenUsage | None, asked: bool, failed: bool, is_cancelled: bool) -> None:
        if self.is_claimed(n, True):
            self.give_back(0, timedelta(), asked, usage, failed)
            if is_cancelled:
                self.cancel(n)

    @precondition(lambda self: self.sent)
    @rule(n=messages, times=st.integers(1, 3))
    def workers_die(self, n: int, times: int) -> None:
        for _ in range(times):
            if self.is_claimed(n, True):
                self.wait(3)

    @precondition(lambda self: self.attempts)
    @rule(chosen=st.lists(messages, max_size=4), worker=workers, lease=st.one_of(leases, st.just(-UNIT * 0.5)))
    def renew(self, chosen: list[int], worker: UUID, lease: timedelta) -> None:
        held = [(attempt.message.id, attempt.number) for attempt in map(self.attempt, chosen)]
        self.both(lambda adapters: adapters.messages.renew(Worker(WorkerId(worker), lease), held))

    @rule(worker=workers)
    def forget(self, worker: UUID) -> None:
        """As happens to a worker that died long ago."""
        self.memory.messages.workers.put(WorkerId(worker), None)
        self.run(rows("DELETE FROM workers WHERE id = $1", worker))
        self.run(self.compare())

    @precondition(lambda self: self.attempts)
    @rule(n=messages, outcome=st.sampled_from(OUTCOMES), asked=st.booleans(), usage=usages, window=st.booleans())
    def finish(self, n: int, outcome: Outcome, asked: bool, usage: TokenUsage | None, window: bool) -> None:
        message, number = self.attempt(n)
        ended = replace(outcome, window_from=self.sent[0].id) if window else outcome
        call = call_of(message, usage) if asked else None
        self.both(lambda adapters: adapters.messages.finish(message.id, number, ended, call=call))

    @precondition(lambda self: self.attempts)
    @rule(n=messages, delay=delays, asked=st.booleans(), usage=usages, failed=st.booleans())
    def give_back(self, n: int, delay: timedelta, asked: bool, usage: TokenUsage | None, failed: bool) -> None:
        message, number = self.attempt(n)
        call = call_of(message, usage) if asked else None

        def verb(adapters: Adapters) -> Awaitable[bool]:
            queue = adapters.messages.retry if failed else adapters.messages.release
            return queue(message.id, number, delay=delay, call=call)

        self.both(verb)

    @precondition(lambda self: self.attempts)
    @rule(n=messages, purpose=st.sampled_from(CallPurpose), usage=usages)
    def book(self, n: int, purpose: CallPurpose, usage: TokenUsage | None) -> None:
        call = replace(call_of(self.attempt(n).message, usage), purpose=purpose)
        self.both(lambda adapters: adapters.messages.book(call))

    @precondition(lambda self: self.sent)
    @rule(n=messages)
    def cancel(self, n: int) -> None:
        chosen = self.chosen(n)
        self.both(lambda adapters: adapters.messages.cancel(chosen.id, chosen.chatroom_id, chosen.user_id))

    @precondition(lambda self: self.sent)
    @rule(n=messages)
    def requeue(self, n: int) -> None:
        chosen = self.chosen(n)
        self.both(lambda adapters: adapters.messages.requeue(chosen.id))

    @rule(limit=st.integers(1, 4), is_expired=st.booleans(), notified_before=st.sampled_from([UNIT * 0.25, -UNIT]))
    def take(self, limit: int, is_expired: bool, notified_before: timedelta) -> None:
        def verb(adapters: Adapters) -> Awaitable[list[MessageId]]:
            queue = adapters.messages
            take = queue.take_expired if is_expired else queue.take_unnotified
            return take(limit=limit, notified_before=notified_before)

        self.both(verb)

    @precondition(lambda self: self.sent)
    @rule(n=messages, limit=st.integers(1, 3), status=st.sampled_from(MessageStatus))
    def read(self, n: int, limit: int, status: MessageStatus) -> None:
        chosen, ids = self.chosen(n), [message.id for message in self.sent]
        room, user, day = chosen.chatroom_id, chosen.user_id, self.clock.now().date()
        for verb in (
            lambda adapters: adapters.messages.get(chosen.id, room, user),
            lambda adapters: adapters.messages.is_suspect(chosen.id),
            lambda adapters: adapters.messages.ended(ids),
            lambda adapters: adapters.messages.cancel_requested(),
            lambda adapters: adapters.messages.context(chosen, limit=limit),
            lambda adapters: adapters.messages.list_by_status(status, limit=limit),
            lambda adapters: adapters.messages.allowance(user, day=day, total=3),
            lambda adapters: adapters.chatrooms.get_with_messages(room, user, limit=limit, before=chosen.id),
        ):
            self.both(verb)

    @rule(room=st.integers(0, 1), sure=st.sampled_from([False] * 5 + [True]))
    def delete_room(self, room: int, sure: bool) -> None:
        chosen = self.rooms[room]
        if sure:
            self.both(lambda adapters: adapters.chatrooms.delete(chosen.id, chosen.user_id))

    @rule(units=st.sampled_from([1, 1, 3, 7, 864]))
    def wait(self, units: int) -> None:
        self.run(self.real.wait((UNIT * units).total_seconds()))
        self.run(rows("UPDATE allowances SET minute_from = minute_from - $1::interval", UNIT * units))
        self.clock.move(UNIT * units)

    # --- the two sides ---

    async def open_room(self) -> Chatroom:
        user = self.memory.new_user()
        for adapters in (self.memory, self.real):
            await adapters.users.add(user)
        room = await self.memory.room(user)
        return await self.real.chatrooms.add(room)

    def both(self, verb: Callable[[Adapters], Awaitable[object]]) -> object:
        """The result of the verb, which is the same on both sides, as is all that is stored afterwards."""
        return self.run(self._both(verb))

    async def _both(self, verb: Callable[[Adapters], Awaitable[object]]) -> object:
        self.clock.move(timedelta(milliseconds=1))  # as in Postgres, no two statements are at the same time
        expected, found = await result_of(verb(self.memory)), await result_of(verb(self.real))
        assert timeless(found) == timeless(expected)
        await self.compare()
        return found

    async def compare(self) -> None:
        now, held = self.clock.now(), self.memory.messages
        expected: dict[object, object] = {}
        for entry in held.queue_entries():
            expected |= values_of(entry.message.id, entry, now)
        for user_id, usage in held.usage.items():
            expected |= values_of(user_id, usage, now)
        found = await stored_in_postgres()
        keys = found.keys() | expected.keys()
        differences = {
            key: (found.get(key), expected.get(key)) for key in keys if not are_same(found.get(key), expected.get(key))
        }
        assert differences == {}, "in Postgres, and by the domain"
        assert booked(await self.real.calls()) == booked(await self.memory.calls())

    def chosen(self, n: int) -> Message:
        return self.sent[-1 - n % len(self.sent)]

    def attempt(self, n: int) -> Attempt:
        return self.attempts[-1 - n % len(self.attempts)]


def call_of(message: Message, usage: TokenUsage | None) -> ModelCall:
    return message.call(model="gemini", outcome="completed", usage=usage)


def booked(calls: list[ModelCall]) -> dict[object, object]:
    """Without their days, which are not stored."""
    return {(call.message_id, call.attempt, call.purpose): (call.model, call.outcome, call.usage) for call in calls}


async def result_of(verb: Awaitable[object]) -> object:
    try:
        return await verb
    except DomainError as error:
        return type(error), error.detail


def timeless(value: object) -> object:
    """With every time as just "a time"."""
    if isinstance(value, datetime):
        return "a time"
    if is_dataclass(value):
        return {field.name: timeless(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, list | tuple):
        return [timeless(part) for part in value]
    return value


def values_of(key: object, entity: QueueEntry | Usage, now: datetime) -> dict[object, object]:
    """Each field's value by the key and its name; times as they are from now."""
    values = {field.name: getattr(entity, field.name) for field in fields(entity)}
    if isinstance(entity, QueueEntry):
        message = values.pop("message")
        if message.status.is_final:  # and is not in the queue
            values = {}
        elif values["lease_until"] == GONE:
            values["lease_until"] = "gone"
        values |= {field.name: getattr(message, field.name) for field in fields(Message)}
    return {(key, name): value - now if isinstance(value, datetime) else value for name, value in values.items()}


def are_same(found: object, expected: object) -> bool:
    if isinstance(found, timedelta) and isinstance(expected, timedelta):
        return abs(found - expected) < UNIT / 4
    return found == expected


#: While a message is open, its entry has its state.
STORED = f"""
    SELECT {Statements("messages").texts["columns"]}, entry.due_at, entry.notified_at, worker_id,
        workers.lease_until, entry.called, now()
    FROM messages LEFT JOIN queue_entries AS entry ON message_id = messages.id
    LEFT JOIN workers ON workers.id = worker_id
"""  # noqa: S608 - our own columns


async def stored_in_postgres() -> dict[object, object]:
    """What it has of messages and of users' counters."""
    stored: dict[object, object] = {}
    for row in await rows(STORED):
        lease_until = (row["lease_until"] or GONE) if row["worker_id"] else None
        entry = QueueEntry(
            message=to_entity(Message, row),
            due_at=row["due_at"],
            notified_at=row["notified_at"],
            worker=row["worker_id"],
            lease_until=lease_until,
            called=row["called"],
        )
        stored |= values_of(row["id"], entry, row["now"])
    open_ones = [row["id"] for row in await rows("SELECT id FROM messages WHERE status IN ('queued', 'generating')")]
    queued = [row["message_id"] for row in await rows("SELECT message_id FROM queue_entries")]
    assert sorted(queued) == sorted(open_ones), "what is open is in the queue, and nothing else is"
    for row in await rows("SELECT *, now() FROM allowances"):
        stored |= values_of(row["user_id"], to_entity(Usage, row), row["now"])
    return stored


async def empty() -> None:
    await rows("DELETE FROM users")
    await rows("DELETE FROM messages")
    await rows("DELETE FROM deleted_chatrooms")
    await rows("DELETE FROM workers")
    await rows("DELETE FROM model_calls")


async def test_postgres_does_what_the_domains_verbs_say(real: InPostgresAndRedis) -> None:
    try:
        await play(lambda loop: ChatGame(real, loop), games=60, steps=40)
    finally:
        await empty()
