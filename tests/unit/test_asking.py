"""Asking the model: when it is spared, and which of its ends count against it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from adapters.memory.chat import MemoryModelBudget
from adapters.memory.language_model import Line, ScriptedLanguageModel, ScriptedReply
from adapters.memory.runtime import MemoryClock
from application.chat.asking import LONGEST_WAIT, AskModel, Stop
from application.chat.breaker import Breaker
from application.ports.chat import ModelBudget, ReplyWriter
from domain.chat import Conversation, MessageStatus, Outcome, ReplyChunk, Role, TokenUsage, Turn
from domain.errors import (
    DatabaseUnavailable,
    ModelDeferred,
    ModelError,
    ModelQuotaExhausted,
    ModelRateLimited,
    ModelRefused,
    ModelUnavailable,
    ReplyBlocked,
    ReplyEmpty,
)

QUESTION = Conversation((Turn(Role.USER, "Why?"),), max_output_tokens=100)
PAUSE = 30
USED: dict[str, Any] = {"input_tokens": 1, "cached_tokens": 0, "output_tokens": 2, "thought_tokens": 0}


class Scene:
    """A breaker on a clock. In a pattern "." is a call that ended well and "x" one that failed."""

    def __init__(self, window: int = 20) -> None:
        self.clock = MemoryClock()
        self.breaker = Breaker(window=window, pause=timedelta(seconds=PAUSE))

    def wait(self) -> float | None:
        return self.breaker.wait(self.clock.now())

    def report(self, pattern: str, *, ago: float = 0) -> list[bool]:
        """Whether each of these opened it; `ago`: seconds since the calls were let through."""
        now = self.clock.now()
        return [
            self.breaker.report(failed=call == "x", began=now - timedelta(seconds=ago), now=now) for call in pattern
        ]

    def opened(self, pattern: str = "x" * 10) -> Scene:
        assert self.report(pattern)[-1]
        return self

    def pass_(self, seconds: float) -> None:
        self.clock.move(timedelta(seconds=seconds))


class TestBreakerOpens:
    @pytest.mark.parametrize(
        ("pattern", "opens_at"),
        [
            ("xxxxxxxxx", None),  # the least number it judges by is ten
            ("xxxxxxxxxx", 10),
            (".....xxxxx", 10),
            ("......xxxx", None),
            ("xxxxx.....", 10),  # the tenth shows that half failed, although it went well itself
            ("......xxxxxx", 12),
            ("." * 20 + "x" * 9, None),
            ("." * 20 + "x" * 10, 30),  # older ones have left the window
            (".x" * 5, 10),
            ("." * 10 + ".x" * 50, 30),  # the good beginning leaves the window one by one
            ("..x" * 100, None),
            ("." * 1_000, None),
        ],
    )
    def test_when_half_of_the_window_failed(self, pattern: str, opens_at: int | None) -> None:
        scene = Scene()
        opened = None
        for number, call in enumerate(pattern, 1):
            assert scene.wait() is None
            if scene.report(call) == [True]:
                opened = number
                break
        assert opened == opens_at
        assert (scene.wait() is None) is (opened is None)

    @pytest.mark.parametrize(("window", "least"), [(2, 1), (4, 2), (20, 10)])
    def test_with_windows_of_other_sizes(self, window: int, least: int) -> None:
        assert Scene(window).report("x" * least) == [False] * (least - 1) + [True]


class TestBreakerOpen:
    def test_lets_nobody_through_and_says_how_long(self) -> None:
        scene = Scene().opened()
        assert scene.wait() == PAUSE
        scene.pass_(PAUSE - 0.5)
        assert scene.wait() == 0.5
        assert scene.wait() == 0.5

    @pytest.mark.parametrize("late", ["x" * 50, "." * 50])
    def test_what_ends_late_changes_nothing(self, late: str) -> None:
        scene = Scene().opened()
        scene.pass_(10)
        assert scene.report(late, ago=15) == [False] * 50
        assert scene.wait() == PAUSE - 10

    def test_then_lets_one_through_and_no_other(self) -> None:
        scene = Scene().opened()
        scene.pass_(PAUSE)
        assert scene.wait() is None
        for _ in range(5):
            wait = scene.wait()
            assert wait is not None
            assert 0 < wait <= PAUSE

    def test_a_probe_that_ends_well_closes_it_with_a_new_window(self) -> None:
        scene = Scene().opened()
        scene.pass_(PAUSE)
        scene.wait()
        assert scene.report(".") == [False]
        assert [scene.wait() for _ in range(5)] == [None] * 5
        assert scene.report("x" * 10) == [False] * 9 + [True]

    def test_a_probe_that_fails_opens_it_again(self) -> None:
        scene = Scene().opened()
        for _ in range(3):
            scene.pass_(PAUSE)
            assert scene.wait() is None
            scene.pass_(7)
            assert scene.report("x", ago=7) == [True]
            assert scene.wait() == PAUSE

    def test_a_forgotten_probe_leaves_its_place_to_another(self) -> None:
        scene = Scene().opened()
        scene.pass_(PAUSE)
        scene.wait()
        scene.breaker.forget(began=scene.clock.now())
        assert scene.wait() is None
        assert scene.wait() is not None
        assert scene.report(".") == [False]
        assert scene.wait() is None

    @pytest.mark.parametrize("late", ["x", "."])
    def test_what_ends_late_is_not_taken_for_the_probe(self, late: str) -> None:
        scene = Scene().opened()
        scene.pass_(PAUSE)
        assert scene.wait() is None
        assert scene.report(late, ago=PAUSE + 1) == [False]
        scene.breaker.forget(began=scene.clock.now() - timedelta(seconds=PAUSE + 1))
        assert scene.wait() is not None, "the probe is still out"
        assert scene.report(".") == [False]
        assert scene.wait() is None

    def test_what_ends_after_it_has_closed_again_does_not_count(self) -> None:
        scene = Scene().opened()
        scene.pass_(PAUSE)
        scene.wait()
        scene.report(".")
        scene.pass_(5)
        assert scene.report("x" * 50, ago=PAUSE + 10) == [False] * 50
        assert scene.wait() is None

    def test_forgetting_while_it_is_closed_is_nothing(self) -> None:
        scene = Scene()
        scene.breaker.forget(began=scene.clock.now())
        assert scene.wait() is None


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
    """AskModel with a breaker that opens at the second failure, and `calls` a minute."""

    def __init__(self, *script: Line, calls: int = 0, budget: ModelBudget | None = None, seconds: float = 5) -> None:
        super().__init__(window=4)
        self.model = ScriptedLanguageModel(script)
        self.writer = Heard()
        self.stop = Stop()
        self.ask = AskModel(
            model=self.model,
            budget=budget or MemoryModelBudget(self.clock, calls),
            breaker=self.breaker,
            clock=self.clock,
            first_token_seconds=seconds,
            reply_seconds=seconds,
        )

    async def __call__(self) -> Outcome | ModelError:
        async with asyncio.timeout(10):
            try:
                return await self.ask(QUESTION, writer=self.writer, stop=self.stop)
            except ModelError as error:
                return error

    async def is_open_after_two(self) -> bool:
        for _ in range(2):
            assert not isinstance(await self(), ModelDeferred)
        return self.wait() is not None


class TestAskModel:
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
            (ModelRefused(), False),
            (ReplyBlocked("SAFETY"), False),
            (ReplyEmpty("MAX_TOKENS"), False),
            ("A reply.", False),
        ],
        ids=repr,
    )
    async def test_what_counts_as_illness(self, line: Line, ill: bool) -> None:
        assert await Ask(line, line, seconds=0.02).is_open_after_two() is ill

    async def test_a_timeout_is_an_unavailable_model(self) -> None:
        error = await Ask(ScriptedReply(pieces=(), finish_reason=None), seconds=0.02)()
        assert type(error) is ModelUnavailable
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
        while not ask.model.open:  # noqa: ASYNC110 - nobody tells us
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
        ask = Ask(calls=2)
        for _ in range(2):
            assert isinstance(await ask(), Outcome)
        ask.pass_(60 - LONGEST_WAIT - 1)
        error = await ask()
        assert isinstance(error, ModelDeferred)
        assert error.retry_after == LONGEST_WAIT
        assert len(ask.model.asked) == 2
        ask.pass_(LONGEST_WAIT + 1)
        assert isinstance(await ask(), Outcome)

    async def test_a_turn_that_comes_soon_is_waited_for(self) -> None:
        ask = Ask(calls=1)
        await ask()
        ask.pass_(59.98)
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
        ask = Ask(ModelUnavailable(), ModelUnavailable(), calls=3)
        assert await ask.is_open_after_two()
        for _ in range(5):
            assert isinstance(await ask(), ModelDeferred)
        ask.pass_(PAUSE)
        assert isinstance(await ask(), Outcome)
        assert isinstance(await ask(), ModelDeferred), "the third of three was the last"


class Waits(ModelBudget):
    """Its turn comes in so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def reserve(self, *, within: float) -> float | None:
        return self.seconds


class TestStop:
    """A request to stop ends the call at once, whatever it is doing."""

    async def stopped(self, ask: Ask, *, when: Callable[[], bool]) -> Outcome:
        task = asyncio.create_task(ask())
        async with asyncio.timeout(5):
            while not when():  # noqa: ASYNC110 - nobody tells us
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
        async with asyncio.timeout(5):
            while not ask.model.open:  # noqa: ASYNC110 - nobody tells us
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
