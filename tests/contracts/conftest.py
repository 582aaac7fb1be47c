"""Every contract is kept twice: by adapters/memory, and by Postgres and Redis in production's wiring."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cached_property
from typing import Any, Protocol, TypeVar

import asyncpg
import pytest

from adapters.memory.accounts import (
    MemoryGuessLimits,
    MemoryOtpChallenges,
    MemoryOtpSendLimits,
    MemorySessions,
    MemoryUsers,
)
from adapters.memory.billing import MemoryBillingAccounts
from adapters.memory.chat import MemoryMessages
from adapters.memory.chatrooms import MemoryChatroomLists, MemoryChatrooms
from adapters.memory.idempotency import MemoryIdempotencyKeys
from adapters.memory.language_model import MemoryModelBudget, MemoryModelSetup
from adapters.memory.runtime import MemoryClock
from adapters.memory.store import MemoryUnitOfWork
from adapters.postgres.budget import PostgresModelBudget
from adapters.postgres.connection import rows
from adapters.system import TimeOrderedIds
from application.ports.accounts import GuessLimits, NumberDigests, OtpChallenges, OtpSendLimits, Sessions, Users
from application.ports.billing import BillingAccounts
from application.ports.chat import (
    ChatroomLists,
    Chatrooms,
    MessageDesk,
    MessageHistory,
    MessageQueue,
    Messages,
    ModelBudget,
    ModelSetup,
)
from application.ports.runtime import Clock, IdempotencyKeys, Ids, UnitOfWork
from domain.accounts import Device, MobileNumber, Session, User
from domain.billing import SendingLimits
from domain.chat.calls import CallPurpose, ModelCall, TokenUsage
from domain.chat.chatrooms import Chatroom
from domain.chat.conversation import Exchange
from domain.chat.messages import Message, MessageStatus, Outcome
from domain.errors import ReplyBlocked, WorkerCrashed
from domain.ids import ChatroomId, MessageId, SessionId, UserId
from entrypoints.container import Container
from tests.support.database import connections_in_use, open_transactions
from tests.support.patience import HANG
from tests.support.workers import Workers

T = TypeVar("T")

HOUR = timedelta(hours=1)
COMPLETED = Outcome(status=MessageStatus.COMPLETED, response="Hello.", finish_reason="STOP")
FAILED = Outcome.of_error(WorkerCrashed())
BLOCKED = Outcome.of_error(ReplyBlocked("SAFETY"))
CANCELLED = Outcome(status=MessageStatus.CANCELLED, response="Half a")


def names(results: Sequence[object]) -> Counter[str]:
    return Counter(type(result).__name__ for result in results)


def exchanges(*messages: Message) -> list[Exchange]:
    return [Exchange(past.id, past.input, past.response or "", past.window_from) for past in messages]


def call_of(message: Message, ended: Outcome, **changes: Any) -> ModelCall:
    """The call that an attempt's outcome comes from."""
    usage = TokenUsage(
        ended.input_tokens or 0, ended.cached_tokens or 0, ended.output_tokens or 0, ended.thought_tokens or 0
    )
    call = ModelCall(
        user_id=message.user_id,
        message_id=message.id,
        attempt=1,
        purpose=CallPurpose.REPLY,
        model="gemini",
        outcome=ended.error_code or ended.status.value,
        usage=None if ended.output_tokens is None else usage,
        day=message.allowance_day,
    )
    return replace(call, **changes)


class AnyMessages(Messages, MessageQueue, MessageDesk, Protocol):
    """One adapter has all three ports: what one caller does, the others see."""


class _Interrupted(Exception):
    """What leaves a unit of work that is to be rolled back."""


@dataclass(frozen=True, kw_only=True)
class Adapters(ABC):
    """The adapters of one kind, and what the tests need to set a scene with them."""

    users: Users
    sessions: Sessions
    challenges: OtpChallenges
    guess_limits: GuessLimits
    send_limits: OtpSendLimits
    chatrooms: Chatrooms
    messages: AnyMessages
    history: MessageHistory
    lists: ChatroomLists
    keys: IdempotencyKeys
    billing: BillingAccounts
    setup: ModelSetup
    unit_of_work: UnitOfWork
    clock: Clock
    ids: Ids
    #: Messages of the latest day that are counted but no longer seen: asked again since, or deleted with their room.
    unseen: Counter[UserId] = field(default_factory=Counter)

    @abstractmethod
    async def wait(self, seconds: float) -> None:
        """Make everything that is stored older, as if time had passed."""

    @abstractmethod
    async def race(self, *calls: Coroutine[Any, Any, T], rows_of: str = "", table: str = "") -> list[T | BaseException]:
        """The results of calls made at once, each on its own connection.

        All wait for locked rows of a table, or for the table itself if it has no rows yet, and are then released
        together.
        """

    @abstractmethod
    def budget(self, per_minute: int) -> ModelBudget:
        """One that nothing has been taken from yet."""

    @abstractmethod
    async def counters(self) -> dict[UserId, tuple[date, int, int]]:
        """Of each user the latest day, the messages used of it, and those in flight."""

    async def check_counters(self) -> None:
        """What is counted is what the messages say."""
        messages = [m for status in MessageStatus for m in await self.messages.list_by_status(status, limit=1_000)]
        counters = await self.counters()
        assert counters.keys() >= {message.user_id for message in messages}
        for user_id, (day, used, in_flight) in counters.items():
            own = [message for message in messages if message.user_id == user_id]
            charged = sum(message.charged and message.allowance_day == day for message in own) + self.unseen[user_id]
            assert (used, in_flight) == (charged, sum(not message.status.is_final for message in own))

    async def erase_deleted(self) -> None:
        while await self.history.erase_deleted():
            pass

    @asynccontextmanager
    async def rolled_back(self) -> AsyncIterator[None]:
        """A unit of work that fails at the end of the block."""
        with suppress(_Interrupted):
            async with self.unit_of_work():
                yield
                raise _Interrupted

    @cached_property
    def workers(self) -> Workers:
        return Workers(self.messages)

    def new_user(self, **changes: Any) -> User:
        number = MobileNumber(f"+9198{self.ids.new().int % 10**8:08d}")
        values = {"id": UserId(self.ids.new()), "mobile": number, "name": "Ann", "created_at": self.clock.now()}
        return User(**{**values, **changes})

    async def user(self, **changes: Any) -> User:
        user = self.new_user(**changes)
        await self.users.add(user)
        return user

    def new_session(self, user: User, *, age: timedelta = timedelta()) -> Session:
        opened = self.clock.now() - age
        return Session.begin(SessionId(self.ids.new()), user.id, Device("A phone", "203.0.113.0/24"), opened)

    async def session(self, user: User, *, age: timedelta = timedelta(), token: bytes = b"") -> Session:
        """`token`: the hash of its first refresh token."""
        session = self.new_session(user, age=age)
        await self.sessions.add(session, token or session.id.bytes, b"device" + session.id.bytes)
        return session

    async def room(self, user: User | None = None, name: str = "Physics", **changes: Any) -> Chatroom:
        owner = user or await self.user()
        now = self.clock.now()
        room = Chatroom(id=ChatroomId(self.ids.new()), user_id=owner.id, name=name, created_at=now, **changes)
        await self.chatrooms.add(room)
        return room

    def new_message(self, room: Chatroom, **changes: Any) -> Message:
        now = self.clock.now()
        values = {
            "id": MessageId(self.ids.new()),
            "chatroom_id": room.id,
            "user_id": room.user_id,
            "input": "Why is the sky blue?",
            "created_at": now,
            "queued_at": now,
            "allowance_day": now.date(),
            "max_output_tokens": 2_048,
        }
        return Message(**{**values, **changes})

    async def queued(self, room: Chatroom | None = None, **changes: Any) -> Message:
        message = self.new_message(room or await self.room(), **changes)
        await self.messages.accept(message, limits=SendingLimits())
        return message

    async def claimed(self, room: Chatroom | None = None, lease: timedelta = HOUR) -> Message:
        message = await self.queued(room)
        claimed = await self.workers.claim(message.id, lease=lease)
        assert claimed is not None
        return claimed

    async def ended(self, room: Chatroom | None = None, outcome: Outcome = COMPLETED) -> Message:
        message = await self.claimed(room)
        assert await self.finish(message, outcome)
        return await self.stored(message)

    async def finish(self, message: Message, outcome: Outcome, *, attempt: int = 1) -> bool:
        """As a worker does that has asked the model."""
        call = call_of(message, outcome, attempt=attempt)
        return await self.messages.finish(message.id, attempt, outcome, call=call)

    @abstractmethod
    async def calls(self) -> list[ModelCall]:
        """All that are booked, in their order."""

    def anew(self, message: Message, **changes: Any) -> Message:
        """As it is to be when it is asked again."""
        now = self.clock.now()
        room = Chatroom(id=message.chatroom_id, user_id=message.user_id, name="", created_at=now)
        kept = {"id": message.id, "input": message.input, "created_at": message.created_at, "attempt": message.attempt}
        return self.new_message(room, **{**kept, **changes})

    async def stored(self, message: Message) -> Message:
        return await self.messages.get(message.id, message.chatroom_id, message.user_id)

    async def used(self, message: Message) -> int:
        allowance = await self.messages.allowance(message.user_id, day=message.allowance_day, total=None)
        return allowance.used


@dataclass(frozen=True, kw_only=True)
class InMemory(Adapters):
    clock: MemoryClock
    messages: MemoryMessages

    def budget(self, per_minute: int) -> ModelBudget:
        return MemoryModelBudget(self.clock, per_minute)

    async def counters(self) -> dict[UserId, tuple[date, int, int]]:
        return {user_id: (row.day, row.used, row.in_flight) for user_id, row in self.messages.usage.items()}

    async def calls(self) -> list[ModelCall]:
        return self.messages.calls.all()

    async def wait(self, seconds: float) -> None:
        self.clock.move(timedelta(seconds=seconds))

    async def race(self, *calls: Coroutine[Any, Any, T], rows_of: str = "", table: str = "") -> list[T | BaseException]:
        return await asyncio.gather(*calls, return_exceptions=True)


@dataclass(frozen=True, kw_only=True)
class InPostgresAndRedis(Adapters):
    database_url: str
    digests: NumberDigests

    def budget(self, per_minute: int) -> ModelBudget:
        return PostgresModelBudget(per_minute)

    async def counters(self) -> dict[UserId, tuple[date, int, int]]:
        return {row["user_id"]: (row["day"], row["used"], row["in_flight"]) for row in await rows("TABLE allowances")}

    async def calls(self) -> list[ModelCall]:
        return [
            ModelCall(
                user_id=row["user_id"],
                message_id=row["message_id"],
                attempt=row["attempt"],
                purpose=CallPurpose(row["purpose"]),
                model=row["model"],
                outcome=row["outcome"],
                usage=None
                if row["output_tokens"] is None
                else TokenUsage(row["input_tokens"], row["cached_tokens"], row["output_tokens"], row["thought_tokens"]),
                day=self.clock.now().date(),  # which is not stored
            )
            for row in await rows("SELECT * FROM model_calls ORDER BY id")
        ]

    async def wait(self, seconds: float) -> None:
        for sql in (
            "UPDATE messages SET created_at = created_at - $1::interval, queued_at = queued_at - $1,"
            " completed_at = completed_at - $1",
            "UPDATE queue_entries SET queued_at = queued_at - $1::interval, due_at = due_at - $1,"
            " notified_at = notified_at - $1",
            "UPDATE workers SET lease_until = lease_until - $1::interval",
            "UPDATE idempotency_keys SET created_at = created_at - $1::interval, busy_until = busy_until - $1",
            "UPDATE model_budget SET booked_until = booked_until - $1::interval",
            "UPDATE billing_accounts SET checkout_busy_until = checkout_busy_until - $1::interval,"
            " due_at = due_at - $1, lease_until = lease_until - $1, rung_at = rung_at - $1",
            "UPDATE payment_events SET received_at = received_at - $1::interval",
        ):
            await rows(sql, timedelta(seconds=seconds))

    async def race(self, *calls: Coroutine[Any, Any, T], rows_of: str = "", table: str = "") -> list[T | BaseException]:
        gate = await asyncpg.connect(self.database_url)
        try:
            async with gate.transaction():
                await gate.execute(f"SELECT FROM {rows_of} FOR UPDATE" if rows_of else f"LOCK {table} IN SHARE MODE")
                tasks = [asyncio.create_task(call) for call in calls]
                give_up = time.monotonic() + HANG
                while await gate.fetchval("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted") < len(calls):
                    assert time.monotonic() < give_up, "not all of them wait for the lock"
                    await asyncio.sleep(0.005)
            return await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await gate.close()


def in_memory(clock: MemoryClock) -> InMemory:
    users, messages = MemoryUsers(), MemoryMessages(clock)
    return InMemory(
        users=users,
        sessions=MemorySessions(users),
        challenges=MemoryOtpChallenges(),
        guess_limits=MemoryGuessLimits(),
        send_limits=MemoryOtpSendLimits(),
        chatrooms=MemoryChatrooms(users, messages),
        messages=messages,
        history=messages,
        lists=MemoryChatroomLists(),
        keys=MemoryIdempotencyKeys(clock),
        billing=MemoryBillingAccounts(users, clock),
        setup=MemoryModelSetup(),
        unit_of_work=MemoryUnitOfWork(),
        clock=clock,
        ids=TimeOrderedIds(),
    )


@pytest.fixture
async def memory() -> AsyncIterator[InMemory]:
    adapters = in_memory(MemoryClock())
    yield adapters
    await adapters.check_counters()


@pytest.fixture
async def real(container: Container, database_url: str) -> AsyncIterator[InPostgresAndRedis]:
    """On empty tables; afterwards no connection is left out of the pool and no transaction open."""
    for sql in (
        "DELETE FROM users",
        "DELETE FROM one_time_codes",
        "DELETE FROM codes_total",
        "DELETE FROM messages",
        "DELETE FROM deleted_chatrooms",
        "DELETE FROM workers",
        "DELETE FROM codes_sent",
        "DELETE FROM wrong_guesses",
        "DELETE FROM kept_allowances",
        "DELETE FROM model_calls",
        "DELETE FROM model_setup",
        "DELETE FROM idempotency_keys",
        "DELETE FROM payment_events",
        "UPDATE model_budget SET booked_until = now()",
    ):
        await rows(sql)
    adapters = InPostgresAndRedis(
        users=container.users(),
        sessions=container.sessions(),
        challenges=container.challenges(),
        guess_limits=container.guess_limits(),
        send_limits=container.send_limits(),
        chatrooms=container.chatrooms(),
        messages=container.messages(),
        history=container.message_history(),
        lists=container.chatroom_lists(),
        keys=container.idempotency_keys(),
        billing=container.billing_accounts(),
        setup=container.model_setup(),
        unit_of_work=container.unit_of_work(),
        clock=container.clock(),
        ids=container.ids(),
        database_url=database_url,
        digests=container.number_digests(),
    )
    yield adapters
    await adapters.check_counters()
    assert await connections_in_use() == 0, "a connection was not given back"
    assert await open_transactions() == [], "a transaction was left open"


@pytest.fixture(params=["memory", "real"])
def adapters(request: pytest.FixtureRequest) -> Adapters:
    chosen = request.getfixturevalue(request.param)
    assert isinstance(chosen, Adapters)
    return chosen
