"""What Users.delete promises: whatever table something of a user is in, it goes; what is others' stays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest

from adapters.postgres.connection import rows
from application.ports.billing import PaymentEvent
from application.ports.runtime import StoredReply
from domain.accounts import STREAK_RETENTION, GuessKind, OtpChallenge, OtpPurpose, User
from domain.billing import Allowance, Checkout, SendingLimits, Subscription, SubscriptionStatus
from domain.chat.chatrooms import Chatroom
from domain.chat.messages import Message
from domain.errors import (
    AlreadySubscribed,
    ChatroomNotFound,
    CodesSentTooOften,
    MessageEnded,
    MessageNotEnded,
    MessageNotFound,
    RefreshTokenInvalid,
    SessionNotFound,
    TooManyGuesses,
    UserNotFound,
)
from domain.ids import UserId
from tests.contracts.conftest import COMPLETED, FAILED, HOUR, Adapters, InPostgresAndRedis
from tests.support.patience import PROCESS_HANG

NOBODYS = {"aerich", "codes_total", "deleted_chatrooms", "model_budget", "model_setup", "payment_events", "workers"}
#: What was spent on the account's replies, with ids that lead to nobody any more.
BOOKS = {"model_calls"}
#: Tables of the previous version, in which this one writes nothing.
RETIRED = {"guess_budgets", "otp_challenges", "otp_sendings"}
#: What outlives the account until it expires, under a digest of the number.
NUMBERS = {"wrong_guesses", "kept_allowances", "codes_sent"}
LOGIN = OtpPurpose.LOGIN


class TestAnyAdapter:
    async def test_a_deleted_user_is_nobody(self, adapters: Adapters) -> None:
        ann, bob = await adapters.user(), await adapters.user()
        anns, bobs = await adapters.session(ann), await adapters.session(bob)
        await adapters.users.delete(ann.id)
        assert await adapters.users.find_by_mobile(ann.mobile) is None
        assert await adapters.sessions.find_user(anns.id) is None
        assert await adapters.users.find_by_mobile(bob.mobile) == bob
        assert await adapters.sessions.find_user(bobs.id) == bob

    async def test_the_number_is_free_again(self, adapters: Adapters) -> None:
        ann = await adapters.user()
        await adapters.users.delete(ann.id)
        await adapters.users.delete(ann.id)
        await adapters.users.delete(UserId(adapters.ids.new()))
        again = await adapters.user(mobile=ann.mobile)
        assert await adapters.users.find_by_mobile(ann.mobile) == again

    async def test_what_is_made_for_one_who_is_gone_is_refused(self, adapters: Adapters) -> None:
        ann = await adapters.user(password_hash="hash")
        room, session = await adapters.room(ann), adapters.new_session(ann)
        await adapters.users.delete(ann.id)
        with pytest.raises(UserNotFound):
            await adapters.sessions.add(session, b"token", b"device")
        assert not await adapters.sessions.add_by_password(session, b"token", b"device", "hash")
        with pytest.raises(UserNotFound):
            await adapters.room(ann)
        await adapters.users.rename(ann.id, "Ann")
        await adapters.users.set_password(ann.id, "hash")
        assert await adapters.users.find_by_mobile(ann.mobile) is None
        if isinstance(adapters, InPostgresAndRedis):
            with pytest.raises(ChatroomNotFound):
                await adapters.messages.accept(adapters.new_message(room), limits=SendingLimits())


class Scene:
    """A user with something in every table, and all that shows whose it is."""

    def __init__(self, real: InPostgresAndRedis, user: User) -> None:
        self.real = real
        self.user = user
        self.marks = {str(user.id), user.id.hex, user.mobile}
        self.digest = real.digests.digest(user.mobile)

    @classmethod
    async def of_a_new_user(cls, real: InPostgresAndRedis) -> Scene:
        scene = cls(real, await real.user(name="Ann"))
        user, now = scene.user, real.clock.now()
        sessions = [await real.session(user) for _ in range(4)]
        session = sessions[0]
        await real.sessions.rotate(session.id.bytes, session.id.bytes + b"+", now=now)
        await real.send_limits.record(user.mobile, now=now)
        await real.challenges.add(scene.challenge())
        for kind in GuessKind:
            await real.guess_limits.record_wrong(user.mobile, kind, now=now)
        room = await real.room(user)
        messages = [await real.ended(room), await real.claimed(room), await real.queued(room)]
        await scene.subscribe()
        await scene.keep(f"{user.id} create_chatroom", room.id, b'{"name": "Physics"}')
        await scene.keep(f"{scene.digest} sign_up", user.id, f'{{"mobile": "{user.mobile}"}}'.encode())
        scene.marks |= {str(one) for one in [room.id, *(s.id for s in sessions), *(m.id for m in messages)]}
        return scene

    def challenge(self) -> OtpChallenge:
        expires_at = self.real.clock.now() + timedelta(minutes=5)
        return OtpChallenge(
            mobile=self.user.mobile,
            purpose=LOGIN,
            challenge_hash=self.user.id.bytes,
            code_hash="a hash",
            expires_at=expires_at,
        )

    async def keep(self, scope: str, resource_id: UUID, body: bytes) -> None:
        key = f"key of {resource_id}"
        await self.real.keys.begin(scope, key, b"", new_id=resource_id, busy_for=HOUR)
        await self.real.keys.finish(scope, key, StoredReply(201, body))

    async def subscribe(self) -> None:
        user_id, billing, now = self.user.id, self.real.billing, self.real.clock.now()
        await billing.begin_checkout(user_id, open_until=now, lock_for=HOUR)
        await billing.add_customer(user_id, f"cus_{user_id.hex}")
        await billing.add_checkout(
            Checkout(id=f"cs_{user_id.hex}", user_id=user_id, url="https://pay.test/1", expires_at=now + HOUR),
            due_in=HOUR,
        )
        await billing.make_due(user_id)
        claimed = await billing.claim(user_id, lease=HOUR)
        assert claimed
        await billing.finish(
            claimed.account, subscriptions=[self.subscription()], checkouts=[], pro_until=now + HOUR, due_in=HOUR
        )

    def subscription(self) -> Subscription:
        return Subscription(
            id=f"sub_{self.user.id.hex}",
            user_id=self.user.id,
            status=SubscriptionStatus.ACTIVE,
            price_id="price_pro",
            created_at=self.real.clock.now(),
        )

    async def found_in(self) -> set[str]:
        """The tables that hold something of the user's."""
        return await found_in(self.marks)


async def found_in(marks: set[str]) -> set[str]:
    return {
        name for name, lines in (await everything()).items() if any(mark in line for line in lines for mark in marks)
    }


async def everything() -> dict[str, list[str]]:
    """Every row of every table, so that a table which is made tomorrow is looked at too."""
    tables = await rows(
        "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = current_schema()"
        " AND table_type = 'BASE TABLE' AND table_name !~ '^messages_'"  # which has its partitions
    )
    return {
        table["name"]: [_line(dict(row)) for row in await rows(f"SELECT * FROM {table['name']}")]  # noqa: S608
        for table in tables
    }


def _line(row: dict[str, Any]) -> str:
    return " ".join(
        f"{value.decode(errors='replace')} {value.hex()}" if isinstance(value, bytes) else str(value)
        for value in row.values()
    )


async def test_nothing_of_the_user_is_left_in_any_table(real: InPostgresAndRedis) -> None:
    ann, bob = await Scene.of_a_new_user(real), await Scene.of_a_new_user(real)
    tables = set(await everything())
    known = tables - NOBODYS - NUMBERS - RETIRED
    assert await ann.found_in() == await bob.found_in() == known, "a table that no scene has anything in"
    bobs = {name: [line for line in lines if not any(mark in line for mark in {*ann.marks, ann.digest})]
            for name, lines in (await everything()).items()}  # fmt: skip

    await real.users.delete(ann.user.id)
    await real.erase_deleted()
    assert await ann.found_in() == BOOKS
    assert await found_in({ann.digest}) == NUMBERS, "and not the replies that were kept for the number"
    left = {name: [line for line in lines if not any(mark in line for mark in {*ann.marks, ann.digest})]
            for name, lines in (await everything()).items()}  # fmt: skip
    assert left == bobs
    await real.users.delete(bob.user.id)
    await real.erase_deleted()
    assert {name for name, lines in (await everything()).items() if lines} <= NOBODYS | NUMBERS | BOOKS

    expired = real.clock.now() + STREAK_RETENTION + timedelta(days=1)
    await real.users.purge(today=expired.date())
    await real.guess_limits.purge(now=expired)
    await real.send_limits.purge(now=expired)
    assert {name for name, lines in (await everything()).items() if lines} <= NOBODYS | BOOKS


USUAL = (
    AlreadySubscribed,
    ChatroomNotFound,
    CodesSentTooOften,
    MessageEnded,
    MessageNotEnded,
    MessageNotFound,
    RefreshTokenInvalid,
    SessionNotFound,
    TooManyGuesses,
    UserNotFound,
)


class Busy:
    """What a user's devices, the workers and Stripe do while the account is deleted."""

    def __init__(self, scene: Scene, room: Chatroom, message: Message) -> None:
        self.real = scene.real
        self.scene = scene
        self.user = scene.user
        self.room = room
        self.message = message

    async def log_in(self) -> None:
        """As VerifyOtp does."""
        now = self.real.clock.now()
        async with self.real.unit_of_work():
            await self.real.challenges.count_guess(self.user.mobile, LOGIN, challenge_hash=None, now=now)
            await self.real.guess_limits.record_wrong(self.user.mobile, GuessKind.CODE, now=now)
        async with self.real.unit_of_work():
            await self.real.challenges.consume(self.user.mobile, LOGIN, "a hash")
            await self.real.guess_limits.clear(self.user.mobile, GuessKind.CODE)
            session = self.real.new_session(self.user)
            await self.real.sessions.add(session, session.id.bytes, session.id.bytes)

    async def change_password(self) -> None:
        """As SetPassword does."""
        async with self.real.unit_of_work():
            await self.real.challenges.consume(self.user.mobile, LOGIN, "a hash")
            await self.real.guess_limits.clear(self.user.mobile, GuessKind.CODE)
            await self.real.users.set_password(self.user.id, "hash")
            await self.real.sessions.end_all(self.user.id, now=self.real.clock.now())

    async def read_subscriptions(self) -> None:
        billing, now = self.real.billing, self.real.clock.now()
        await billing.add_event(PaymentEvent(id=f"evt_{self.real.ids.new()}", customer_id=f"cus_{self.user.id.hex}"))
        if claimed := await billing.claim(self.user.id, lease=-HOUR):
            await billing.finish(
                claimed.account, subscriptions=[self.scene.subscription()], checkouts=[], pro_until=now, due_in=None
            )

    async def refresh(self) -> None:
        session = self.real.new_session(self.user)
        token = session.id.bytes
        await self.real.sessions.add(session, token, token)
        for _ in range(3):
            await self.real.sessions.rotate(token, token + b"+", now=self.real.clock.now())
            token += b"+"

    def all(self) -> list[Callable[[], Awaitable[object]]]:
        messages, room, message = self.real.messages, self.room, self.message
        return [
            lambda: messages.accept(self.real.new_message(room), limits=SendingLimits()),
            lambda: self.real.workers.claim(message.id, lease=HOUR),
            lambda: messages.finish(message.id, 1, COMPLETED),
            lambda: messages.finish(message.id, 1, FAILED),
            lambda: messages.regenerate(self.real.anew(message), limits=SendingLimits()),
            lambda: messages.cancel(message.id, room.id, self.user.id),
            lambda: self.real.workers.extend([(message.id, 1)], lease=HOUR),
            lambda: messages.take_unnotified(limit=5, notified_before=-HOUR),
            lambda: messages.take_expired(limit=5, notified_before=-HOUR),
            lambda: self.real.chatrooms.change(room.id, self.user.id, name="Chemistry"),
            lambda: self.real.chatrooms.delete(room.id, self.user.id),
            lambda: self.real.room(self.user),
            lambda: self.real.send_limits.record(self.user.mobile, now=self.real.clock.now()),
            lambda: self.real.users.delete(self.user.id),
            lambda: self.real.sessions.end_all(self.user.id, now=self.real.clock.now()),
            lambda: self.real.sessions.purge(now=self.real.clock.now()),
            self.log_in,
            self.change_password,
            self.read_subscriptions,
            self.refresh,
        ]


async def test_a_deletion_and_all_else_at_once_wait_for_nobody_for_ever(real: InPostgresAndRedis) -> None:
    random, deleted = Random(6), 0
    for _ in range(10):
        scene = await Scene.of_a_new_user(real)
        room = await real.room(scene.user)
        message = await real.claimed(room)
        busy = Busy(scene, room, message).all() * 3
        random.shuffle(busy)

        async def quietly(call: Callable[[], Awaitable[object]]) -> None:
            with suppress(*USUAL):
                await call()

        async with asyncio.timeout(PROCESS_HANG):
            # A deadlock would come as DatabaseUnavailable, a second later.
            await asyncio.gather(*(quietly(call) for call in busy))
        deleted += await real.users.find_by_mobile(scene.user.mobile) is None
        await real.erase_deleted()
        left = await scene.found_in()
        # A code that was sent a moment later goes to a number that nobody has.
        assert left <= {"one_time_codes", "payment_events"} | BOOKS
    assert deleted == 10


async def test_it_waits_for_a_message_that_is_being_accepted(real: InPostgresAndRedis) -> None:
    ann = await real.user()
    room = await real.room(ann)
    messages = [real.new_message(room) for _ in range(9)]
    calls: list[Coroutine[Any, Any, object]] = [real.messages.accept(one, limits=SendingLimits()) for one in messages]
    calls.insert(4, real.users.delete(ann.id))
    results = await real.race(*calls, rows_of="chatrooms")
    assert {type(result) for result in results} <= {type(None), Allowance, ChatroomNotFound}
    await real.erase_deleted()
    assert (await rows("SELECT count(*) AS n FROM messages"))[0]["n"] == 0
    assert await real.counters() == {}
