"""What Sessions promises: devices, the refresh tokens that keep them signed in, and how both end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta

import asyncpg
import pytest

from domain.accounts import (
    DEVICE_RETENTION,
    MAX_KNOWN_DEVICES,
    SESSION_IDLE,
    SESSION_LIFETIME,
    Session,
    Standing,
    User,
)
from domain.errors import RefreshTokenInvalid, SessionNotFound
from domain.ids import SessionId, UserId
from tests.contracts.conftest import Adapters, InPostgresAndRedis, names
from tests.support.patience import HANG

MOMENT = timedelta(milliseconds=1)


class Family:
    """A session and the line of its refresh tokens: `next_of` gives each the same successor, as the product does."""

    def __init__(self, adapters: Adapters, session: Session) -> None:
        self.adapters = adapters
        self.session = session
        self.first = session.id.bytes

    @staticmethod
    def next_of(token: bytes) -> bytes:
        return token + b"+"

    async def rotate(self, token: bytes, now: datetime) -> Session:
        return await self.adapters.sessions.rotate(token, self.next_of(token), now=now)

    async def is_alive(self) -> bool:
        return await self.adapters.sessions.find_user(self.session.id) is not None


async def family(adapters: Adapters, *, age: timedelta = timedelta()) -> Family:
    return Family(adapters, await adapters.session(await adapters.user(), age=age))


async def refused(family: Family, token: bytes, now: datetime) -> None:
    with pytest.raises(RefreshTokenInvalid):
        await family.rotate(token, now)


class TestOpening:
    async def test_finds_the_user_as_stored_now(self, adapters: Adapters) -> None:
        user = await adapters.user()
        session = await adapters.session(user)
        await adapters.users.set_password(user.id, "newer")
        assert await adapters.sessions.find_user(session.id) == replace(user, password_hash="newer")

    async def test_an_unknown_session_is_nobodys(self, adapters: Adapters) -> None:
        assert await adapters.sessions.find_user(SessionId(adapters.ids.new())) is None

    async def test_tells_which_of_many_have_ended(self, adapters: Adapters) -> None:
        ann, bob = await adapters.user(), await adapters.user()
        open_one, ended, deleted = [await adapters.session(user) for user in (ann, ann, bob)]
        unknown = SessionId(adapters.ids.new())
        await adapters.sessions.end(ended.id, ann.id, now=adapters.clock.now())
        await adapters.users.delete(bob.id)
        found = await adapters.sessions.ended([open_one.id, ended.id, deleted.id, unknown])
        assert set(found) == {ended.id, deleted.id, unknown}
        assert await adapters.sessions.ended([]) == []
        async with adapters.rolled_back():
            await adapters.sessions.end_all(ann.id, now=adapters.clock.now())
        assert await adapters.sessions.ended([open_one.id]) == []

    async def test_a_rolled_back_session_never_was(self, adapters: Adapters) -> None:
        ann = await adapters.user()
        async with adapters.rolled_back():
            session = await adapters.session(ann)
        assert await adapters.sessions.find_user(session.id) is None
        await refused(Family(adapters, session), session.id.bytes, adapters.clock.now())

    async def test_by_password_only_while_it_is_the_password(self, adapters: Adapters) -> None:
        ann, bob = await adapters.user(password_hash="hash"), await adapters.user()
        for user, password_hash, found in [(ann, "hash", ann), (ann, "other", None), (bob, "hash", None)]:
            session = adapters.new_session(user)
            added = await adapters.sessions.add_by_password(
                session, session.id.bytes, b"device" + session.id.bytes, password_hash
            )
            assert added == (found is not None)
            assert await adapters.sessions.find_user(session.id) == found
        nobody = adapters.new_session(adapters.new_user())
        assert not await adapters.sessions.add_by_password(nobody, b"token", b"device", "hash")

    async def test_by_password_it_is_refreshed_like_any_other(self, adapters: Adapters) -> None:
        ann = await adapters.user(password_hash="hash")
        session = adapters.new_session(ann)
        assert await adapters.sessions.add_by_password(session, session.id.bytes, b"device" + session.id.bytes, "hash")
        assert await adapters.sessions.alive(ann.id, now=session.created_at) == [session]
        rotated = await Family(adapters, session).rotate(session.id.bytes, session.created_at)
        assert rotated == session

    async def test_by_password_rolled_back_never_was(self, adapters: Adapters) -> None:
        ann = await adapters.user(password_hash="hash")
        session = adapters.new_session(ann)
        async with adapters.rolled_back():
            assert await adapters.sessions.add_by_password(session, b"token", b"device" + session.id.bytes, "hash")
        assert await adapters.sessions.find_user(session.id) is None

    async def test_none_by_the_old_password_survives_its_change(self, adapters: Adapters) -> None:
        ann = await adapters.user(password_hash="old")
        sessions = [adapters.new_session(ann) for _ in range(18)]

        async def change() -> bool:
            async with adapters.unit_of_work():
                await adapters.users.set_password(ann.id, "new")
                await adapters.sessions.end_all(ann.id, now=adapters.clock.now())
            return True

        logins = [
            adapters.sessions.add_by_password(session, session.id.bytes, b"device" + session.id.bytes, "old")
            for session in sessions
        ]
        results = await adapters.race(*logins[:9], change(), *logins[9:], rows_of="users")
        assert set(results) <= {True, False}
        assert [await adapters.sessions.find_user(session.id) for session in sessions] == [None] * 18

    async def test_by_password_waits_for_a_change_that_is_being_committed(self, real: InPostgresAndRedis) -> None:
        ann = await real.user(password_hash="old")
        session = real.new_session(ann)
        async with committing(real) as changing:
            await changing.execute("UPDATE users SET password_hash = 'new' WHERE id = $1", ann.id)
            await changing.execute("UPDATE sessions SET ended_at = now() WHERE user_id = $1", ann.id)
            adding = asyncio.create_task(
                real.sessions.add_by_password(session, b"token", b"device" + session.id.bytes, "old")
            )
            await blocked(changing, adding)
        assert await adding is False
        assert await real.sessions.find_user(session.id) is None


@asynccontextmanager
async def committing(real: InPostgresAndRedis) -> AsyncIterator[asyncpg.Connection]:
    """A transaction of somebody else's, committed at the end of the block."""
    connection = await asyncpg.connect(real.database_url)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


async def blocked(by: asyncpg.Connection, task: asyncio.Task[object] | asyncio.Task[bool]) -> None:
    async with asyncio.timeout(HANG):
        while not await by.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            assert not task.done(), "it did not wait"
            await asyncio.sleep(0.005)


class TestRotating:
    async def test_each_token_is_spent_for_the_next(self, adapters: Adapters) -> None:
        one = await family(adapters)
        now, token = one.session.created_at, one.first
        for _ in range(4):
            now += timedelta(minutes=5)
            assert await one.rotate(token, now) == replace(one.session, last_seen_at=now)
            token = one.next_of(token)
        assert await one.is_alive()

    async def test_families_know_nothing_of_each_other(self, adapters: Adapters) -> None:
        one, other = await family(adapters), await family(adapters)
        now = one.session.created_at + timedelta(hours=1)
        await one.rotate(one.first, now)
        await one.rotate(one.next_of(one.first), now)
        await refused(one, one.first, now)
        assert not await one.is_alive()
        assert (await other.rotate(other.first, now)).id == other.session.id
        assert await other.is_alive()

    @pytest.mark.parametrize("later", [timedelta(), timedelta(seconds=11), timedelta(days=6, hours=23)])
    async def test_the_parent_may_come_again_while_its_successor_is_unused(
        self, adapters: Adapters, later: timedelta
    ) -> None:
        one = await family(adapters)
        now = one.session.created_at + timedelta(hours=1)
        first = await one.rotate(one.first, now)
        for _ in range(3):
            assert await one.rotate(one.first, now + later) == first
        following = await one.rotate(one.next_of(one.first), now + later)
        assert following.last_seen_at == now + later

    async def test_the_parent_ends_the_family_once_its_successor_is_used(self, adapters: Adapters) -> None:
        one = await family(adapters)
        now = one.session.created_at + timedelta(hours=1)
        await one.rotate(one.first, now)
        await one.rotate(one.next_of(one.first), now)
        await refused(one, one.first, now)
        assert not await one.is_alive()
        for member in (one.first, one.next_of(one.first), one.next_of(one.next_of(one.first))):
            await refused(one, member, now)

    async def test_the_parent_of_a_session_left_alone_is_refused(self, adapters: Adapters) -> None:
        one = await family(adapters)
        now = one.session.created_at + timedelta(hours=1)
        await one.rotate(one.first, now)
        await refused(one, one.first, now + SESSION_IDLE)

    async def test_a_spent_token_is_kept_for_as_long_as_its_owner_may_bring_it(self, adapters: Adapters) -> None:
        """The thief refreshes on and on; the owner comes back with what was theirs when it was stolen."""
        one = await family(adapters)
        now, token = one.session.created_at, one.first
        for _ in range(6):
            await one.rotate(token, now)
            token, now = one.next_of(token), now + timedelta(days=1)
        await refused(one, one.first, now)
        assert not await one.is_alive()

    async def test_a_spent_token_is_removed_when_it_is_too_old_to_be_spent(self, adapters: Adapters) -> None:
        one = await family(adapters)
        now, token = one.session.created_at, one.first
        for _ in range(8):
            await one.rotate(token, now)
            token, now = one.next_of(token), now + timedelta(days=1)
        await refused(one, one.first, now)
        assert await one.is_alive(), "it is unknown, like any that was never given"
        await refused(one, one.next_of(one.next_of(one.first)), now)
        assert not await one.is_alive()

    async def test_an_older_one_ends_the_family_at_once(self, adapters: Adapters) -> None:
        one = await family(adapters)
        now, tokens = one.session.created_at, [one.first]
        for _ in range(3):
            await one.rotate(tokens[-1], now)
            tokens.append(one.next_of(tokens[-1]))
        await one.rotate(tokens[-2], now)  # the parent of the live one
        assert await one.is_alive()
        await refused(one, tokens[-3], now)
        assert not await one.is_alive()
        for token in tokens:
            await refused(one, token, now)
        assert await adapters.sessions.alive(one.session.user_id, now=now) == []

    async def test_of_many_at_once_there_is_one_next(self, adapters: Adapters) -> None:
        one = await family(adapters)
        now = one.session.created_at + timedelta(hours=1)
        calls = [one.rotate(one.first, now) for _ in range(20)]
        results = await adapters.race(*calls, rows_of="refresh_tokens")
        assert results == [replace(one.session, last_seen_at=now)] * 20
        await self.check_one_next(one, now)

    async def test_of_two_hundred_at_once_there_is_one_next(self, adapters: Adapters) -> None:
        one = await family(adapters)
        now = one.session.created_at + timedelta(hours=1)
        results = await asyncio.gather(*(one.rotate(one.first, now) for _ in range(200)))
        assert results == [replace(one.session, last_seen_at=now)] * 200
        await self.check_one_next(one, now)

    async def check_one_next(self, one: Family, now: datetime) -> None:
        if isinstance(one.adapters, InPostgresAndRedis):
            connection = await asyncpg.connect(one.adapters.database_url)
            try:
                found = await connection.fetch(
                    "SELECT hash FROM refresh_tokens WHERE session_id = $1 AND spent_at IS NULL", one.session.id
                )
            finally:
                await connection.close()
            assert [row["hash"] for row in found] == [one.next_of(one.first)]
        await one.rotate(one.next_of(one.first), now)
        await refused(one, one.first, now)

    async def test_a_token_never_given_is_refused_without_effect(self, adapters: Adapters) -> None:
        one = await family(adapters)
        await refused(one, b"never given", one.session.created_at)
        await refused(one, b"", one.session.created_at)
        await refused(one, one.next_of(one.first), one.session.created_at)
        assert await one.is_alive()

    async def test_left_alone_for_a_week_it_is_over(self, adapters: Adapters) -> None:
        one, other = await family(adapters), await family(adapters)
        await refused(one, one.first, one.session.created_at + SESSION_IDLE)
        assert await one.rotate(other.first, other.session.created_at + SESSION_IDLE - MOMENT)

    async def test_the_week_begins_anew_with_each_refresh_but_a_month_is_all(self, adapters: Adapters) -> None:
        one = await family(adapters)
        end, now, token = one.session.created_at + SESSION_LIFETIME, one.session.created_at, one.first
        while now + SESSION_IDLE - MOMENT < end:
            now += SESSION_IDLE - MOMENT
            assert await one.rotate(token, now)
            token = one.next_of(token)
        await one.rotate(token, end - MOMENT)
        await refused(one, one.next_of(token), end)

    async def test_a_replay_does_not_outlive_the_session(self, adapters: Adapters) -> None:
        one = await family(adapters, age=SESSION_LIFETIME)
        end = one.session.expires_at
        token, now = one.first, one.session.created_at
        while now < end - timedelta(seconds=2):
            now = min(now + SESSION_IDLE - MOMENT, end - timedelta(seconds=1))
            await one.rotate(token, now)
            last, token = token, one.next_of(token)
        await one.rotate(last, end - MOMENT)
        await refused(one, last, end)

    async def test_an_ended_session_is_refreshed_no_more(self, adapters: Adapters) -> None:
        one = await family(adapters)
        now = one.session.created_at
        await one.rotate(one.first, now)
        await adapters.sessions.end(one.session.id, one.session.user_id, now=now)
        for token in (one.next_of(one.first), one.first):
            await refused(one, token, now)

    async def test_a_rolled_back_refresh_spends_nothing(self, adapters: Adapters) -> None:
        one = await family(adapters)
        now = one.session.created_at
        async with adapters.rolled_back():
            await one.rotate(one.first, now)
        await refused(one, one.next_of(one.first), now)
        await one.rotate(one.first, now)

    async def test_none_survives_the_end_of_all(self, adapters: Adapters) -> None:
        families = [await family(adapters) for _ in range(6)]
        now = adapters.clock.now()

        async def end_all(one: Family) -> None:
            await adapters.sessions.end_all(one.session.user_id, now=now)

        calls = [call for one in families for call in (one.rotate(one.first, now), end_all(one))]
        results = await adapters.race(*calls, rows_of="sessions")
        assert names(results).keys() <= {"Session", "NoneType", "RefreshTokenInvalid"}
        for one in families:
            assert not await one.is_alive()
            for token in (one.first, one.next_of(one.first)):
                await refused(one, token, now)

    async def test_a_refresh_waits_for_an_end_that_is_being_committed(self, real: InPostgresAndRedis) -> None:
        one = await family(real)
        async with committing(real) as ending:
            await ending.execute("UPDATE sessions SET ended_at = now() WHERE id = $1", one.session.id)
            rotating = asyncio.create_task(one.rotate(one.first, real.clock.now()))
            await blocked(ending, rotating)
        with pytest.raises(RefreshTokenInvalid):
            await rotating


class TestListing:
    async def test_those_alive_the_one_seen_last_first(self, adapters: Adapters) -> None:
        ann, bob = await adapters.user(), await adapters.user()
        minute = timedelta(minutes=1)
        ages = [timedelta(hours=2), timedelta(hours=1), SESSION_IDLE - minute, SESSION_IDLE + minute, SESSION_LIFETIME]
        old, new, idle, *_ = [await adapters.session(ann, age=age) for age in ages]
        ended, bobs = await adapters.session(ann), await adapters.session(bob)
        now = adapters.clock.now()
        await adapters.sessions.end(ended.id, ann.id, now=now)
        assert await adapters.sessions.alive(ann.id, now=now) == [new, old, idle]
        seen = await Family(adapters, old).rotate(old.id.bytes, now)
        assert await adapters.sessions.alive(ann.id, now=now) == [seen, new, idle]
        assert await adapters.sessions.alive(ann.id, now=idle.created_at + SESSION_IDLE - MOMENT) == [seen, new, idle]
        assert await adapters.sessions.alive(ann.id, now=idle.created_at + SESSION_IDLE) == [seen, new]
        assert await adapters.sessions.alive(bob.id, now=now) == [bobs]
        assert await adapters.sessions.alive(UserId(adapters.ids.new()), now=now) == []

    async def test_two_of_one_moment_keep_their_order(self, adapters: Adapters) -> None:
        ann = await adapters.user()
        first = await adapters.session(ann)
        second = replace(adapters.new_session(ann), created_at=first.created_at, last_seen_at=first.last_seen_at)
        second = replace(second, expires_at=first.expires_at)
        await adapters.sessions.add(second, b"token", b"device")
        assert await adapters.sessions.alive(ann.id, now=first.created_at) == [second, first]


class TestEnding:
    async def test_one(self, adapters: Adapters) -> None:
        ann = await adapters.user()
        first, second = await adapters.session(ann), await adapters.session(ann)
        now = adapters.clock.now()
        await adapters.sessions.end(first.id, ann.id, now=now)
        assert await adapters.sessions.find_user(first.id) is None
        assert await adapters.sessions.find_user(second.id) == ann
        with pytest.raises(SessionNotFound):
            await adapters.sessions.end(first.id, ann.id, now=now)

    async def test_somebody_elses_is_like_none(self, adapters: Adapters) -> None:
        ann, bob = await adapters.user(), await adapters.user()
        bobs, now = await adapters.session(bob), adapters.clock.now()
        for session_id in (bobs.id, SessionId(adapters.ids.new())):
            with pytest.raises(SessionNotFound):
                await adapters.sessions.end(session_id, ann.id, now=now)
        assert await adapters.sessions.find_user(bobs.id) == bob

    async def test_of_many_at_once_one_ends_it(self, adapters: Adapters) -> None:
        ann = await adapters.user()
        session, now = await adapters.session(ann), adapters.clock.now()
        calls = [adapters.sessions.end(session.id, ann.id, now=now) for _ in range(20)]
        assert names(await adapters.race(*calls, rows_of="sessions")) == {"NoneType": 1, "SessionNotFound": 19}

    async def test_all_of_one_user_but_the_kept(self, adapters: Adapters) -> None:
        ann, bob = await adapters.user(), await adapters.user()
        kept, first, second, bobs = [await adapters.session(user) for user in (ann, ann, ann, bob)]
        await adapters.sessions.end_all(ann.id, now=adapters.clock.now(), keep=kept.id)
        found = [await adapters.sessions.find_user(session.id) for session in (kept, first, second, bobs)]
        assert found == [ann, None, None, bob]
        for session in (first, second):
            await refused(Family(adapters, session), session.id.bytes, adapters.clock.now())
        assert await Family(adapters, kept).rotate(kept.id.bytes, adapters.clock.now())

    async def test_all(self, adapters: Adapters) -> None:
        ann = await adapters.user()
        sessions = [await adapters.session(ann) for _ in range(3)]
        await adapters.sessions.end_all(ann.id, now=adapters.clock.now())
        assert [await adapters.sessions.find_user(session.id) for session in sessions] == [None] * 3

    async def test_a_rolled_back_end_ends_nothing(self, adapters: Adapters) -> None:
        ann = await adapters.user()
        session = await adapters.session(ann)
        async with adapters.rolled_back():
            await adapters.sessions.end_all(ann.id, now=adapters.clock.now())
            with pytest.raises(SessionNotFound):
                await adapters.sessions.end(session.id, ann.id, now=adapters.clock.now())
        assert await adapters.sessions.find_user(session.id) == ann

    async def test_purge_removes_what_is_over(self, adapters: Adapters) -> None:
        ann = await adapters.user()
        now = adapters.clock.now()
        ended = await adapters.session(ann)
        await adapters.sessions.end(ended.id, ann.id, now=now)
        idle, expired, alive = [
            await adapters.session(ann, age=age)
            for age in (SESSION_IDLE + timedelta(minutes=2), SESSION_LIFETIME, SESSION_IDLE - timedelta(minutes=2))
        ]
        now += timedelta(minutes=1)
        await adapters.sessions.purge(now=now)
        assert await adapters.sessions.find_user(alive.id) == ann
        for session in (ended, idle, expired):
            assert await adapters.sessions.find_user(session.id) is None
            await adapters.sessions.add(session, session.id.bytes, b"device")  # free: it was not ended but removed


async def logs_in(adapters: Adapters, user: User, device: bytes, *, age: timedelta = timedelta()) -> Session:
    session = adapters.new_session(user, age=age)
    await adapters.sessions.add(session, session.id.bytes, device)
    return session


async def standing(adapters: Adapters, user: User, device: bytes | None, *, later: timedelta = timedelta()) -> Standing:
    return await adapters.sessions.standing(user.mobile, device, now=adapters.clock.now() + later)


class TestKnownDevices:
    async def test_are_those_that_have_logged_in(self, adapters: Adapters) -> None:
        ann, bob = await adapters.user(), await adapters.user()
        assert await standing(adapters, ann, b"phone") is Standing.FIRST
        await logs_in(adapters, ann, b"phone")
        assert await standing(adapters, ann, b"phone") is Standing.KNOWN
        for device in (b"laptop", None):
            assert await standing(adapters, ann, device) is Standing.STRANGE
        assert await standing(adapters, bob, b"phone") is Standing.FIRST
        assert await standing(adapters, adapters.new_user(), b"phone") is Standing.FIRST

    async def test_one_that_is_known_to_somebody_else_stays_theirs(self, adapters: Adapters) -> None:
        ann, bob = await adapters.user(), await adapters.user()
        await logs_in(adapters, ann, b"phone")
        await logs_in(adapters, bob, b"phone")
        assert await standing(adapters, ann, b"phone") is Standing.KNOWN
        assert await standing(adapters, bob, b"phone") is Standing.FIRST

    async def test_are_kept_for_long_after_their_last_login(self, adapters: Adapters) -> None:
        ann = await adapters.user()
        await logs_in(adapters, ann, b"phone", age=DEVICE_RETENTION - timedelta(hours=1))
        assert await standing(adapters, ann, b"phone") is Standing.KNOWN
        assert await standing(adapters, ann, b"phone", later=timedelta(hours=2)) is Standing.FIRST
        await adapters.sessions.purge(now=adapters.clock.now())
        assert await standing(adapters, ann, b"phone") is Standing.KNOWN, "though its session is gone"
        await adapters.sessions.purge(now=adapters.clock.now() + timedelta(hours=2))
        assert await standing(adapters, ann, b"phone") is Standing.FIRST

    async def test_a_session_that_is_ended_from_elsewhere_takes_its_device_along(self, adapters: Adapters) -> None:
        ann, now = await adapters.user(), adapters.clock.now()
        phone, laptop = await logs_in(adapters, ann, b"phone"), await logs_in(adapters, ann, b"laptop")
        await adapters.sessions.end(phone.id, ann.id, now=now)
        assert await standing(adapters, ann, b"phone") is Standing.KNOWN
        await adapters.sessions.end(laptop.id, ann.id, now=now, forget_device=True)
        assert await standing(adapters, ann, b"laptop") is Standing.STRANGE
        assert await standing(adapters, ann, b"phone") is Standing.KNOWN

    async def test_nobody_else_makes_it_strange(self, adapters: Adapters) -> None:
        ann, bob, now = await adapters.user(), await adapters.user(), adapters.clock.now()
        phone = await logs_in(adapters, ann, b"phone")
        with pytest.raises(SessionNotFound):
            await adapters.sessions.end(phone.id, bob.id, now=now, forget_device=True)
        await adapters.sessions.end_all(bob.id, now=now)
        assert await standing(adapters, ann, b"phone") is Standing.KNOWN

    async def test_the_end_of_all_leaves_the_one_that_is_kept(self, adapters: Adapters) -> None:
        ann, now = await adapters.user(), adapters.clock.now()
        await logs_in(adapters, ann, b"phone")
        kept = await logs_in(adapters, ann, b"laptop")
        await adapters.sessions.end_all(ann.id, now=now, keep=kept.id)
        assert await standing(adapters, ann, b"phone") is Standing.STRANGE
        assert await standing(adapters, ann, b"laptop") is Standing.KNOWN
        await adapters.sessions.end_all(ann.id, now=now)
        assert await standing(adapters, ann, b"laptop") is Standing.FIRST

    async def test_an_account_knows_its_latest(self, adapters: Adapters) -> None:
        ann = await adapters.user()
        for number in range(MAX_KNOWN_DEVICES + 1):
            await logs_in(adapters, ann, b"%d" % number, age=timedelta(hours=100 - number))
        assert await standing(adapters, ann, b"0") is Standing.STRANGE
        for number in range(1, MAX_KNOWN_DEVICES + 1):
            assert await standing(adapters, ann, b"%d" % number) is Standing.KNOWN
        await logs_in(adapters, ann, b"1")
        await logs_in(adapters, ann, b"new")
        assert await standing(adapters, ann, b"1") is Standing.KNOWN, "it was seen again"
        assert await standing(adapters, ann, b"2") is Standing.STRANGE

    async def test_of_many_logins_at_once_each_makes_its_device_known(self, adapters: Adapters) -> None:
        ann = await adapters.user()
        calls = [logs_in(adapters, ann, b"%d" % (number % 5)) for number in range(20)]
        assert names(await adapters.race(*calls, table="known_devices")) == {"Session": 20}
        for number in range(5):
            assert await standing(adapters, ann, b"%d" % number) is Standing.KNOWN

    async def test_a_login_that_is_rolled_back_makes_nothing_known(self, adapters: Adapters) -> None:
        ann = await adapters.user(password_hash="hash")
        async with adapters.rolled_back():
            await logs_in(adapters, ann, b"phone")
            session = adapters.new_session(ann)
            assert await adapters.sessions.add_by_password(session, session.id.bytes, b"laptop", "hash")
        assert await standing(adapters, ann, b"phone") is Standing.FIRST
        refused = adapters.new_session(ann)
        assert not await adapters.sessions.add_by_password(refused, refused.id.bytes, b"laptop", "another")
        assert await standing(adapters, ann, b"laptop") is Standing.FIRST

    async def test_an_end_that_is_rolled_back_forgets_nothing(self, adapters: Adapters) -> None:
        ann, now = await adapters.user(), adapters.clock.now()
        phone = await logs_in(adapters, ann, b"phone")
        async with adapters.rolled_back():
            await adapters.sessions.end(phone.id, ann.id, now=now, forget_device=True)
            await adapters.sessions.end_all(ann.id, now=now)
        assert await standing(adapters, ann, b"phone") is Standing.KNOWN


async def test_of_several_tokens_the_unspent_one_is_found(adapters: Adapters) -> None:
    one = await family(adapters)
    now, token = one.session.created_at, one.first
    for _ in range(3):
        await one.rotate(token, now)
        token = one.next_of(token)
    spent = [one.first, one.next_of(one.first), b"never given"]
    assert await adapters.sessions.unspent(spent) is None
    assert await adapters.sessions.unspent([]) is None
    for order in (1, -1):
        assert await adapters.sessions.unspent([*spent, token][::order]) == token
    assert await one.is_alive()
