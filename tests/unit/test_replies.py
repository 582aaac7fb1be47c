"""Answering a message: what may go wrong on the way, and that it always ends in a named state."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from uuid import UUID, uuid4

import pytest

from adapters.memory.chat import MemoryMessages
from adapters.memory.language_model import Line, ScriptedLanguageModel, ScriptedReply
from application.ports.chat import ModelBudget
from domain.chat.calls import ModelCall, ThinkingLevel, TokenUsage
from domain.chat.chatrooms import Chatroom
from domain.chat.conversation import Context, Conversation, ReplyChunk, Role, Turn
from domain.chat.messages import Message, MessageStatus, Outcome
from domain.chat.queue import Worker
from domain.errors import (
    DatabaseUnavailable,
    ModelDeferred,
    ModelError,
    ModelOverloaded,
    ModelQuotaExhausted,
    ModelRateLimited,
    ModelRejectedRequest,
    ModelTimedOut,
    ModelUnavailable,
    ReplyBlocked,
    ReplyEmpty,
)
from domain.ids import MessageId, UserId
from tests.support.patience import HANG
from tests.support.virtual_time import virtual_time
from tests.support.workers import claim
from tests.unit.conftest import World

QUEUED, GENERATING = MessageStatus.QUEUED, MessageStatus.GENERATING
COMPLETED, FAILED = MessageStatus.COMPLETED, MessageStatus.FAILED
BLOCKED, CANCELLED = MessageStatus.BLOCKED, MessageStatus.CANCELLED
HANGS = ScriptedReply(pieces=("Half a",), finish_reason=None)
SILENT = ScriptedReply(pieces=(), finish_reason=None)


class AwayTwice(MemoryMessages):
    """The database is unavailable the first two times that this verb is tried."""

    verb = ""
    away = 2

    def try_(self, verb: str) -> None:
        if verb == self.verb and self.away:
            self.away -= 1
            raise DatabaseUnavailable

    async def context(self, message: Message, *, limit: int) -> Context:
        self.try_("context")
        return await super().context(message, limit=limit)

    async def finish(
        self, message_id: MessageId, attempt: int, outcome: Outcome, *, call: ModelCall | None = None
    ) -> bool:
        self.try_("finish")
        return await super().finish(message_id, attempt, outcome, call=call)

    async def retry(
        self, message_id: MessageId, attempt: int, *, delay: timedelta, call: ModelCall | None = None
    ) -> bool:
        self.try_("retry")
        return await super().retry(message_id, attempt, delay=delay, call=call)

    async def release(
        self, message_id: MessageId, attempt: int, *, delay: timedelta = timedelta(), call: ModelCall | None = None
    ) -> bool:
        self.try_("release")
        return await super().release(message_id, attempt, delay=delay, call=call)


def away_twice(at: str) -> type[AwayTwice]:
    class AwayTwiceAt(AwayTwice):
        verb = at

    return AwayTwiceAt


async def answer(world: World, message: Message) -> MessageStatus | None:
    return await world.container.generate_reply()(message_id=message.id)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANG):
        while not condition():  # noqa: ASYNC110 - no event to wait on
            await asyncio.sleep(0)


@asynccontextmanager
async def answering(world: World, message: Message) -> AsyncIterator[asyncio.Task[MessageStatus | None]]:
    """A task that is in the middle of the model's reply."""
    task = asyncio.create_task(answer(world, message))
    await until(lambda: world.model.open == 1)
    yield task
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


class TestCompletes:
    async def test_stores_the_reply_its_reason_and_its_usage(self, world: World) -> None:
        world.model.add(ScriptedReply(pieces=("Rayleigh ", "scat", "tering."), finish_reason="MAX_TOKENS"))
        message = await world.sent("Why is the sky blue?")
        world.clock.move(timedelta(seconds=2))
        assert await answer(world, message) is COMPLETED
        assert await world.stored(message) == replace(
            message,
            status=COMPLETED,
            attempt=1,
            response="Rayleigh scattering.",
            finish_reason="MAX_TOKENS",
            input_tokens=5,
            cached_tokens=0,
            output_tokens=5,
            thought_tokens=0,
            completed_at=world.clock.now(),
        )
        assert (world.model.open, world.model.left) == (0, 0)
        assert await world.used(message) == 1

    async def test_asks_with_the_conversation_so_far(self, world: World) -> None:
        room = await world.room()
        world.model.add("Hello, Ann.", ReplyBlocked("SAFETY"), "Physics.")
        sent = [await world.sent(text, room) for text in ("I am Ann.", "Something bad.", "What is my subject?")]
        for message in sent:
            await answer(world, message)
        assert world.model.asked[-1] == Conversation(
            (
                Turn(Role.USER, "I am Ann."),
                Turn(Role.MODEL, "Hello, Ann."),
                Turn(Role.USER, "What is my subject?"),
            ),
            max_output_tokens=4_096,
            thinking=ThinkingLevel.LOW,
            thought_tokens=8_192,
            window_from=sent[0].id,
        )
        assert (await world.stored(sent[2])).window_from == sent[0].id

    async def test_of_a_long_room_the_prompt_begins_as_the_last_one_did(self) -> None:
        world = World(FREE_DAILY_MESSAGES="100")
        room = await world.room()
        for number in range(72):
            await answer(world, await world.sent(f"Message {number}", room))
        beginnings = [conversation.turns[0].text for conversation in world.model.asked]
        assert Counter(beginnings[31:71]) == {f"Message {number}": 10 for number in (10, 20, 30, 40)}

    async def test_another_rooms_words_stay_there(self, world: World) -> None:
        user = await world.user()
        for text in ("one", "other"):
            await answer(world, await world.sent(text, await world.room(user)))
        assert [len(conversation.turns) for conversation in world.model.asked] == [1, 1]

    async def test_what_no_database_can_hold_is_left_out(self, world: World) -> None:
        world.model.add("a\0b\ud83dc 🌻")
        message = await world.sent()
        await answer(world, message)
        assert (await world.stored(message)).response == "ab?c 🌻"

    async def test_a_job_that_comes_twice_is_done_once(self, world: World) -> None:
        message = await world.sent()
        results = await asyncio.gather(*(answer(world, message) for _ in range(5)), return_exceptions=True)
        results.append(await answer(world, message))
        assert results.count(COMPLETED) == 1
        assert results.count(None) == 5
        assert len(world.model.asked) == 1

    async def test_a_job_for_nothing_does_nothing(self, world: World) -> None:
        assert await world.container.generate_reply()(message_id=MessageId(world.container.ids().new())) is None
        assert world.model.asked == []

    async def test_a_message_that_is_not_due_is_left_alone(self, world: World) -> None:
        message = await world.sent()
        await claim(world.messages, message.id, lease=timedelta(seconds=10))
        await world.messages.retry(message.id, 1, delay=timedelta(seconds=5))
        assert await answer(world, message) is None
        world.clock.move(timedelta(seconds=5))
        assert await answer(world, message) is COMPLETED


class TestFails:
    @pytest.mark.parametrize(
        ("error", "failures"),
        [
            (ModelUnavailable(), 1),
            (ModelTimedOut(), 1),
            (ReplyEmpty("STOP"), 1),
            (ModelRateLimited(), 0),
            (ModelOverloaded(), 0),
        ],
        ids=repr,
    )
    async def test_what_may_work_later_is_tried_later(self, world: World, error: ModelError, failures: int) -> None:
        world.model.add(error)
        message = await world.sent()
        assert await answer(world, message) is QUEUED
        assert await world.stored(message) == replace(message, attempt=1, failures=failures)
        assert await world.used(message) == 1
        world.clock.move(timedelta(seconds=2))
        assert await answer(world, message) is COMPLETED

    async def test_an_overload_of_minutes_is_waited_for(self, world: World) -> None:
        world.model.add(*[ModelOverloaded()] * 12)
        message = await world.sent()
        for _ in range(9):
            assert await answer(world, message) is QUEUED
            world.clock.move(timedelta(seconds=60))
        world.model._script.clear()  # noqa: SLF001
        assert await answer(world, message) is COMPLETED
        assert (await world.stored(message)).failures == 0

    async def test_a_timeout_is_repeated_once(self, world: World) -> None:
        world.model.add(*[ModelTimedOut()] * 3)
        message = await world.sent()
        assert await answer(world, message) is QUEUED
        world.clock.move(timedelta(seconds=60))
        assert await answer(world, message) is FAILED
        assert (await world.stored(message)).error_code == "model_timed_out"
        assert len(world.model.asked) == 2

    async def test_not_before_the_model_said(self, world: World) -> None:
        world.model.add(ModelRateLimited(retry_after=53))
        message = await world.sent()
        await answer(world, message)
        world.clock.move(timedelta(seconds=52.9))
        assert await answer(world, message) is None
        world.clock.move(timedelta(seconds=0.2))
        assert await answer(world, message) is COMPLETED

    async def test_the_fifth_failure_is_the_last_and_refunds(self, world: World) -> None:
        world.model.add(*[ModelUnavailable()] * 5)
        message = await world.sent()
        statuses = []
        for _ in range(6):
            statuses.append(await answer(world, message))
            world.clock.move(timedelta(seconds=60))
        assert statuses == [QUEUED] * 4 + [FAILED, None]
        stored = await world.stored(message)
        assert (stored.status, stored.error_code, stored.attempt) == (FAILED, "model_unavailable", 5)
        assert await world.used(message) == 0

    async def test_after_ten_minutes_there_is_no_further_try(self, world: World) -> None:
        world.model.add(ModelUnavailable())
        message = await world.sent()
        world.clock.move(timedelta(minutes=10, milliseconds=1))
        assert await answer(world, message) is FAILED

    @pytest.mark.parametrize(
        ("error", "code", "reason"),
        [
            (ModelQuotaExhausted(), "model_quota_exhausted", None),
            (ModelRejectedRequest(), "model_refused", None),
            (ReplyEmpty("MAX_TOKENS"), "reply_empty", "MAX_TOKENS"),
        ],
        ids=repr,
    )
    async def test_what_no_try_will_help_fails_and_refunds(
        self, world: World, error: ModelError, code: str, reason: str | None
    ) -> None:
        world.model.add(error)
        message = await world.sent()
        assert await answer(world, message) is FAILED
        stored = await world.stored(message)
        assert (stored.status, stored.error_code, stored.finish_reason) == (FAILED, code, reason)
        assert stored.error_detail == type(error).detail
        assert (stored.response, stored.completed_at) == (None, world.clock.now())
        assert await world.used(message) == 0
        assert await answer(world, message) is None
        assert await world.used(message) == 0, "one refund"

    async def test_a_reply_without_a_word(self, world: World) -> None:
        world.model.add(*[ScriptedReply(pieces=("", ""), finish_reason="OTHER")] * 3)
        message = await world.sent()
        for status in (QUEUED, QUEUED, FAILED):
            assert await answer(world, message) is status
            world.clock.move(timedelta(seconds=1))
        assert (await world.stored(message)).error_code == "reply_empty"

    async def test_a_reply_of_white_space(self, world: World) -> None:
        world.model.add("\n \n", "Yes.")
        message = await world.sent()
        assert await answer(world, message) is QUEUED
        world.clock.move(timedelta(seconds=1))
        assert await answer(world, message) is COMPLETED
        assert (await world.stored(message)).response == "Yes."

    async def test_a_blocked_reply_is_paid_for(self, world: World) -> None:
        world.model.add(ScriptedReply(pieces=("How to ",), error=ReplyBlocked("SAFETY")))
        message = await world.sent()
        assert await answer(world, message) is BLOCKED
        stored = await world.stored(message)
        assert (stored.status, stored.finish_reason, stored.error_code) == (BLOCKED, "SAFETY", "reply_blocked")
        assert stored.response is None
        assert await world.used(message) == 1

    async def test_a_cut_stream_begins_anew(self, world: World) -> None:
        world.model.add(ScriptedReply(pieces=("Half a",), error=ModelUnavailable()), "Whole.")
        message = await world.sent()
        assert await answer(world, message) is QUEUED
        assert (await world.stored(message)).response is None
        world.clock.move(timedelta(seconds=1))
        assert await answer(world, message) is COMPLETED
        assert (await world.stored(message)).response == "Whole."

    async def test_a_defect_is_a_failure_and_no_death(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        world.model.add(ScriptedReply(error=LookupError("Why is the sky")))
        message = await world.sent("Why is the sky blue?")
        assert await answer(world, message) is QUEUED
        assert await world.stored(message) == replace(message, attempt=1, failures=1)
        assert "LookupError" in caplog.text
        assert "language_model.py" in caplog.text, "where it was"
        assert "sky" not in caplog.text, "and not what it says: that may be somebody's words"
        world.clock.move(timedelta(seconds=60))
        assert await answer(world, message) is COMPLETED

    async def test_a_defect_that_stays_ends_it_and_refunds(self, world: World) -> None:
        world.model.add(*[ScriptedReply(error=LookupError("a defect"))] * 5)
        message = await world.sent()
        statuses = []
        for _ in range(6):
            statuses.append(await answer(world, message))
            world.clock.move(timedelta(seconds=60))
        assert statuses == [QUEUED] * 4 + [FAILED, None]
        stored = await world.stored(message)
        assert (stored.error_code, stored.deaths, stored.attempt) == ("generation_failed", 0, 5)
        assert stored.error_detail == "Something went wrong on our side."
        assert await world.used(message) == 0

    async def test_a_defect_before_the_model_is_asked(self) -> None:
        class Defect(MemoryMessages):
            async def context(self, message: Message, *, limit: int) -> Context:
                raise LookupError("a defect")

        world = World(Defect)
        message = await world.sent()
        assert await answer(world, message) is QUEUED
        assert await world.stored(message) == replace(message, attempt=1, failures=1)
        assert world.model.asked == []


class TestThoughts:
    async def test_are_stored_with_the_reply(self, world: World) -> None:
        world.model.add(ScriptedReply(thoughts=("Light", " scatters."), pieces=("Rayleigh.",), seconds=0.001))
        message = await world.sent()
        assert await answer(world, message) is COMPLETED
        stored = await world.stored(message)
        assert (stored.response, stored.thoughts, stored.thought_tokens) == ("Rayleigh.", "Light scatters.", 5)
        assert stored.thinking_seconds is not None
        assert stored.thinking_seconds > 0


class TestOneUsersMessages:
    @pytest.mark.parametrize("count", [3, 10])
    @pytest.mark.parametrize(
        "bad",
        [
            ReplyEmpty("NO_CANDIDATES"),
            ReplyEmpty("STOP"),
            ModelUnavailable(),
            ModelTimedOut(),
            " \n",
        ],
        ids=["no candidates", "an empty STOP", "500", "silence", "white space"],
    )
    async def test_delay_nobody_elses(self, count: int, bad: Line) -> None:
        """Whatever becomes of them: at each moment, an innocent's message is answered at its first try."""

        def reply(conversation: Conversation) -> Line:
            return bad if conversation.turns[-1].text == "bad" else "Yes."

        world = World(FREE_DAILY_MESSAGES="100")
        world.replace(language_model=ScriptedLanguageModel(reply))
        one = await world.room()
        others = [await world.room(await world.user(f"+91987654321{number}")) for number in range(1, 5)]
        messages = [await world.sent("bad", one) for _ in range(count)]
        for _ in range(6):
            results = await asyncio.gather(*(answer(world, message) for message in messages))
            assert COMPLETED not in results
            for room in others:
                innocent = await world.sent("good", room)
                assert await answer(world, innocent) is COMPLETED
                assert (await world.stored(innocent)).attempt == 1
            world.clock.move(timedelta(seconds=20))
        assert {(await world.stored(message)).status for message in messages} == {FAILED}


class TestDeadlines:
    @pytest.mark.parametrize(
        ("setting", "reply"),
        [
            ("FIRST_TOKEN_SECONDS", SILENT),
            ("SILENCE_SECONDS", HANGS),
            ("SILENCE_SECONDS", ScriptedReply(pieces=(), thoughts=("Hm",), finish_reason=None)),
        ],
    )
    async def test_for_each_chunk(self, setting: str, reply: ScriptedReply) -> None:
        world = World(**{setting: "0.05"})
        world.model.add(reply)
        message = await world.sent()
        async with asyncio.timeout(HANG):
            assert await answer(world, message) is QUEUED
        assert (world.model.open, world.model.left) == (0, 1), "the call was not left"
        assert (await world.stored(message)).failures == 1

    @virtual_time
    async def test_a_reply_that_has_begun_may_take_longer(self) -> None:
        world = World(FIRST_TOKEN_SECONDS="5")
        world.model.add(ScriptedReply(pieces=("a",) * 6, seconds=2))
        assert await answer(world, await world.sent()) is COMPLETED

    async def test_for_the_whole_reply(self) -> None:
        world = World(FIRST_TOKEN_SECONDS="5", REPLY_SECONDS="0.05")
        world.model.add(HANGS)
        message = await world.sent()
        async with asyncio.timeout(HANG):
            assert await answer(world, message) is QUEUED
        assert world.model.left == 1
        stored = await world.stored(message)
        assert (stored.failures, stored.response) == (1, None)

    async def test_the_whole_one_bounds_the_first_word_too(self) -> None:
        world = World(FIRST_TOKEN_SECONDS="3600", REPLY_SECONDS="0.05")
        world.model.add(SILENT)
        async with asyncio.timeout(HANG):
            assert await answer(world, await world.sent()) is QUEUED


class TestPoison:
    async def test_three_deaths_end_it_without_asking_the_model(self, world: World) -> None:
        message = await world.sent()
        for _ in range(3):
            assert await claim(world.messages, message.id, lease=timedelta(seconds=-1), alone=True)
        assert await answer(world, message) is FAILED
        stored = await world.stored(message)
        assert (stored.error_code, stored.deaths, stored.attempt) == ("workers_died", 3, 4)
        assert world.model.asked == []
        assert await world.used(message) == 0

    async def test_two_do_not(self, world: World) -> None:
        message = await world.sent()
        for _ in range(2):
            assert await claim(world.messages, message.id, lease=timedelta(seconds=-1), alone=True)
        assert await answer(world, message) is COMPLETED


class TestSuspects:
    """What was there when two workers died may have killed them: one at a time, so that nothing dies with it."""

    async def suspect(self, world: World, room: Chatroom) -> Message:
        message = await world.sent(room=room)
        for _ in range(2):
            assert await claim(world.messages, message.id, lease=timedelta(seconds=-1))
        return message

    async def test_are_answered_one_at_a_time_while_others_go_on(self) -> None:
        world = World(FREE_DAILY_MESSAGES="100")
        room = await world.room()
        first, second = await self.suspect(world, room), await self.suspect(world, room)
        world.model.add(HANGS)
        async with answering(world, first) as task:
            assert await answer(world, second) is None, "it takes no place while it waits"
            for _ in range(5):
                assert await answer(world, await world.sent(room=room)) is COMPLETED
            assert (await world.stored(first)).deaths == 2
            assert (await world.stored(second)).attempt == 2, "not even claimed"
            world.queue.notified.clear()
            task.cancel()
        assert world.queue.notified == [first.id, second.id], "one is handed back, and the next is notified of"
        assert await answer(world, second) is COMPLETED
        assert (await world.stored(second)).deaths == 2
        assert await answer(world, first) is COMPLETED

    async def test_many_are_all_answered(self) -> None:
        world = World(FREE_DAILY_MESSAGES="100")
        room = await world.room()
        messages = [await self.suspect(world, room) for _ in range(10)]
        most = 0

        def reply(_: Conversation) -> ScriptedReply:
            nonlocal most
            most = max(most, model.open + 1)
            return ScriptedReply(seconds=0.001)

        model = ScriptedLanguageModel(reply)
        world.replace(language_model=model)
        results = await asyncio.gather(*(answer(world, message) for message in messages))
        assert results == [COMPLETED] + [None] * 9
        world.queue.notified.clear()
        waiting: dict[UUID, Message] = {message.id: message for message in messages}
        following = messages[1]
        for _ in range(9):  # each one that ends notifies of the next
            assert await answer(world, following) is COMPLETED
            following = waiting[world.queue.notified[-1]] if world.queue.notified else following
        assert [(await world.stored(message)).status for message in messages] == [COMPLETED] * 10
        assert most == 1

    async def test_a_job_that_comes_twice_is_done_once(self, world: World) -> None:
        message = await self.suspect(world, await world.room())
        results = await asyncio.gather(*(answer(world, message) for _ in range(5)))
        assert (results.count(COMPLETED), results.count(None)) == (1, 4)


class TestSuspectsDuplicates:
    """A job for what is not suspect at all: held, ended, not due, or not there."""

    async def test_take_no_place(self) -> None:
        world = World(FREE_DAILY_MESSAGES="100")
        room = await world.room()
        suspects = world.container.generate_reply().quarantine
        ended, held, later = [await world.sent(room=room) for _ in range(3)]
        assert await answer(world, ended) is COMPLETED
        assert await claim(world.messages, held.id, lease=timedelta(hours=1))
        await claim(world.messages, later.id, lease=timedelta(hours=1))
        await world.messages.release(later.id, 1, delay=timedelta(hours=1))
        assert suspects.acquire(MessageId(world.container.ids().new()))
        world.queue.notified.clear()
        for message_id in (ended.id, held.id, later.id, MessageId(world.container.ids().new())):
            assert await world.container.generate_reply()(message_id=message_id) is None
        assert suspects.release() is None, "nobody was put into the row of those that wait"
        for message_id in (ended.id, held.id, later.id):
            assert await world.container.generate_reply()(message_id=message_id) is None
        assert world.queue.notified == []


class TestDeferred:
    """The model was not called, so the message has not failed."""

    def open_breaker(self, world: World) -> None:
        breaker, now = world.container.call_model().breaker, world.clock.now()
        while not breaker.report(UserId(uuid4()), failed=True, began=now, now=now):
            pass

    async def test_while_the_model_is_ill(self, world: World) -> None:
        message = await world.sent()
        self.open_breaker(world)
        assert await answer(world, message) is QUEUED
        assert await world.stored(message) == replace(message, attempt=1)
        assert world.model.asked == []
        world.clock.move(timedelta(seconds=29))
        assert await answer(world, message) is None, "not due before the pause is over"
        world.clock.move(timedelta(seconds=6))
        assert await answer(world, message) is COMPLETED
        assert await world.used(message) == 1

    async def test_while_the_minutes_calls_are_used_up(self) -> None:
        world = World(GEMINI_MAX_RPM="1")
        first, second = [await world.sent(room=room) for room in [await world.room()] for _ in range(2)]
        assert await answer(world, first) is COMPLETED
        world.clock.move(timedelta(seconds=50))
        assert await answer(world, second) is QUEUED
        assert await world.stored(second) == replace(second, attempt=1)
        assert await answer(world, second) is None
        world.clock.move(timedelta(seconds=11))
        assert await answer(world, second) is COMPLETED

    async def test_however_often_it_is_not_failed_before_its_time(self, world: World) -> None:
        message = await world.sent()
        statuses = []
        for _ in range(15):
            self.open_breaker(world)
            statuses.append(await answer(world, message))
            world.clock.move(timedelta(seconds=36))
        assert statuses == [QUEUED] * 15
        assert (await world.stored(message)).failures == 0
        world.clock.move(timedelta(seconds=60))
        self.open_breaker(world)
        assert await answer(world, message) is FAILED
        stored = await world.stored(message)
        assert (stored.error_code, stored.attempt) == ("model_unavailable", 16)
        assert stored.error_detail == ModelUnavailable.detail
        assert await world.used(message) == 0

    async def test_when_the_budget_cannot_be_asked(self, world: World) -> None:
        class Away(ModelBudget):
            async def reserve(self, *, within: float) -> float | None:
                raise DatabaseUnavailable

        world.replace(model_budget=Away())
        message = await world.sent()
        assert await answer(world, message) is QUEUED
        assert await world.stored(message) == replace(message, attempt=1)
        assert world.model.asked == []


async def test_a_message_queued_anew_has_all_its_time_again(world: World) -> None:
    world.model.add(ModelRejectedRequest(), ModelUnavailable())
    message = await world.sent()
    assert await answer(world, message) is FAILED
    world.clock.move(timedelta(days=1))
    assert await world.messages.requeue(message.id)
    assert await answer(world, message) is QUEUED
    world.clock.move(timedelta(seconds=1))
    assert await answer(world, message) is COMPLETED


class TestLeases:
    async def test_renewed_it_is_kept(self, world: World) -> None:
        world.model.add(ScriptedReply(pieces=("a", "b"), seconds=0.02))
        message = await world.sent()
        async with answering(world, message) as task:
            for _ in range(5):
                world.clock.move(timedelta(seconds=9))
                await world.container.leases().renew()
                assert await claim(world.messages, message.id, lease=timedelta(seconds=10)) is None
            assert await task is COMPLETED

    async def test_lost_it_stops_the_model_and_writes_nothing(self, world: World) -> None:
        world.model.add(HANGS)
        message = await world.sent()
        async with answering(world, message) as task:
            world.clock.move(timedelta(seconds=11))
            theirs = await claim(world.messages, message.id, lease=timedelta(seconds=10))
            await world.container.leases().renew()
            assert await task is None
        assert (world.model.open, world.model.left) == (0, 1)
        assert await world.stored(message) == theirs
        assert world.queue.notified == [message.id], "none but the first"

    async def test_lost_unnoticed_its_end_counts_for_nothing(self, world: World) -> None:
        world.model.add(ScriptedReply(pieces=("mine",), seconds=0.01))
        message = await world.sent()
        async with answering(world, message) as task:
            world.clock.move(timedelta(seconds=11))
            theirs = await claim(world.messages, message.id, lease=timedelta(seconds=10))
            assert await task is None
        assert await world.stored(message) == theirs

    async def test_lost_only_one_of_two_is_stopped(self, world: World) -> None:
        world.model.add(HANGS, HANGS)
        room = await world.room()
        lost, kept = await world.sent(room=room), await world.sent(room=room)
        tasks = [asyncio.create_task(answer(world, message)) for message in (lost, kept)]
        await until(lambda: world.model.open == 2)
        world.clock.move(timedelta(seconds=11))
        await claim(world.messages, lost.id, lease=timedelta(seconds=10))
        await world.container.leases().renew()
        assert await tasks[0] is None
        assert not tasks[1].done()
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]

    async def test_lost_to_this_very_process(self, world: World) -> None:
        world.model.add(HANGS, ScriptedReply(pieces=("a", "b"), seconds=0.02))
        message = await world.sent()
        async with answering(world, message) as old:
            world.clock.move(timedelta(seconds=11))
            theirs = await claim(world.messages, message.id, lease=timedelta(seconds=10))
            assert theirs
            await world.messages.release(message.id, theirs.attempt)
            new = asyncio.create_task(answer(world, message))
            await until(lambda: world.model.open == 2)
            await world.container.leases().renew()
            assert await new is COMPLETED
            assert not old.done(), "it learns of it at its end, or by its deadline"
        assert (await world.stored(message)).response == "ab"

    async def test_expired_it_is_not_taken_by_the_process_that_has_it(self, world: World) -> None:
        world.model.add(ScriptedReply(pieces=("a", "b"), seconds=0.02))
        message = await world.sent()
        async with answering(world, message) as task:
            world.clock.move(timedelta(seconds=11))
            assert await answer(world, message) is None
            assert await task is COMPLETED
        assert (await world.stored(message)).attempt == 1

    async def test_it_is_renewed_before_there_is_anything_to_hold(self, world: World) -> None:
        await world.container.leases().renew()
        world.clock.move(timedelta(seconds=9))
        assert world.messages.workers.get(world.container.worker().id) == world.clock.now() + timedelta(seconds=1)

    async def test_an_unavailable_database_stops_nobody_and_is_logged(self) -> None:
        class Away(MemoryMessages):
            async def renew(self, worker: Worker, held: Sequence[tuple[MessageId, int]] = ()) -> set[MessageId]:
                if held:
                    raise DatabaseUnavailable
                return await super().renew(worker, held)

        world = World(Away)
        world.model.add(ScriptedReply(pieces=("a", "b"), seconds=0.01))
        async with answering(world, await world.sent()) as task:
            with pytest.raises(DatabaseUnavailable):
                await world.container.leases().renew()
            assert await task is COMPLETED


class TestShutdown:
    async def test_returns_the_message_and_notifies_of_it(self, world: World) -> None:
        world.model.add(HANGS)
        message = await world.sent()
        async with answering(world, message) as task:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (world.model.open, world.model.left) == (0, 1)
        assert await world.stored(message) == replace(message, attempt=1)
        assert world.queue.notified == [message.id] * 2
        assert await answer(world, message) is COMPLETED
        stored = await world.stored(message)
        assert (stored.failures, stored.deaths, stored.attempt) == (0, 0, 2)

    async def test_a_message_that_has_ended_meanwhile_stays_as_it_is(self, world: World) -> None:
        world.model.add(HANGS)
        message = await world.sent()
        async with answering(world, message) as task:
            await world.messages.finish(message.id, 1, Outcome(status=MessageStatus.CANCELLED, response="Half a"))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (await world.stored(message)).status is MessageStatus.CANCELLED


class TestStream:
    """What is passed on while the model speaks."""

    async def test_is_what_is_stored(self, world: World) -> None:
        world.model.add(ScriptedReply(pieces=("a\0", "b\ud83d", "", "c 🌻")))
        message = await world.sent()
        async with world.stream.follow(message.id) as reader:
            assert await answer(world, message) is COMPLETED
            pieces = await reader.read()
            assert await reader.read() == [], "the end is announced, after all pieces"
        assert [(str(piece.position), piece.text) for piece in pieces] == [
            *(("1-0", ""), ("1-1", "a"), ("1-3", "b?"), ("1-6", "c 🌻")),
        ]
        assert (await world.stored(message)).response == "".join(piece.text for piece in pieces)

    async def test_tells_of_another_attempt_but_not_of_an_end_that_is_none(self, world: World) -> None:
        world.model.add(ScriptedReply(pieces=("Half a",), error=ModelUnavailable()), "Whole.")
        message = await world.sent()
        async with world.stream.follow(message.id) as reader:
            assert await answer(world, message) is QUEUED
            assert [piece.text for piece in await reader.read()] == ["", "Half a"]
            world.clock.move(timedelta(seconds=1))
            assert await answer(world, message) is COMPLETED
            assert [str(piece.position) for piece in await reader.read()] == ["2-0", "2-6"]
            assert await reader.read() == []

    @pytest.mark.parametrize("error", [ModelRejectedRequest(), ReplyBlocked("SAFETY")], ids=repr)
    async def test_tells_of_every_end(self, world: World, error: ModelError) -> None:
        world.model.add(error)
        message = await world.sent()
        async with world.stream.follow(message.id) as reader, asyncio.timeout(HANG):
            await answer(world, message)
            assert [piece.text for piece in await reader.read()] == [""]
            assert await reader.read() == []


class TestCancel:
    async def cancel(self, world: World, message: Message) -> Message:
        return await world.messages.cancel(message.id, message.chatroom_id, message.user_id)

    async def test_stops_the_model_and_keeps_what_it_said(self, world: World) -> None:
        world.model.add(HANGS)
        message = await world.sent()
        async with answering(world, message) as task:
            await asyncio.sleep(0)
            await self.cancel(world, message)
            await world.container.leases().stop_cancelled()
            assert await task is CANCELLED
        assert (world.model.open, world.model.left) == (0, 1)
        stored = await world.stored(message)
        assert (stored.status, stored.response, stored.error_code) == (CANCELLED, "Half a", None)
        assert (stored.input_tokens, stored.output_tokens, stored.finish_reason) == (5, 2, None)
        assert await world.used(message) == 1, "no refund"

    async def test_of_another_message_stops_nobody(self, world: World) -> None:
        world.model.add(HANGS, HANGS)
        room = await world.room()
        cancelled, kept = await world.sent(room=room), await world.sent(room=room)
        tasks = [asyncio.create_task(answer(world, message)) for message in (cancelled, kept)]
        await until(lambda: world.model.open == 2)
        await self.cancel(world, cancelled)
        await world.container.leases().stop_cancelled()
        assert await tasks[0] is CANCELLED
        assert not tasks[1].done()
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]

    async def test_of_a_queued_one_never_reaches_the_model(self, world: World) -> None:
        message = await world.sent()
        await self.cancel(world, message)
        assert await answer(world, message) is None
        assert world.model.asked == []

    async def test_of_one_whose_worker_died_never_reaches_the_model_again(self, world: World) -> None:
        message = await world.sent()
        assert await claim(world.messages, message.id, lease=timedelta(seconds=10))
        await self.cancel(world, message)
        world.clock.move(timedelta(seconds=11))
        async with world.stream.follow(message.id) as reader, asyncio.timeout(HANG):
            assert await answer(world, message) is CANCELLED
            assert await reader.read() == [], "its reader is woken"
        assert world.model.asked == []

    async def test_of_a_failing_one_is_no_failure(self, world: World) -> None:
        class Clumsy(ScriptedLanguageModel):
            async def stream(self, conversation: Conversation) -> AsyncGenerator[ReplyChunk, None]:
                self.open = 1
                try:
                    await asyncio.Event().wait()
                    yield ReplyChunk()
                finally:
                    raise LookupError("a defect")

        model = Clumsy()
        world.replace(language_model=model)
        message = await world.sent()
        task = asyncio.create_task(answer(world, message))
        await until(lambda: model.open == 1)
        await self.cancel(world, message)
        await world.container.leases().stop_cancelled()
        assert await task is CANCELLED

    async def test_asks_nothing_while_nothing_is_held(self) -> None:
        class Asked(MemoryMessages):
            async def cancel_requested(self) -> set[MessageId]:
                raise AssertionError("nothing is held")

        await World(Asked).container.leases().stop_cancelled()


class TestBooked:
    """Each call of the model is booked with what it took, however it ended."""

    def booked(self, world: World) -> list[tuple[int, str, TokenUsage | None]]:
        assert all(call.model == "gemini-flash-latest" for call in world.messages.calls.all())
        return [(call.attempt, call.outcome, call.usage) for call in world.messages.calls.all()]

    @pytest.mark.parametrize(
        ("line", "outcome", "usage"),
        [
            ("Whole.", "completed", TokenUsage(5, 0, 2)),
            (ReplyBlocked("SAFETY"), "blocked", None),
            (ScriptedReply(pieces=("How",), error=ReplyBlocked("SAFETY")), "blocked", TokenUsage(5, 0, 1)),
            (ScriptedReply(pieces=(" ",)), "empty", TokenUsage(5, 0, 1)),
            (ScriptedReply(pieces=("Half",), error=ModelUnavailable()), "model_unavailable", TokenUsage(5, 0, 1)),
            (ModelOverloaded(), "model_overloaded", None),
            (ModelRejectedRequest(), "model_refused", None),
            (ScriptedReply(pieces=("Half",), error=LookupError()), "generation_failed", TokenUsage(5, 0, 1)),
        ],
        ids=repr,
    )
    async def test_by_how_it_ended(self, world: World, line: Line, outcome: str, usage: TokenUsage | None) -> None:
        world.model.add(line)
        message = await world.sent("Why is the sky blue?")
        await answer(world, message)
        assert self.booked(world) == [(1, outcome, usage)]
        allowance = await world.container.get_allowance()(user=world.users.table.all()[0])
        assert (allowance.input_tokens, allowance.output_tokens) == ((usage.input, usage.output) if usage else (0, 0))

    async def test_of_each_attempt(self, world: World) -> None:
        world.model.add(ModelUnavailable(), ModelOverloaded())
        message = await world.sent()
        for _ in range(3):
            await answer(world, message)
            world.clock.move(timedelta(seconds=60))
        assert [(attempt, outcome) for attempt, outcome, _ in self.booked(world)] == [
            (1, "model_unavailable"),
            (2, "model_overloaded"),
            (3, "completed"),
        ]

    async def test_not_if_it_was_not_made(self) -> None:
        world = World(GEMINI_MAX_RPM="1")
        first, second = await world.sent(), await world.sent(room=await world.room(await world.user("+919876543211")))
        for message in (first, second):
            await answer(world, message)
        assert self.booked(world) == [(1, "completed", TokenUsage(5, 0, 4))]
        await world.messages.cancel(second.id, second.chatroom_id, second.user_id)
        assert await world.used(second) == 0

    async def test_cancelled(self, world: World) -> None:
        world.model.add(HANGS)
        message = await world.sent()
        async with answering(world, message) as task:
            await asyncio.sleep(0)
            await world.messages.cancel(message.id, message.chatroom_id, message.user_id)
            await world.container.leases().stop_cancelled()
            await task
        assert self.booked(world) == [(1, "cancelled", TokenUsage(5, 0, 2))]
        assert await world.used(message) == 1

    async def test_handed_back(self, world: World) -> None:
        world.model.add(HANGS)
        message = await world.sent()
        async with answering(world, message) as task:
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        assert self.booked(world) == [(1, "interrupted", TokenUsage(5, 0, 2))]

    async def test_by_who_lost_its_lease(self, world: World) -> None:
        world.model.add(HANGS)
        message = await world.sent()
        async with answering(world, message) as task:
            await asyncio.sleep(0)
            world.clock.move(timedelta(seconds=11))
            await claim(world.messages, message.id, lease=timedelta(seconds=10))
            assert [call.outcome for call in world.messages.calls.all()] == ["lost"]
            await world.container.leases().renew()
            assert await task is None
        assert self.booked(world) == [(1, "interrupted", TokenUsage(5, 0, 2))]

    async def test_by_who_lost_it_without_knowing(self, world: World) -> None:
        world.model.add(ScriptedReply(pieces=("mine",), seconds=0.01))
        message = await world.sent()
        async with answering(world, message) as task:
            world.clock.move(timedelta(seconds=11))
            await claim(world.messages, message.id, lease=timedelta(seconds=10))
            assert await task is None
        assert self.booked(world) == [(1, "completed", TokenUsage(5, 0, 1))]

    async def test_a_prompt_without_a_word_costs_from_the_second_time_on(self) -> None:
        world = World(FREE_DAILY_MESSAGES="100")
        room = await world.room()
        for used in (0, 1, 2):
            world.model.add(ScriptedReply(thoughts=("Hm",), pieces=(), finish_reason="MAX_TOKENS"))
            message = await world.sent(room=room)
            assert await answer(world, message) is FAILED
            assert await world.used(message) == used
            assert (await world.stored(message)).charged is bool(used)


class TestDatabaseAway:
    @pytest.mark.parametrize(
        ("verb", "line", "asked", "status"),
        [
            ("context", "Whole.", 1, COMPLETED),
            ("finish", "Whole.", 1, COMPLETED),
            ("finish", ModelRejectedRequest(), 1, FAILED),
            ("retry", ModelUnavailable(), 1, QUEUED),
            ("release", ModelDeferred(), 1, QUEUED),
        ],
        ids=repr,
    )
    async def test_is_waited_for_and_costs_nothing(
        self, verb: str, line: str | ModelError, asked: int, status: MessageStatus
    ) -> None:
        world = World(away_twice(verb))
        world.model.add(line)
        message = await world.sent()
        assert await answer(world, message) is status
        assert isinstance(world.messages, AwayTwice)
        assert world.messages.away == 0, "it was never away"
        assert len(world.model.asked) == asked
        stored = await world.stored(message)
        assert (stored.attempt, stored.deaths, stored.failures) == (1, 0, int(verb == "retry"))
        assert stored.response == ("Whole." if status is COMPLETED else None)
        assert await world.used(message) == (0 if status is FAILED else 1)

    @virtual_time
    async def test_is_waited_for_however_long_it_takes(self) -> None:
        class LongAway(MemoryMessages):
            tries: list[float]

            async def finish(
                self, message_id: MessageId, attempt: int, outcome: Outcome, *, call: ModelCall | None = None
            ) -> bool:
                self.tries.append(asyncio.get_running_loop().time())
                if self.tries[-1] - self.tries[0] < 3_600:
                    raise DatabaseUnavailable
                return await super().finish(message_id, attempt, outcome, call=call)

        world = World(LongAway)
        assert isinstance(world.messages, LongAway)
        world.messages.tries = []
        message = await world.sent()
        assert await answer(world, message) is COMPLETED
        assert (await world.stored(message)).response == "Hello, world."
        tries = world.messages.tries
        pauses = [later - earlier for earlier, later in pairwise(tries)]
        assert pauses[0] < 1
        assert max(pauses) < 2.1, "it must not sleep on when the database is back"
        assert pauses[-1] > 1.9

    async def test_at_the_claim_it_is_the_callers_to_know(self) -> None:
        class Away(MemoryMessages):
            async def claim(self, message_id: MessageId, *, worker: Worker, alone: bool = False) -> Message | None:
                raise DatabaseUnavailable

        world = World(Away)
        with pytest.raises(DatabaseUnavailable):
            await answer(world, await world.sent())
        assert world.model.asked == []


async def test_many_at_once_each_get_their_own_reply() -> None:
    def echo(conversation: Conversation) -> ScriptedReply:
        return ScriptedReply(pieces=("You said ", conversation.turns[-1].text), seconds=0.001)

    world = World(FREE_DAILY_MESSAGES="100")
    world.replace(language_model=ScriptedLanguageModel(echo))
    messages = [await world.sent(f"message {number}", await world.room(user)) for number, user in enumerate(
        [await world.user(f"+9198765432{number:02d}") for number in range(40)]
    )]  # fmt: skip
    assert await asyncio.gather(*(answer(world, message) for message in messages)) == [COMPLETED] * 40
    assert [(await world.stored(message)).response for message in messages] == [
        f"You said message {number}" for number in range(40)
    ]
