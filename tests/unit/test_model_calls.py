"""Calls of the model: when they are deferred, and which results count against the model."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from adapters.memory.language_model import (
    Line,
    MemoryModelBudget,
    MemoryModelSetup,
    ScriptedLanguageModel,
    ScriptedReply,
)
from application.chat.breaker import Breaker
from application.chat.model_calls import LONGEST_WAIT, Call, CallModel, Stop
from application.chat.setup import WatchSetup
from application.ports.chat import ModelBudget, ReplyWriter
from domain.chat.calls import TokenUsage
from domain.chat.conversation import Conversation, ReplyChunk, Role, Turn
from domain.chat.messages import MAX_THOUGHT_CHARACTERS, MessageStatus, Outcome
from domain.errors import (
    DatabaseUnavailable,
    ModelDeferred,
    ModelError,
    ModelNotConfigured,
    ModelOverloaded,
    ModelQuotaExhausted,
    ModelRateLimited,
    ModelRejectedRequest,
    ModelTimedOut,
    ModelUnavailable,
    ReplyBlocked,
    ReplyEmpty,
)
from domain.ids import UserId
from tests.support.patience import HANG
from tests.support.virtual_time import virtual_time
from tests.unit.test_breaker import PATIENCE, PAUSE, Scene

QUESTION = Conversation((Turn(Role.USER, "Why?"),), max_output_tokens=100)
USED: dict[str, Any] = {"input_tokens": 1, "cached_tokens": 0, "output_tokens": 2, "thought_tokens": 0}


class Heard(ReplyWriter):
    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.thoughts: list[str] = []

    def add(self, text: str) -> None:
        self.pieces.append(text)

    def thought(self, text: str) -> None:
        self.thoughts.append(text)

    async def close(self) -> None: ...


class Ask(Scene):
    """CallModel with a breaker that opens when a second user is failed, and `calls` a minute.

    Each call is another user's, unless one is named.
    """

    def __init__(self, *script: Line, calls: int = 0, budget: ModelBudget | None = None, seconds: float = 5) -> None:
        super().__init__(least=2)
        self.model = ScriptedLanguageModel(script)
        self.writer = Heard()
        self.stop = Stop()
        self.calls: list[Call] = []
        self.ask = CallModel(
            model=self.model,
            budget=budget or MemoryModelBudget(self.clock, calls),
            name="gemini",
            breaker=self.breaker,
            setup=WatchSetup(self.model, MemoryModelSetup(), self.clock),
            clock=self.clock,
            first_token_seconds=seconds,
            silence_seconds=seconds,
            reply_seconds=seconds,
        )

    async def __call__(self, user: int | None = None, *, fresh: bool = True) -> Outcome | ModelError:
        call = Call(UserId(UUID(int=user or 1_000 + len(self.calls))), fresh, self.stop)
        self.calls.append(call)
        async with asyncio.timeout(HANG):
            try:
                return await self.ask(QUESTION, call=call, writer=self.writer)
            except ModelError as error:
                return error

    async def is_open_after_two(self) -> bool:
        for _ in range(2):
            assert not isinstance(await self(), ModelDeferred)
        return self.wait() is not None


class TestCallModel:
    async def test_gives_the_whole_reply(self) -> None:
        ask = Ask(ScriptedReply(pieces=("Be", "cause."), finish_reason="STOP"))
        outcome = await ask()
        assert outcome == Outcome(status=MessageStatus.COMPLETED, response="Because.", finish_reason="STOP", **USED)

    @pytest.mark.parametrize(
        ("line", "ill"),
        [
            (ModelUnavailable(), True),
            (ScriptedReply(pieces=("Half a",), error=ModelUnavailable()), True),
            (ScriptedReply(pieces=(), finish_reason=None), True),  # it never says a word
            (ScriptedReply(pieces=("Half a",), finish_reason=None), True),
            (ModelRateLimited(retry_after=9), False),
            (ModelQuotaExhausted(), False),
            (ModelRejectedRequest(), False),
            (ReplyBlocked("SAFETY"), False),
            (ModelOverloaded(), True),
            (ModelNotConfigured("API_KEY_INVALID"), False),
            (ReplyEmpty("MAX_TOKENS"), False),
            (ReplyEmpty("STOP"), False),
            (ReplyEmpty("NO_CANDIDATES"), False),
            (" \n", False),
            ("A reply.", False),
        ],
        ids=repr,
    )
    async def test_what_counts_as_illness(self, line: Line, ill: bool) -> None:
        hangs = isinstance(line, ScriptedReply) and line.finish_reason is None
        assert await Ask(line, line, seconds=0.02 if hangs else 5).is_open_after_two() is ill

    async def test_a_timeout_is_an_unavailable_model(self) -> None:
        error = await Ask(ScriptedReply(pieces=(), finish_reason=None), seconds=0.02)()
        assert type(error) is ModelTimedOut
        assert error.detail == "The model took too long."

    async def test_while_it_is_ill_it_is_not_asked(self) -> None:
        ask = Ask(ModelUnavailable(), ModelUnavailable())
        assert await ask.is_open_after_two()
        ask.pass_(10)
        error = await ask()
        assert isinstance(error, ModelDeferred)
        assert error.retry_after == PAUSE - 10
        assert len(ask.model.asked) == 2

    @pytest.mark.parametrize(("line", "well"), [("Well again.", True), (ModelUnavailable(), False)], ids=repr)
    async def test_then_one_asks_and_its_end_decides(self, line: Line, well: bool) -> None:
        slow = line if isinstance(line, Exception) else ScriptedReply(pieces=("Well", "again"), seconds=0.01)
        ask = Ask(ModelUnavailable(), ModelUnavailable(), slow)
        assert await ask.is_open_after_two()
        ask.pass_(PAUSE)
        results = await asyncio.gather(*(ask() for _ in range(5)))
        assert [isinstance(result, ModelDeferred) for result in results] == [False, True, True, True, True]
        assert len(ask.model.asked) == 3
        assert (ask.wait() is None) is well

    async def test_a_blocked_probe_shows_that_it_is_well(self) -> None:
        ask = Ask(ModelUnavailable(), ModelUnavailable(), ReplyBlocked("SAFETY"))
        assert await ask.is_open_after_two()
        ask.pass_(PAUSE)
        assert isinstance(await ask(), ReplyBlocked)
        assert ask.wait() is None

    async def test_a_cancelled_probe_leaves_its_place_to_another(self) -> None:
        ask = Ask(ModelUnavailable(), ModelUnavailable(), ScriptedReply(pieces=("Half a",), finish_reason=None))
        assert await ask.is_open_after_two()
        ask.pass_(PAUSE)
        probe = asyncio.create_task(ask())
        while not ask.model.open:  # noqa: ASYNC110 - no event to wait on
            await asyncio.sleep(0)
        assert isinstance(await ask(), ModelDeferred)
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        assert (ask.model.open, ask.model.left) == (0, 1)
        assert isinstance(await ask(), Outcome)
        assert ask.wait() is None

    async def test_a_defect_is_no_verdict(self) -> None:
        ask = Ask(LookupError("a defect"), LookupError("a defect"))
        for _ in range(2):
            with pytest.raises(LookupError):
                await ask()
        assert ask.wait() is None

    async def test_a_used_up_budget_puts_off(self) -> None:
        ask = Ask(calls=1)
        assert isinstance(await ask(), Outcome)
        ask.pass_(60 - LONGEST_WAIT - 1)
        error = await ask()
        assert isinstance(error, ModelDeferred)
        assert error.retry_after == LONGEST_WAIT
        assert len(ask.model.asked) == 1
        ask.pass_(LONGEST_WAIT + 2)
        assert isinstance(await ask(), Outcome)

    async def test_a_turn_that_comes_soon_is_waited_for(self) -> None:
        ask = Ask(calls=1)
        await ask()
        ask.pass_(60.58)
        assert isinstance(await ask(), Outcome)
        assert len(ask.model.asked) == 2

    async def test_who_is_cancelled_while_waiting_never_asks(self) -> None:
        ask = Ask(calls=1)
        await ask()
        ask.pass_(57)
        task = asyncio.create_task(ask())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(ask.model.asked) == 1

    @pytest.mark.parametrize("away", [False, True])
    async def test_a_probe_without_budget_leaves_its_place_to_another(self, away: bool) -> None:
        class Budget(ModelBudget):
            refusing = False

            async def reserve(self, *, within: float) -> float | None:
                if self.refusing and away:
                    raise DatabaseUnavailable
                return None if self.refusing else 0.0

        budget = Budget()
        ask = Ask(ModelUnavailable(), ModelUnavailable(), budget=budget)
        assert await ask.is_open_after_two()
        ask.pass_(PAUSE)
        budget.refusing = True
        error = await ask()
        assert isinstance(error, ModelDeferred)
        assert error.retry_after == LONGEST_WAIT
        budget.refusing = False
        assert isinstance(await ask(), Outcome)

    async def test_what_is_not_asked_uses_no_budget(self) -> None:
        class Three(ModelBudget):
            left = 3

            async def reserve(self, *, within: float) -> float | None:
                self.left -= 1
                return 0.0 if self.left >= 0 else None

        ask = Ask(ModelUnavailable(), ModelUnavailable(), budget=Three())
        assert await ask.is_open_after_two()
        for _ in range(5):
            assert isinstance(await ask(), ModelDeferred)
        ask.pass_(PAUSE)
        assert isinstance(await ask(), Outcome)
        assert isinstance(await ask(), ModelDeferred), "the third of three was the last"


class Waits(ModelBudget):
    """Its turn comes in `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def reserve(self, *, within: float) -> float | None:
        return self.seconds


class TestStop:
    """A request to stop ends the call at once, whatever it is doing."""

    async def stopped(self, ask: Ask, *, when: Callable[[], bool]) -> Outcome:
        task = asyncio.create_task(ask())
        async with asyncio.timeout(HANG):
            while not when():  # noqa: ASYNC110 - no event to wait on
                await asyncio.sleep(0)
        ask.stop.request()
        ask.stop.request()  # twice is once
        outcome = await task
        assert isinstance(outcome, Outcome)
        assert ask.model.open == 0
        return outcome

    async def test_before_it_began(self) -> None:
        ask = Ask()
        ask.stop.request()
        assert await ask() == Outcome(status=MessageStatus.CANCELLED)
        assert ask.model.asked == []

    async def test_while_it_waits_for_its_turn(self) -> None:
        ask = Ask(budget=Waits(60))
        outcome = await self.stopped(ask, when=lambda: ask.stop._call is not None)  # noqa: SLF001
        assert outcome == Outcome(status=MessageStatus.CANCELLED)
        assert ask.model.asked == []

    async def test_before_the_first_word(self) -> None:
        ask = Ask(ScriptedReply(pieces=(), finish_reason=None))
        outcome = await self.stopped(ask, when=lambda: ask.model.open == 1)
        assert outcome == Outcome(status=MessageStatus.CANCELLED)
        assert ask.model.left == 1

    async def test_in_mid_stream_it_keeps_what_was_said_and_counted(self) -> None:
        ask = Ask(ScriptedReply(pieces=("Half", " a"), finish_reason=None))
        outcome = await self.stopped(ask, when=lambda: len(ask.writer.pieces) == 2)
        assert outcome == Outcome(status=MessageStatus.CANCELLED, response="Half a", finish_reason=None, **USED)
        assert ask.model.left == 1

    async def test_it_counts_neither_for_nor_against_the_model(self) -> None:
        ask = Ask(ModelUnavailable(), ModelUnavailable(), ScriptedReply(pieces=("Half",), finish_reason=None))
        assert await ask.is_open_after_two()
        ask.pass_(PAUSE)
        await self.stopped(ask, when=lambda: ask.model.open == 1)
        ask.stop = Stop()
        assert ask.wait() is None, "its place as the probe is free again"

    async def test_an_error_on_the_way_out_is_no_failure(self) -> None:
        class Clumsy(ScriptedLanguageModel):
            async def stream(self, conversation: Conversation) -> AsyncGenerator[ReplyChunk, None]:
                yield ReplyChunk(text="Half", usage=TokenUsage(input=1))
                try:
                    await asyncio.Event().wait()
                finally:
                    raise ModelUnavailable  # as an SDK that takes its cancelled read for a lost connection

        ask = Ask()
        ask.ask = replace(ask.ask, model=Clumsy())
        outcome = await self.stopped(ask, when=lambda: bool(ask.writer.pieces))
        assert (outcome.status, outcome.response) == (MessageStatus.CANCELLED, "Half")

    async def test_too_late_it_changes_nothing(self) -> None:
        ask = Ask("Whole.")
        outcome = await ask()
        ask.stop.request()
        assert isinstance(outcome, Outcome)
        assert (outcome.status, outcome.response) == (MessageStatus.COMPLETED, "Whole.")
        await asyncio.sleep(0)

    async def test_who_is_cancelled_while_it_is_stopped_is_cancelled(self) -> None:
        ask = Ask(ScriptedReply(pieces=("Half",), finish_reason=None))
        task = asyncio.create_task(ask())
        async with asyncio.timeout(HANG):
            while not ask.model.open:  # noqa: ASYNC110 - no event to wait on
                await asyncio.sleep(0)
        ask.stop.request()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ask.model.open == 0


class TestPieces:
    async def test_are_passed_on_as_they_are_stored(self) -> None:
        ask = Ask(ScriptedReply(pieces=("a\0", "\0", "", "b\ud83d", "\ude00c", " 🌻")))
        outcome = await ask()
        assert ask.writer.pieces == ["a", "b?", "?c", " 🌻"]
        assert isinstance(outcome, Outcome)
        assert outcome.response == "".join(ask.writer.pieces)

    async def test_of_which_nothing_can_be_stored_are_none(self) -> None:
        error = await Ask(ScriptedReply(pieces=("\0",)))()
        assert isinstance(error, ReplyEmpty)
        assert error.reason == "STOP"

    @pytest.mark.parametrize("text", [" ", "\n\t", "\u2003\n"])
    async def test_of_white_space_alone_are_none(self, text: str) -> None:
        error = await Ask(ScriptedReply(pieces=(text, " ")))()
        assert isinstance(error, ReplyEmpty)
        assert error.reason == "STOP"


class TestSignsOfLife:
    @virtual_time
    async def test_any_chunk_is_one(self) -> None:
        """Each comes in time, and all together take longer than the first or any other may."""

        class Slow(ScriptedLanguageModel):
            async def stream(self, conversation: Conversation) -> AsyncGenerator[ReplyChunk, None]:
                for chunk in (ReplyChunk(thought="Hm"), ReplyChunk(usage=TokenUsage(input=1)), ReplyChunk("Yes")) * 3:
                    await asyncio.sleep(2)
                    yield chunk

        ask = Ask()
        ask.ask = replace(ask.ask, model=Slow(), first_token_seconds=3, silence_seconds=3, reply_seconds=60)
        outcome = await ask()
        assert isinstance(outcome, Outcome)
        assert outcome.response == "YesYesYes"

    @pytest.mark.parametrize(
        ("limit", "line"),
        [
            ("first_token_seconds", ScriptedReply(pieces=(), finish_reason=None)),
            ("silence_seconds", ScriptedReply(pieces=("Half a",), finish_reason=None)),
            ("silence_seconds", ScriptedReply(pieces=(), thoughts=("Hm",), finish_reason=None)),
            ("reply_seconds", ScriptedReply(pieces=("a",) * 1_000, seconds=0.01)),
            ("reply_seconds", ScriptedReply(thoughts=("a",) * 1_000, seconds=0.01)),
            ("reply_seconds", ScriptedReply(pieces=(), finish_reason=None)),
        ],
    )
    async def test_each_limit_ends_it(self, limit: str, line: Line) -> None:
        ask = Ask(line)
        limits: dict[str, Any] = {"first_token_seconds": 60, "silence_seconds": 60, "reply_seconds": 60, limit: 0.05}
        ask.ask = replace(ask.ask, **limits)
        assert type(await ask()) is ModelTimedOut
        assert (ask.model.open, ask.model.left) == (0, 1)

    async def test_a_probe_need_not_think_to_its_end(self) -> None:
        ask = Ask(
            ModelUnavailable(), ModelUnavailable(), ScriptedReply(thoughts=("Hm",), pieces=(), finish_reason=None)
        )
        assert await ask.is_open_after_two()
        ask.pass_(PAUSE)
        task = asyncio.create_task(ask())
        async with asyncio.timeout(HANG):
            while not ask.writer.thoughts:  # noqa: ASYNC110 - no event to wait on
                await asyncio.sleep(0)
        assert ask.wait() is None
        ask.stop.request()
        await task


class TestThoughts:
    async def test_are_passed_on_and_kept_with_the_time_they_took(self) -> None:
        ask = Ask(ScriptedReply(thoughts=("Hm\0", " …"), pieces=("Yes", "."), seconds=0.01))
        outcome = await ask()
        assert isinstance(outcome, Outcome)
        assert (outcome.response, outcome.thoughts) == ("Yes.", "Hm …")
        assert ask.writer.thoughts == ["Hm", " …"]
        assert outcome.thinking_seconds is not None
        assert outcome.thinking_seconds >= 0.03
        assert outcome.thought_tokens == ask.calls[0].usage.thoughts > 0  # type: ignore[union-attr]

    async def test_without_them_it_has_not_thought(self) -> None:
        outcome = await Ask("Yes.")()
        assert isinstance(outcome, Outcome)
        assert (outcome.thoughts, outcome.thinking_seconds) == (None, None)

    async def test_are_bounded(self) -> None:
        ask = Ask(ScriptedReply(thoughts=("x" * 20_000,) * 3, pieces=("Yes.",)))
        outcome = await ask()
        assert isinstance(outcome, Outcome)
        assert outcome.thoughts == "x" * MAX_THOUGHT_CHARACTERS

    async def test_alone_are_no_reply(self) -> None:
        error = await Ask(ScriptedReply(thoughts=("Hm",), pieces=(), finish_reason="MAX_TOKENS"))()
        assert isinstance(error, ReplyEmpty)

    async def test_stopped_keep_what_was_thought(self) -> None:
        ask = Ask(ScriptedReply(thoughts=("Hm",), pieces=(), finish_reason=None))
        task = asyncio.create_task(ask())
        async with asyncio.timeout(HANG):
            while not ask.writer.thoughts:  # noqa: ASYNC110 - no event to wait on
                await asyncio.sleep(0)
        ask.stop.request()
        outcome = await task
        assert isinstance(outcome, Outcome)
        assert (outcome.status, outcome.response, outcome.thoughts) == (MessageStatus.CANCELLED, None, "Hm")
        assert outcome.thinking_seconds is not None


class TestCall:
    """What the caller learns of it, however it ends."""

    @pytest.mark.parametrize(
        ("line", "usage"),
        [
            ("Yes.", TokenUsage(1, 0, 1)),
            (ScriptedReply(pieces=("Half a",), error=ModelUnavailable()), TokenUsage(1, 0, 2)),
            (ScriptedReply(pieces=("Half a",), error=LookupError("a defect")), TokenUsage(1, 0, 2)),
            (ReplyBlocked("SAFETY"), None),
        ],
        ids=repr,
    )
    async def test_was_made_and_took_so_much(self, line: Line, usage: TokenUsage | None) -> None:
        ask = Ask(line)
        with contextlib.suppress(LookupError):
            await ask()
        assert (ask.calls[0].model, ask.calls[0].usage) == ("gemini", usage)

    async def test_was_not_made_if_it_was_put_off(self) -> None:
        ask = Ask("Yes.", calls=1)
        await ask()
        assert isinstance(await ask(), ModelDeferred)
        assert ask.calls[1].model is None

    async def test_was_not_made_if_it_was_stopped_before(self) -> None:
        ask = Ask()
        ask.stop.request()
        await ask()
        assert ask.calls[0].model is None


class TestOneUsersMessages:
    @pytest.mark.parametrize(
        "bad",
        [
            ReplyEmpty("NO_CANDIDATES"),
            ReplyEmpty("STOP"),
            " ",
            ModelUnavailable(),
            ModelOverloaded(),
            ModelTimedOut(),
        ],
        ids=repr,
    )
    async def test_stop_nobody_else(self, bad: Line) -> None:
        ask = Ask(*[bad] * 10)
        ask.ask = replace(ask.ask, breaker=Breaker())
        for number in range(10):
            assert isinstance(await ask(user=7, fresh=not number), ModelError)
        for user in (1, 2, 3, 4, 7):
            assert isinstance(await ask(user=user), Outcome)

    async def test_that_failed_are_no_probes(self) -> None:
        ask = Ask(ModelUnavailable(), ModelUnavailable())
        assert await ask.is_open_after_two()
        ask.pass_(PAUSE)
        error = await ask(fresh=False)
        assert isinstance(error, ModelDeferred)
        assert error.retry_after == PATIENCE
        assert isinstance(await ask(), Outcome)
        assert isinstance(await ask(fresh=False), Outcome)
