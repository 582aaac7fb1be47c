"""What IdempotencyKeys promises: a request that is repeated takes effect once, and its reply is kept."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from uuid import UUID

import pytest

from application.ports.runtime import StartedRequest, StoredReply
from domain.errors import IdempotencyKeyInUse, IdempotencyKeyReused
from tests.contracts.conftest import Adapters

SCOPE, KEY = "POST /chatroom of somebody", "a key of the client's: 🌻 '\";--"
BODY = b"\x00\xff" * 16
BUSY = timedelta(seconds=30)
REPLY = StoredReply(201, '{"message": "ünï 🌻"}\r\n\0'.encode() + bytes(range(256)))
DAY = 24 * 3600


async def begin(
    adapters: Adapters, body: bytes = BODY, *, scope: str = SCOPE, key: str = KEY, new_id: UUID | None = None
) -> UUID | StoredReply:
    """The id to create with, or the reply."""
    begun = await adapters.keys.begin(scope, key, body, new_id=new_id or adapters.ids.new(), busy_for=BUSY)
    return begun.resource_id if isinstance(begun, StartedRequest) else begun


async def in_use(adapters: Adapters) -> bool:
    try:
        return not await begin(adapters)
    except IdempotencyKeyInUse as error:
        return error.retry_after > 0


class TestBegin:
    async def test_gives_the_first_its_id(self, adapters: Adapters) -> None:
        new_id = adapters.ids.new()
        assert await begin(adapters, new_id=new_id) == new_id

    async def test_is_refused_while_the_first_is_busy(self, adapters: Adapters) -> None:
        await begin(adapters)
        await adapters.wait(29)
        assert await in_use(adapters)

    async def test_another_body_is_refused_busy_lapsed_or_finished(self, adapters: Adapters) -> None:
        own = await begin(adapters)
        for seconds in (0, 31):
            await adapters.wait(seconds)
            with pytest.raises(IdempotencyKeyReused):
                await begin(adapters, b"another")
        assert await begin(adapters) == own, "what was refused has changed nothing"
        await adapters.keys.finish(SCOPE, KEY, REPLY)
        with pytest.raises(IdempotencyKeyReused):
            await begin(adapters, b"another")
        assert await begin(adapters) == REPLY

    async def test_whoever_never_came_back_leaves_the_id_to_the_next(self, adapters: Adapters) -> None:
        own = await begin(adapters)
        for _ in range(3):
            await adapters.wait(31)
            assert await begin(adapters) == own
            assert await in_use(adapters), "and the next is busy in turn"

    async def test_scopes_and_keys_are_apart(self, adapters: Adapters) -> None:
        ids = [adapters.ids.new() for _ in range(4)]
        pairs = [(SCOPE, KEY), (SCOPE, KEY + "2"), (SCOPE + "2", KEY), (KEY, SCOPE)]
        for (scope, key), new_id in zip(pairs, ids, strict=True):
            assert await begin(adapters, scope=scope, key=key, new_id=new_id) == new_id
        await adapters.keys.finish(SCOPE, KEY, REPLY)
        with pytest.raises(IdempotencyKeyInUse):
            await begin(adapters, scope=SCOPE, key=KEY + "2")

    async def test_takes_the_longest_key_that_is_allowed(self, adapters: Adapters) -> None:
        assert isinstance(await begin(adapters, key="k" * 255), UUID)

    async def test_of_many_at_once_one_begins(self, adapters: Adapters) -> None:
        ids = [adapters.ids.new() for _ in range(20)]
        results = await adapters.race(*(begin(adapters, new_id=id) for id in ids), table="idempotency_keys")
        assert Counter(map(type, results)) == {UUID: 1, IdempotencyKeyInUse: 19}
        [winner] = set(results) & set(ids)
        await adapters.wait(31)
        assert await begin(adapters) == winner

    async def test_of_many_at_once_one_takes_over(self, adapters: Adapters) -> None:
        own = await begin(adapters)
        await adapters.wait(31)
        results = await adapters.race(*(begin(adapters) for _ in range(20)), rows_of="idempotency_keys")
        assert Counter(map(type, results)) == {UUID: 1, IdempotencyKeyInUse: 19}
        assert own in results

    async def test_of_many_at_once_one_begins_anew_after_a_day(self, adapters: Adapters) -> None:
        await begin(adapters)
        await adapters.keys.finish(SCOPE, KEY, REPLY)
        await adapters.wait(DAY + 1)
        ids = [adapters.ids.new() for _ in range(20)]
        results = await adapters.race(*(begin(adapters, new_id=id) for id in ids), rows_of="idempotency_keys")
        assert Counter(map(type, results)) == {UUID: 1, IdempotencyKeyInUse: 19}
        assert len(set(results) & set(ids)) == 1

    async def test_different_bodies_at_once(self, adapters: Adapters) -> None:
        bodies = [bytes([number % 2]) for number in range(20)]
        results = await adapters.race(*(begin(adapters, body) for body in bodies), table="idempotency_keys")
        assert Counter(map(type, results)) == {UUID: 1, IdempotencyKeyInUse: 9, IdempotencyKeyReused: 10}

    async def test_rolled_back_is_none(self, adapters: Adapters) -> None:
        async with adapters.rolled_back():
            await begin(adapters)
        new_id = adapters.ids.new()
        assert await begin(adapters, new_id=new_id) == new_id


class TestFinish:
    async def test_replays_byte_for_byte_for_a_day(self, adapters: Adapters) -> None:
        await begin(adapters)
        await adapters.keys.finish(SCOPE, KEY, REPLY)
        for seconds in (0, 31, DAY - 60):
            await adapters.wait(seconds)
            assert await begin(adapters) == REPLY

    @pytest.mark.parametrize("reply", [StoredReply(404, b""), StoredReply(200, b"x" * 200_000)], ids=["none", "long"])
    async def test_keeps_any_reply(self, adapters: Adapters, reply: StoredReply) -> None:
        await begin(adapters)
        await adapters.keys.finish(SCOPE, KEY, reply)
        assert await begin(adapters) == reply

    async def test_for_many_at_once(self, adapters: Adapters) -> None:
        await begin(adapters)
        results = await adapters.race(
            adapters.keys.finish(SCOPE, KEY, REPLY),
            *(begin(adapters) for _ in range(19)),
            rows_of="idempotency_keys",
        )
        replies = results.count(REPLY)
        assert Counter(map(type, results[1:]))[IdempotencyKeyInUse] == 19 - replies
        assert await begin(adapters) == REPLY

    async def test_the_first_reply_stays(self, adapters: Adapters) -> None:
        await begin(adapters)
        await adapters.wait(31)
        await begin(adapters)  # a slow caller and the next one both finish
        await adapters.keys.finish(SCOPE, KEY, REPLY)
        await adapters.keys.finish(SCOPE, KEY, StoredReply(404, b"second"))
        assert await begin(adapters) == REPLY

    async def test_of_many_replies_at_once_one_stays(self, adapters: Adapters) -> None:
        await begin(adapters)
        replies = [StoredReply(201, b"%d" % number) for number in range(10)]
        await adapters.race(*(adapters.keys.finish(SCOPE, KEY, reply) for reply in replies), rows_of="idempotency_keys")
        kept = await begin(adapters)
        assert kept in replies
        await adapters.keys.finish(SCOPE, KEY, REPLY)
        assert await begin(adapters) == kept

    async def test_of_what_is_not_there_is_no_error(self, adapters: Adapters) -> None:
        await adapters.keys.finish(SCOPE, KEY, REPLY)
        assert isinstance(await begin(adapters), UUID)

    async def test_rolled_back_is_none(self, adapters: Adapters) -> None:
        await begin(adapters)
        async with adapters.rolled_back():
            await adapters.keys.finish(SCOPE, KEY, REPLY)
        assert await in_use(adapters)


class TestAbandon:
    async def test_is_free_at_once_with_the_same_id(self, adapters: Adapters) -> None:
        own = await begin(adapters)
        for _ in range(3):
            await adapters.keys.abandon(SCOPE, KEY)
            assert await begin(adapters) == own
            assert await in_use(adapters), "and the next is busy in turn"

    async def test_another_body_is_refused_as_ever(self, adapters: Adapters) -> None:
        own = await begin(adapters)
        await adapters.keys.abandon(SCOPE, KEY)
        with pytest.raises(IdempotencyKeyReused):
            await begin(adapters, b"another")
        assert await begin(adapters) == own, "what was refused has changed nothing"

    async def test_of_many_at_once_one_begins_again(self, adapters: Adapters) -> None:
        own = await begin(adapters)
        await adapters.keys.abandon(SCOPE, KEY)
        results = await adapters.race(*(begin(adapters) for _ in range(20)), rows_of="idempotency_keys")
        assert Counter(map(type, results)) == {UUID: 1, IdempotencyKeyInUse: 19}
        assert own in results

    async def test_does_not_forget_a_reply(self, adapters: Adapters) -> None:
        await begin(adapters)
        await adapters.keys.finish(SCOPE, KEY, REPLY)
        await adapters.keys.abandon(SCOPE, KEY)
        assert await begin(adapters) == REPLY

    async def test_of_what_is_not_there_is_no_error(self, adapters: Adapters) -> None:
        await adapters.keys.abandon(SCOPE, KEY)

    async def test_while_many_ask(self, adapters: Adapters) -> None:
        await begin(adapters)
        results = await adapters.race(
            adapters.keys.abandon(SCOPE, KEY),
            *(begin(adapters) for _ in range(19)),
            rows_of="idempotency_keys",
        )
        begun = Counter(map(type, results[1:]))
        assert begun[UUID] <= 1
        assert begun[UUID] + begun[IdempotencyKeyInUse] == 19

    async def test_rolled_back_is_none(self, adapters: Adapters) -> None:
        await begin(adapters)
        async with adapters.rolled_back():
            await adapters.keys.abandon(SCOPE, KEY)
        assert await in_use(adapters)


class TestForget:
    async def test_the_key_is_as_good_as_new(self, adapters: Adapters) -> None:
        own = await begin(adapters)
        await adapters.keys.forget(SCOPE, KEY)
        new_id = adapters.ids.new()
        assert await begin(adapters, b"another", new_id=new_id) == new_id != own

    async def test_does_not_forget_a_reply(self, adapters: Adapters) -> None:
        await begin(adapters)
        await adapters.keys.finish(SCOPE, KEY, REPLY)
        await adapters.keys.forget(SCOPE, KEY)
        assert await begin(adapters) == REPLY

    async def test_of_what_is_not_there_is_no_error(self, adapters: Adapters) -> None:
        await adapters.keys.forget(SCOPE, KEY)

    async def test_other_scopes_and_keys_keep_theirs(self, adapters: Adapters) -> None:
        pairs = [(SCOPE, KEY + "2"), (SCOPE + "2", KEY)]
        for scope, key in pairs:
            await begin(adapters, scope=scope, key=key)
        await adapters.keys.forget(SCOPE, KEY)
        for scope, key in pairs:
            with pytest.raises(IdempotencyKeyInUse):
                await begin(adapters, scope=scope, key=key)

    async def test_while_many_ask_one_begins(self, adapters: Adapters) -> None:
        await begin(adapters)
        results = await adapters.race(
            adapters.keys.forget(SCOPE, KEY),
            *(begin(adapters) for _ in range(19)),
            rows_of="idempotency_keys",
        )
        begun = Counter(map(type, results[1:]))
        assert begun[UUID] <= 1
        assert begun[UUID] + begun[IdempotencyKeyInUse] == 19

    async def test_rolled_back_is_none(self, adapters: Adapters) -> None:
        await begin(adapters)
        async with adapters.rolled_back():
            await adapters.keys.forget(SCOPE, KEY)
        assert await in_use(adapters)


class TestADayLater:
    @pytest.mark.parametrize("finished", [True, False])
    async def test_the_key_is_new(self, adapters: Adapters, finished: bool) -> None:
        await begin(adapters)
        if finished:
            await adapters.keys.finish(SCOPE, KEY, REPLY)
        await adapters.wait(DAY + 1)
        new_id = adapters.ids.new()
        assert await begin(adapters, b"another", new_id=new_id) == new_id
        with pytest.raises(IdempotencyKeyReused):
            await begin(adapters)
        await adapters.wait(DAY - 60)
        assert await begin(adapters, b"another") == new_id, "a day from the second beginning"

    async def test_purge_removes_what_is_old_and_nothing_else(self, adapters: Adapters) -> None:
        await begin(adapters, key="old and finished")
        await adapters.keys.finish(SCOPE, "old and finished", REPLY)
        await begin(adapters, key="old")
        await adapters.wait(DAY - 60)
        await begin(adapters)
        await adapters.keys.finish(SCOPE, KEY, REPLY)
        await adapters.wait(61)
        await adapters.keys.purge()
        assert await begin(adapters) == REPLY
        for key in ("old", "old and finished"):
            new_id = adapters.ids.new()
            assert await begin(adapters, b"another", key=key, new_id=new_id) == new_id


class TestTrim:
    async def test_the_newest_stay_and_so_do_those_that_run(self, adapters: Adapters) -> None:
        ids = {}
        for number in range(6):
            scope = f"user call{number % 2}"
            ids[number] = await begin(adapters, scope=scope, key=f"key {number}")
            if number not in (0, 1):
                await adapters.keys.finish(scope, f"key {number}", REPLY)
            await adapters.wait(1)
        await begin(adapters, scope="somebody else", key="theirs")
        await adapters.keys.finish("somebody else", "theirs", REPLY)
        await adapters.keys.trim(["user call0", "user call1", "user call2"], keep=2)
        replayed = [await begin(adapters, scope=f"user call{n % 2}", key=f"key {n}") == REPLY for n in (2, 3, 4, 5)]
        assert replayed == [False, False, True, True]
        for number in (0, 1):
            with pytest.raises(IdempotencyKeyInUse):
                await begin(adapters, scope=f"user call{number}", key=f"key {number}")
        assert await begin(adapters, scope="somebody else", key="theirs") == REPLY

    async def test_a_request_that_never_came_back_is_no_reason_to_stay(self, adapters: Adapters) -> None:
        first = await begin(adapters)
        await adapters.wait(31)
        await adapters.keys.trim([SCOPE], keep=0)
        assert await begin(adapters, b"another") != first

    async def test_rolled_back_they_stay(self, adapters: Adapters) -> None:
        await begin(adapters)
        await adapters.keys.finish(SCOPE, KEY, REPLY)
        async with adapters.rolled_back():
            await adapters.keys.trim([SCOPE], keep=0)
        assert await begin(adapters) == REPLY
