"""What the model is given to read, and when it is asked again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest

from domain.chat.chatrooms import MAX_INSTRUCTIONS_CHARACTERS
from domain.chat.conversation import (
    MAX_WINDOW_EXCHANGES,
    MAX_WINDOW_TOKENS,
    Context,
    Conversation,
    Exchange,
    Role,
    Turn,
    conversation_window,
    estimated_tokens,
)
from domain.chat.messages import MAX_INPUT_CHARACTERS, Message, MessageStatus, Outcome
from domain.chat.retries import RetryPolicy
from domain.errors import (
    DatabaseUnavailable,
    DomainError,
    GenerationFailed,
    ModelDeferred,
    ModelNotConfigured,
    ModelOverloaded,
    ModelQuotaExhausted,
    ModelRateLimited,
    ModelRejectedRequest,
    ModelTimedOut,
    ModelUnavailable,
    ReplyBlocked,
    ReplyEmpty,
    WorkerCrashed,
)
from domain.ids import ChatroomId, MessageId, UserId

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MESSAGE = Message(
    id=MessageId(UUID(int=1)),
    chatroom_id=ChatroomId(UUID(int=2)),
    user_id=UserId(UUID(int=3)),
    input="now",
    created_at=NOW,
    queued_at=NOW,
    allowance_day=NOW.date(),
    max_output_tokens=77,
)


def past(input: str, response: str = "yes") -> Exchange:
    return Exchange(MessageId(uuid4()), input, response)


def texts(earlier: Sequence[Exchange], message: Message = MESSAGE, **limits: Any) -> list[str]:
    """`earlier` newest first, as the store gives them."""
    return [turn.text for turn in conversation_window(message, Context(earlier), **limits).turns]


class TestWindow:
    def test_of_a_first_message_is_the_message(self) -> None:
        conversation = conversation_window(MESSAGE, Context())
        assert conversation.turns == (Turn(Role.USER, "now"),)
        assert (conversation.max_output_tokens, conversation.window_from) == (77, None)

    def test_is_oldest_first_with_the_message_last(self) -> None:
        first = past("first", "1")
        conversation = conversation_window(MESSAGE, Context([past("second", "2"), first]))
        assert conversation.turns == (
            Turn(Role.USER, "first"),
            Turn(Role.MODEL, "1"),
            Turn(Role.USER, "second"),
            Turn(Role.MODEL, "2"),
            Turn(Role.USER, "now"),
        )
        assert conversation.window_from == first.id

    def test_an_empty_reply_is_a_reply(self) -> None:
        assert texts([past("a", "")]) == ["a", "", "now"]

    @pytest.mark.parametrize(("max_tokens", "kept"), [(0, 0), (1, 0), (20, 0), (21, 1), (30, 1), (101, 5)])
    def test_takes_an_exchange_whole_or_not_at_all(self, max_tokens: int, kept: int) -> None:
        # "now" is one token, each exchange twenty.
        earlier = [past("i" * 40, "r" * 40) for _ in range(5)]
        assert len(texts(earlier, max_tokens=max_tokens)) == kept * 2 + 1

    def test_ends_where_the_budget_does_and_does_not_skip(self) -> None:
        """An older exchange that would fit again says nothing without the one between."""
        assert texts([past("b"), past("huge" * 100), past("a")], max_tokens=50) == ["b", "yes", "now"]

    def test_a_huge_message_is_given_whole_and_alone(self) -> None:
        huge = replace(MESSAGE, input="界" * 8_000)
        assert texts([past("a")], huge, max_tokens=100) == [huge.input]

    def test_a_huge_one_just_before_hides_all_that_is_older(self) -> None:
        huge = past("x" * 4 * MAX_WINDOW_TOKENS)
        assert texts([huge, past("a"), past("b")]) == ["now"]
        assert texts([past("c"), huge, past("a"), past("b")]) == ["c", "yes", "now"]

    @pytest.mark.parametrize(
        ("deployment", "room", "given"),
        [
            (None, None, None),
            ("", None, None),
            ("Be polite.", None, "Be polite."),
            (None, "Rhyme.", "Rhyme."),
            ("Be polite.", "Rhyme.", "Be polite.\n\nRhyme."),
        ],
    )
    def test_the_deployment_is_heard_before_the_room(
        self, deployment: str | None, room: str | None, given: str | None
    ) -> None:
        conversation = conversation_window(MESSAGE, Context(instructions=room), instructions=deployment)
        assert conversation.instructions == given
        assert conversation.turns == (Turn(Role.USER, "now"),)

    @pytest.mark.parametrize(("max_tokens", "kept"), [(0, 0), (30, 0), (31, 1), (50, 1), (111, 5)])
    def test_instructions_take_from_the_budget(self, max_tokens: int, kept: int) -> None:
        # "now" is one token, each exchange twenty, the instructions ten.
        context = Context([past("i" * 40, "r" * 40) for _ in range(5)], instructions="t" * 19)
        conversation = conversation_window(MESSAGE, context, instructions="d" * 19, max_tokens=max_tokens)
        assert len(conversation.turns) == kept * 2 + 1
        assert conversation.instructions == "d" * 19 + "\n\n" + "t" * 19

    def test_the_largest_of_all_leave_room_for_an_exchange(self) -> None:
        """Whatever people may write and configure, a conversation has some memory."""
        message = replace(MESSAGE, input="界" * MAX_INPUT_CHARACTERS)
        context = Context([past("界" * MAX_INPUT_CHARACTERS)], "界" * MAX_INSTRUCTIONS_CHARACTERS)
        conversation = conversation_window(message, context, instructions="界" * MAX_INSTRUCTIONS_CHARACTERS)
        assert len(conversation.turns) == 3


class Room:
    """A conversation from its first message on. Each reply is stored with where its window began, as a worker does."""

    def __init__(self, **limits: Any) -> None:
        self.exchanges: list[Exchange] = []
        self.limits = limits

    def ask(self, input: str, reply: str) -> Conversation:
        context = Context(self.exchanges[::-1][: MAX_WINDOW_EXCHANGES + 1], "You are a teacher.")
        message = replace(MESSAGE, id=MessageId(uuid4()), input=input)
        conversation = conversation_window(message, context, **self.limits)
        self.exchanges.append(Exchange(message.id, input, reply, conversation.window_from))
        return conversation


def shared(first: Conversation, second: Conversation) -> tuple[int, int]:
    """Tokens of the second prompt, and how many of them, from its beginning on, are those of the first."""
    tokens = [estimated_tokens(turn.text) for turn in second.turns]
    instructions = estimated_tokens(second.instructions or "")
    pairs = zip(first.turns, second.turns, strict=False)
    equal = next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(first.turns), len(second.turns)))
    return sum(tokens) + instructions, sum(tokens[:equal]) + instructions


class TestWindowOfARoom:
    """Over many turns."""

    @pytest.mark.parametrize(
        ("input_words", "reply_words"), [(15, 80), (40, 300), (100, 1_000), (300, 1_500)], ids=lambda words: str(words)
    )
    def test_most_of_a_prompt_begins_as_the_last_one_did(self, input_words: int, reply_words: int) -> None:
        chance, room = random.Random(input_words), Room()
        prompts = []
        for turn in range(1, 91):
            words = [f"{turn}:", *(chance.choice(["light", "scatters", "blue", "air"]) for _ in range(reply_words))]
            chance.shuffle(words)
            prompts.append(
                room.ask(
                    " ".join(words[: chance.randint(1, 2 * input_words)]),
                    " ".join(words[: chance.randint(reply_words // 2, reply_words)]),
                )
            )
        whole, equal = map(sum, zip(*(shared(*pair) for pair in pairwise(prompts[28:])), strict=True))
        assert equal / whole >= 0.70

    def test_has_between_twenty_and_thirty_exchanges(self) -> None:
        room = Room()
        counts = [len(room.ask(f"input {turn}", "reply").turns) // 2 for turn in range(100)]
        assert counts[:31] == list(range(31))
        assert counts[31:41] == [*range(21, 31)]
        assert counts[31:91] == [*range(21, 31)] * 6

    def test_is_the_rooms_end_without_a_gap_and_within_its_budget(self) -> None:
        chance, alphabet = random.Random(1), "ab cd 界🌻é"
        for _ in range(60):
            budget = chance.randrange(1, 900)
            room = Room(max_tokens=budget)
            for _ in range(chance.randrange(60)):
                before = room.exchanges[:]
                input, reply = (
                    "".join(chance.choices(alphabet, k=chance.randrange(1, 60))),
                    "".join(chance.choices(alphabet, k=chance.randrange(60))),
                )
                prompt = room.ask(input, reply)
                found = [turn.text for turn in prompt.turns]
                assert found.pop() == input
                count = len(found) // 2
                assert count <= MAX_WINDOW_EXCHANGES
                assert found == [text for past in before[len(before) - count :] for text in (past.input, past.response)]
                assert prompt.window_from == (before[-count].id if count else None)
                fixed = estimated_tokens("You are a teacher.") + estimated_tokens(input)
                whole = fixed + sum(past.tokens for past in before)
                assert count == 0 or fixed + sum(map(estimated_tokens, found)) <= budget
                if whole <= budget and len(before) <= MAX_WINDOW_EXCHANGES:
                    assert count == len(before), "what fits is given"
                if before and fixed + before[-1].tokens <= budget:
                    assert count >= 1, "the last exchange is given, if it fits at all"

    def test_without_a_beginning_stored_it_is_found_anew(self) -> None:
        """After an upgrade, or when the last reply's window began before what is looked at."""
        earlier = [past(f"input {number}") for number in range(31)]
        assert len(texts(earlier)) // 2 == 21
        assert len(texts([replace(earlier[0], window_from=MessageId(uuid4())), *earlier[1:]])) // 2 == 21

    def test_a_reply_that_came_later_does_not_move_its_beginning(self) -> None:
        room = Room()
        for turn in range(36):
            room.ask(f"input {turn}", "reply")
        late = room.exchanges.pop(-2)
        first = room.ask("while it is answered", "reply").turns[0]
        room.exchanges.insert(-2, late)
        assert room.ask("and after", "reply").turns[0] == first


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("界", 1), ("界界界", 3), ("abcd界", 2), ("🌻", 1)],
)
def test_estimated_tokens(text: str, tokens: int) -> None:
    assert estimated_tokens(text) == tokens


class TestRetryPolicy:
    policy = RetryPolicy()

    def delays(self, message: Message, error: DomainError, now: datetime = NOW, times: int = 500) -> list[float]:
        found = [self.policy.delay(message, error, now) for _ in range(times)]
        return [delay for delay in found if delay is not None]

    @pytest.mark.parametrize(("failures", "ceiling"), [(0, 1), (1, 2), (2, 4), (3, 8)])
    def test_waits_twice_as_long_each_time_with_full_jitter(self, failures: int, ceiling: float) -> None:
        delays = self.delays(replace(MESSAGE, failures=failures), ModelUnavailable())
        assert len(delays) == 500
        assert all(0 <= delay <= ceiling for delay in delays)
        assert min(delays) < ceiling * 0.1
        assert max(delays) > ceiling * 0.9

    def test_never_longer_than_its_ceiling_of_its_own_accord(self) -> None:
        policy = RetryPolicy(max_attempts=2_000)
        message = replace(MESSAGE, failures=1_000)
        delays = [policy.delay(message, ModelUnavailable(), NOW) for _ in range(200)]
        assert all(delay is not None and delay <= 60 for delay in delays)

    @pytest.mark.parametrize(("asked", "least"), [(53.016, 53.016), (0.0, 0), (None, 0)])
    def test_never_shorter_than_the_model_asked(self, asked: float | None, least: float) -> None:
        for error, longest in (
            (ModelRateLimited(retry_after=asked), 2),
            (ModelOverloaded(retry_after=asked), 2),
            (ModelUnavailable(retry_after=asked), 1),
        ):
            delays = self.delays(MESSAGE, error)
            assert len(delays) == 500
            assert min(delays) >= least
            assert max(delays) <= max(least, longest)

    @pytest.mark.parametrize(
        ("error", "attempts"),
        [
            (ModelUnavailable(), 5),
            (GenerationFailed(), 5),
            (ModelTimedOut(), 2),
            (ReplyEmpty("STOP"), 3),
            (ReplyEmpty("OTHER"), 3),
            (ReplyEmpty("NO_CANDIDATES"), 3),
            (ReplyEmpty("MALFORMED_FUNCTION_CALL"), 3),
            (ReplyEmpty("MALFORMED_RESPONSE"), 3),
            (ReplyEmpty(None), 3),
            (ReplyEmpty("MAX_TOKENS"), 1),
            (ReplyEmpty("LANGUAGE"), 1),
            (ModelRejectedRequest(), 1),
            (ModelNotConfigured("API_KEY_INVALID"), 1),
            (ModelQuotaExhausted(), 1),
            (ReplyBlocked("SAFETY"), 1),
            (WorkerCrashed(), 1),
            (DatabaseUnavailable(), 1),
        ],
        ids=lambda value: f"{type(value).__name__}-{getattr(value, 'reason', '')}" if value else None,
    )
    def test_so_many_attempts(self, error: DomainError, attempts: int) -> None:
        made = 1
        while self.delays(replace(MESSAGE, failures=made - 1), error, times=50):
            made += 1
            assert made < 99
        assert made == attempts
        assert self.policy.is_failure(error)

    @pytest.mark.parametrize("error", [ModelTimedOut(), ReplyEmpty("STOP"), ModelUnavailable()], ids=repr)
    def test_the_setting_bounds_them_all(self, error: DomainError) -> None:
        assert RetryPolicy(max_attempts=1).delay(MESSAGE, error, NOW) is None

    def test_an_empty_reply_is_asked_for_again_quickly(self) -> None:
        assert max(self.delays(replace(MESSAGE, failures=1), ReplyEmpty("STOP"))) <= 1

    @pytest.mark.parametrize("error", [ModelOverloaded(), ModelRateLimited(), ModelDeferred(retry_after=0)], ids=repr)
    @pytest.mark.parametrize("failures", [0, 1, 99])
    def test_what_everybody_suffers_is_bounded_by_age_alone(self, error: DomainError, failures: int) -> None:
        message = replace(MESSAGE, failures=failures)
        assert self.delays(message, error, NOW + timedelta(minutes=9, seconds=50))
        assert self.delays(message, error, NOW + timedelta(minutes=10, seconds=1)) == []
        assert not self.policy.is_failure(error)

    @pytest.mark.parametrize(("age", "ceiling"), [(0, 2), (1, 2), (20, 20), (59, 59), (300, 60)])
    def test_the_longer_an_overload_lasts_the_longer_the_wait(self, age: float, ceiling: float) -> None:
        delays = self.delays(MESSAGE, ModelOverloaded(), NOW + timedelta(seconds=age))
        assert len(delays) == 500
        assert min(delays) < ceiling * 0.1
        assert ceiling * 0.9 < max(delays) <= ceiling

    def test_an_overload_of_minutes_costs_few_calls(self) -> None:
        for _ in range(50):
            age, calls = 0.0, 0
            while (delay := self.policy.delay(MESSAGE, ModelOverloaded(), NOW + timedelta(seconds=age))) is not None:
                age, calls = age + max(delay, 0.1), calls + 1
            assert age > 500
            assert calls < 60

    @pytest.mark.parametrize(
        ("age", "asked", "retried"),
        [(0, 600, True), (0, 600.001, False), (598, None, True), (600, 1, False), (601, None, False)],
    )
    def test_within_ten_minutes_the_wait_included(self, age: float, asked: float | None, retried: bool) -> None:
        now = NOW + timedelta(seconds=age)
        assert bool(self.delays(MESSAGE, ModelUnavailable(retry_after=asked), now)) is retried

    def test_the_ten_minutes_begin_when_it_was_queued(self) -> None:
        message = replace(MESSAGE, created_at=NOW - timedelta(days=1))
        assert self.delays(message, ModelUnavailable(), NOW + timedelta(minutes=9))
        assert self.delays(replace(message, queued_at=message.created_at), ModelUnavailable()) == []

    @pytest.mark.parametrize(("failures", "age", "deferred"), [(0, 0, True), (99, 564, True), (0, 571, False)])
    def test_what_was_deferred_is_ended_by_its_age_alone(self, failures: int, age: float, deferred: bool) -> None:
        error, now = ModelDeferred(retry_after=30), NOW + timedelta(seconds=age)
        message = replace(MESSAGE, failures=failures)
        delays = [RetryPolicy(max_delay=1).delay(message, error, now) for _ in range(50)]
        if deferred:  # spread out, so that those put off together do not come back together
            assert all(delay is not None and 30 <= delay <= 35 for delay in delays)
            assert len(set(delays)) > 40
        else:
            assert delays == [None] * 50

    @pytest.mark.parametrize(("deaths", "poison"), [(0, False), (2, False), (3, True), (4, True)])
    def test_three_deaths_are_poison(self, deaths: int, poison: bool) -> None:
        assert self.policy.is_poison(replace(MESSAGE, deaths=deaths)) is poison


class TestOutcome:
    def test_only_a_block_is_not_a_failure(self) -> None:
        blocked = Outcome.of_error(ReplyBlocked("SAFETY"))
        assert (blocked.status, blocked.finish_reason, blocked.error_code) == (
            MessageStatus.BLOCKED,
            "SAFETY",
            "reply_blocked",
        )
        for error in (ModelUnavailable(), ModelRejectedRequest(), ReplyEmpty(), WorkerCrashed()):
            outcome = Outcome.of_error(error)
            assert outcome == Outcome(status=MessageStatus.FAILED, error_code=error.code, error_detail=error.detail)

    def test_an_empty_reply_keeps_the_reason(self) -> None:
        assert Outcome.of_error(ReplyEmpty("MAX_TOKENS")).finish_reason == "MAX_TOKENS"

    def test_final_states(self) -> None:
        assert {status for status in MessageStatus if not status.is_final} == {
            MessageStatus.QUEUED,
            MessageStatus.GENERATING,
        }
