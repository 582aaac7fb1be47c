"""Keeping a session alive, the devices that are signed in, and who a request comes from."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from application.accounts.sessions import Caller, SignedIn
from domain.accounts import MAX_DEVICE_CHARACTERS, SESSION_IDLE, SESSION_LIFETIME, Device, Session, User
from domain.errors import RefreshTokenInvalid, SessionNotFound, TokenExpired, TokenInvalid
from domain.ids import SessionId, UserId
from tests.unit.conftest import ANN, World
from tests.unit.signing_in import PHONE, UNKNOWN, caller_of, code_for, is_alive, log_in_by_code

MOMENT = timedelta(milliseconds=1)


async def signed_in(world: World) -> SignedIn:
    await world.user()
    return await log_in_by_code(world)


async def refreshed(world: World, refresh_token: str) -> SignedIn:
    return await world.container.refresh_session()(refresh_token=refresh_token)


async def another_device(world: World, device: Device = PHONE) -> Caller:
    verify_otp = world.container.verify_otp()
    return await caller_of(world, await verify_otp(mobile=ANN, code=await code_for(world), device=device))


class TestRefreshSession:
    async def test_gives_a_new_pair_for_the_same_session(self, world: World) -> None:
        first = await signed_in(world)
        world.clock.move(timedelta(minutes=59))
        second = await refreshed(world, first.refresh_token)
        assert second.refresh_token != first.refresh_token
        assert second.access.token != first.access.token
        assert second.access.expires_in == 3600
        assert await caller_of(world, second) == await caller_of(world, first)
        world.clock.move(timedelta(minutes=59))
        assert (await caller_of(world, second)).user == second.user == first.user
        with pytest.raises(TokenExpired):
            await caller_of(world, first)

    async def test_sees_the_user_as_stored_now(self, world: World) -> None:
        first = await signed_in(world)
        await world.container.rename_user()(user=first.user, name="Anna")
        assert (await refreshed(world, first.refresh_token)).user.name == "Anna"

    async def test_an_answer_that_was_lost_is_given_again(self, world: World) -> None:
        first = await signed_in(world)
        answers = [await refreshed(world, first.refresh_token)]
        world.clock.move(timedelta(days=6))
        answers.append(await refreshed(world, first.refresh_token))
        assert answers[0].refresh_token == answers[1].refresh_token
        third = await refreshed(world, answers[1].refresh_token)
        assert await is_alive(world, third)

    async def test_two_hundred_at_once_get_the_same_next(self, world: World) -> None:
        first = await signed_in(world)
        answers = await asyncio.gather(*(refreshed(world, first.refresh_token) for _ in range(200)))
        assert len({answer.refresh_token for answer in answers}) == 1
        assert len(world.sessions.table.all()) == 1
        await refreshed(world, answers[0].refresh_token)

    async def test_a_spent_one_that_comes_late_signs_out_who_stole_it_and_whose_it_was(self, world: World) -> None:
        first = await signed_in(world)
        second = await refreshed(world, first.refresh_token)
        third = await refreshed(world, second.refresh_token)
        with pytest.raises(RefreshTokenInvalid):
            await refreshed(world, first.refresh_token)
        for answer in (first, second, third):
            assert not await is_alive(world, answer)
            with pytest.raises(RefreshTokenInvalid):
                await refreshed(world, answer.refresh_token)

    @pytest.mark.parametrize("token", ["", "x", "🌻", "\udcff", "x" * 128])
    async def test_what_was_never_given_is_refused(self, world: World, token: str) -> None:
        await signed_in(world)
        with pytest.raises(RefreshTokenInvalid):
            await refreshed(world, token)

    async def test_left_alone_for_a_week_or_after_a_month_it_is_over(self, world: World) -> None:
        first = await signed_in(world)
        world.clock.move(SESSION_IDLE)
        with pytest.raises(RefreshTokenInvalid):
            await refreshed(world, first.refresh_token)

        again = await log_in_by_code(world)
        begun = world.clock.now()
        while world.clock.now() + timedelta(days=6) < begun + SESSION_LIFETIME:
            world.clock.move(timedelta(days=6))
            again = await refreshed(world, again.refresh_token)
        world.clock.move(begun + SESSION_LIFETIME - world.clock.now() - MOMENT)
        again = await refreshed(world, again.refresh_token)
        world.clock.move(MOMENT)
        with pytest.raises(RefreshTokenInvalid):
            await refreshed(world, again.refresh_token)

    async def test_a_session_that_ends_in_this_very_moment_is_refused(self, world: World) -> None:
        first = await signed_in(world)
        caller = await caller_of(world, first)

        class EndedMeanwhile(type(world.sessions)):  # type: ignore[misc]
            async def rotate(self, *arguments: object, **more: object) -> Session:
                session: Session = await world.sessions.rotate(*arguments, **more)  # type: ignore[arg-type]
                await world.container.end_session()(caller=caller)
                return session

            async def find_user(self, session_id: SessionId) -> User | None:
                return await world.sessions.find_user(session_id)

        refresh = replace(world.container.refresh_session(), sessions=EndedMeanwhile(world.users))
        with pytest.raises(RefreshTokenInvalid):
            await refresh(refresh_token=first.refresh_token)


class TestDevices:
    async def test_are_listed_the_one_seen_last_first(self, world: World) -> None:
        await world.user()
        laptop = await another_device(world, Device("A laptop", "2001:db8:1::/48"))
        world.clock.move(timedelta(minutes=1))
        await another_device(world)
        found = await world.container.list_sessions()(caller=laptop)
        assert [(one.device, one.network) for one in found] == [
            ("A phone", "203.0.113.0/24"),
            ("A laptop", "2001:db8:1::/48"),
        ]
        assert found[1].id == laptop.session_id
        await world.user(UNKNOWN)
        others = await world.container.verify_otp()(
            mobile=UNKNOWN, code=await code_for(world, mobile=UNKNOWN), device=PHONE
        )
        assert len(await world.container.list_sessions()(caller=await caller_of(world, others))) == 1

    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ("", ""),
            ("Mozilla/5.0 (X11) 🌻", "Mozilla/5.0 (X11) 🌻"),
            ("x" * 10_000, "x" * MAX_DEVICE_CHARACTERS),
            ("a\0b\r\nc\ud83d\x1b[31m\u202e", "abc[31m"),
        ],
    )
    async def test_are_named_by_what_can_be_stored_and_shown(self, world: World, given: str, kept: str) -> None:
        await world.user()
        caller = await another_device(world, Device(given, ""))
        [found] = await world.container.list_sessions()(caller=caller)
        assert found.device == kept

    async def test_this_one_is_signed_out(self, world: World) -> None:
        await world.user()
        mine, other = await another_device(world), await another_device(world)
        await world.container.end_session()(caller=mine)
        assert [one.id for one in await world.container.list_sessions()(caller=other)] == [other.session_id]
        with pytest.raises(SessionNotFound):
            await world.container.end_session()(caller=mine)

    async def test_another_one_is_signed_out(self, world: World) -> None:
        await world.user()
        mine, other = await another_device(world), await another_device(world)
        await world.container.end_session()(caller=mine, session_id=other.session_id)
        assert [one.id for one in await world.container.list_sessions()(caller=mine)] == [mine.session_id]

    async def test_somebody_elses_is_as_if_it_were_not_there(self, world: World) -> None:
        await world.user()
        mine = await another_device(world)
        await world.user(UNKNOWN)
        theirs = await world.container.verify_otp()(
            mobile=UNKNOWN, code=await code_for(world, mobile=UNKNOWN), device=PHONE
        )
        refusals = []
        for session_id in ((await caller_of(world, theirs)).session_id, SessionId(uuid4())):
            with pytest.raises(SessionNotFound) as refused:
                await world.container.end_session()(caller=mine, session_id=session_id)
            refusals.append(str(refused.value))
        assert refusals[0] == refusals[1]
        assert await is_alive(world, theirs)

    async def test_all_others_are_signed_out(self, world: World) -> None:
        await world.user()
        mine, *_ = [await another_device(world) for _ in range(4)]
        await world.container.end_other_sessions()(caller=mine)
        assert [one.id for one in await world.container.list_sessions()(caller=mine)] == [mine.session_id]


class TestAuthenticate:
    async def test_sees_the_user_as_stored_now(self, world: World) -> None:
        user = await world.user()
        signed_in = await log_in_by_code(world)
        await world.room(user)
        assert (await caller_of(world, signed_in)).user == replace(user, chatrooms_version=1)

    async def test_an_expired_token(self, world: World) -> None:
        await world.user()
        signed_in = await log_in_by_code(world)
        world.clock.move(timedelta(seconds=3605))
        await caller_of(world, signed_in)
        world.clock.move(timedelta(seconds=1))
        with pytest.raises(TokenExpired):
            await caller_of(world, signed_in)

    async def test_a_session_that_is_not_there_or_somebody_elses(self, world: World) -> None:
        await world.user()
        caller = await caller_of(world, await log_in_by_code(world))
        tokens, now = world.container.access_tokens(), world.clock.now()
        for session in (
            Session.begin(SessionId(uuid4()), caller.user.id, PHONE, now),
            Session.begin(caller.session_id, UserId(uuid4()), PHONE, now),
        ):
            with pytest.raises(TokenInvalid):
                await world.container.authenticate()(token=tokens.issue(session).token)

    async def test_an_ended_session_and_a_deleted_user_are_nobody(self, world: World) -> None:
        await world.user()
        mine, other = await log_in_by_code(world), await log_in_by_code(world)
        await world.container.end_session()(caller=await caller_of(world, mine))
        assert (await is_alive(world, mine), await is_alive(world, other)) == (False, True)
        await world.container.delete_user().delete(other.user)
        assert not await is_alive(world, other)
