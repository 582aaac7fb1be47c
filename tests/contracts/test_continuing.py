"""What Messages promises of continuing: the limits of sending, what is kept, and how each end leaves the reply."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from domain.billing import Allowance, SendingLimits
from domain.chat.calls import ThinkingLevel
from domain.chat.messages import (
    CUT_OFF,
    MAX_CONTINUED_CHARACTERS,
    MAX_THOUGHT_CHARACTERS,
    Message,
    MessageStatus,
    Outcome,
)
from domain.errors import (
    DomainError,
    MessageNotContinuable,
    MessageNotEnded,
    MessageNotFound,
    QuotaExceeded,
    SendingTooFast,
    TooManyInFlight,
)
from domain.ids import MessageId
from tests.contracts.conftest import BLOCKED, CANCELLED, COMPLETED, FAILED, HOUR, Adapters, exchanges, names

DAY = timedelta(days=1)
EXPIRED = timedelta(seconds=-1)
CUT = Outcome(
    status=MessageStatus.COMPLETED,
    response="Rayleigh 🌻",
    thoughts="Blue.",
    thinking_seconds=1.5,
    finish_reason=CUT_OFF,
    input_tokens=7,
    cached_tokens=3,
    output_tokens=9,
    thought_tokens=2,
)
MORE = replace(CUT, response=" e\u0301 on.", thoughts="More.", finish_reason="STOP")


def continued(adapters: Adapters, message: Message, **changes: Any) -> Message:
    """As it is to be."""
    now = adapters.clock.now()
    values = {"max_output_tokens": 77, "thinking": ThinkingLevel.HIGH, "at": now}
    return replace(message.continued(**values), **changes)  # type: ignore[arg-type]


async def go_on(adapters: Adapters, message: Message, **limits: int) -> Message:
    """Queue it, and book that the last asking is counted, but seen no more."""
    await adapters.messages.continue_reply(continued(adapters, message), limits=SendingLimits(**limits))
    adapters.unseen[message.user_id] += message.charged
    return await adapters.stored(message)


async def claim(adapters: Adapters, message: Message, lease: timedelta = HOUR) -> Message:
    claimed = await adapters.workers.claim(message.id, lease=lease)
    assert claimed is not None
    return claimed


async def counters(adapters: Adapters, message: Message) -> tuple[int, int]:
    await adapters.check_counters()
    _, used, in_flight = (await adapters.counters())[message.user_id]
    return used, in_flight


class TestContinue:
    async def test_it_is_queued_with_its_text(self, adapters: Adapters) -> None:
        message = await adapters.claimed(lease=EXPIRED)
        await claim(adapters, message)
        await adapters.messages.retry(message.id, 2, delay=timedelta())
        await claim(adapters, message)
        await adapters.messages.cancel(message.id, message.chatroom_id, message.user_id)
        assert await adapters.finish(message, CUT, attempt=3)
        cut = await adapters.stored(message)
        assert (cut.failures, cut.deaths, cut.cancel_requested) == (1, 1, True)

        anew = continued(adapters, cut)
        allowance = await adapters.messages.continue_reply(anew, limits=SendingLimits(daily=5))
        adapters.unseen[message.user_id] += 1
        assert allowance == Allowance(anew.allowance_day, 2, 5, 7, 9)
        assert await adapters.stored(message) == anew
        assert (anew.response, anew.kept_characters, anew.kept_attempt) == ("Rayleigh 🌻", 10, 3)
        assert (anew.failures, anew.deaths, anew.cancel_requested, anew.max_output_tokens) == (0, 0, False, 77)
        assert await counters(adapters, message) == (2, 1)
        assert await claim(adapters, message) == replace(anew, attempt=4, status=MessageStatus.GENERATING)

    async def test_it_ends_as_one_reply(self, adapters: Adapters) -> None:
        message = await go_on(adapters, await adapters.ended(outcome=CUT))
        await claim(adapters, message)
        assert not await adapters.finish(message, MORE), "an old attempt stays out"
        assert await adapters.finish(message, MORE, attempt=2)
        ended = await adapters.stored(message)
        assert (ended.status, ended.finish_reason) == (MessageStatus.COMPLETED, "STOP")
        assert ended.response == "Rayleigh 🌻 e\u0301 on."
        assert (ended.thoughts, ended.thinking_seconds) == ("Blue.\n\nMore.", 3.0)
        assert (ended.input_tokens, ended.cached_tokens, ended.output_tokens, ended.thought_tokens) == (14, 6, 18, 4)
        assert await counters(adapters, message) == (2, 0)
        allowance = await adapters.messages.allowance(message.user_id, day=message.allowance_day, total=None)
        assert (allowance.input_tokens, allowance.output_tokens) == (14, 18), "each call is counted once"

    async def test_what_is_unknown_adds_nothing(self, adapters: Adapters) -> None:
        bare = Outcome(status=MessageStatus.COMPLETED, response="a", finish_reason=CUT_OFF)
        for first, second in ((CUT, bare), (bare, CUT)):
            message = await go_on(adapters, await adapters.ended(outcome=first))
            await claim(adapters, message)
            await adapters.finish(message, second, attempt=2)
            ended = await adapters.stored(message)
            assert (ended.thoughts, ended.thinking_seconds) == ("Blue.", 1.5)
            tokens = (ended.input_tokens, ended.cached_tokens, ended.output_tokens, ended.thought_tokens)
            assert tokens == (7, 3, 9, 2)

    async def test_thoughts_are_bounded(self, adapters: Adapters) -> None:
        much = replace(CUT, thoughts="x" * MAX_THOUGHT_CHARACTERS)
        message = await go_on(adapters, await adapters.ended(outcome=much))
        await claim(adapters, message)
        await adapters.finish(message, much, attempt=2)
        assert (await adapters.stored(message)).thoughts == much.thoughts

    async def test_again_and_again(self, adapters: Adapters) -> None:
        message = await adapters.ended(outcome=CUT)
        for attempt in (2, 3, 4):
            message = await go_on(adapters, message)
            assert (message.kept_attempt, message.kept_characters) == (attempt - 1, 10 + (attempt - 2) * 2)
            await claim(adapters, message)
            await adapters.finish(message, replace(CUT, response="on"), attempt=attempt)
            message = await adapters.stored(message)
        assert message.response == "Rayleigh 🌻ononon"
        assert await counters(adapters, message) == (4, 0)

    async def test_asked_anew_nothing_is_kept(self, adapters: Adapters) -> None:
        message = await go_on(adapters, await adapters.ended(outcome=CUT))
        await claim(adapters, message)
        await adapters.finish(message, MORE, attempt=2)
        await adapters.messages.regenerate(adapters.anew(message), limits=SendingLimits())
        adapters.unseen[message.user_id] += 1
        queued = await adapters.stored(message)
        assert (queued.response, queued.kept_characters, queued.kept_attempt) == (None, 0, 0)
        await claim(adapters, message)
        await adapters.finish(message, CUT, attempt=3)
        assert (await adapters.stored(message)).response == CUT.response

    async def test_is_notified_like_one_just_sent(self, adapters: Adapters) -> None:
        message = await adapters.ended(outcome=CUT)
        await adapters.wait(3_600)
        await go_on(adapters, message)
        quiet = timedelta(seconds=10)
        assert await adapters.messages.take_unnotified(limit=9, notified_before=quiet) == []
        await adapters.wait(11)
        assert await adapters.messages.take_unnotified(limit=9, notified_before=quiet) == [message.id]

    async def test_is_paid_for_on_the_day_of_continuing(self, adapters: Adapters) -> None:
        yesterday = (adapters.clock.now() - DAY).date()
        message = await adapters.queued(allowance_day=yesterday)
        await claim(adapters, message)
        await adapters.finish(message, CUT)
        cut = await adapters.stored(message)
        allowance = await adapters.messages.continue_reply(continued(adapters, cut), limits=SendingLimits())
        assert allowance == Allowance(yesterday + DAY, 1, None)
        assert (await adapters.stored(message)).allowance_day == yesterday + DAY
        assert await counters(adapters, message) == (1, 1)

    async def test_later_messages_build_on_what_is_there(self, adapters: Adapters) -> None:
        room = await adapters.room()
        message = await adapters.ended(room, CUT)
        later = await adapters.queued(room)
        for _ in range(2):
            message = await go_on(adapters, message)
            assert (await adapters.messages.context(later, limit=9)).earlier == exchanges(message)
            claimed = await claim(adapters, message)
            assert (await adapters.messages.context(later, limit=9)).earlier == exchanges(claimed)
            await adapters.finish(message, CUT, attempt=claimed.attempt)
            message = await adapters.stored(message)
            assert (await adapters.messages.context(later, limit=9)).earlier == exchanges(message)


class TestRepeated:
    async def test_a_request_has_one_effect(self, adapters: Adapters) -> None:
        message = await adapters.ended(outcome=CUT)
        anew = continued(adapters, message, request_id=adapters.ids.new())
        first = await adapters.messages.continue_reply(anew, limits=SendingLimits(daily=2))
        adapters.unseen[message.user_id] += 1
        assert await adapters.messages.continue_reply(anew, limits=SendingLimits(daily=2)) == first
        claimed = await claim(adapters, message)
        assert claimed.request_id == anew.request_id
        await adapters.finish(message, CUT, attempt=2)
        again = await adapters.messages.continue_reply(anew, limits=SendingLimits(daily=2))
        assert again.used == 2, "though it could be continued, and the allowance is used up"
        assert await counters(adapters, message) == (2, 0)
        cut = await adapters.stored(message)
        for request_id in (adapters.ids.new(), None):
            await adapters.messages.continue_reply(
                continued(adapters, cut, request_id=request_id), limits=SendingLimits()
            )
            adapters.unseen[message.user_id] += 1
            ended = await claim(adapters, message)
            assert ended.request_id == request_id
            await adapters.finish(message, CUT, attempt=ended.attempt)
            cut = await adapters.stored(message)

    async def test_at_once_it_has_one_effect(self, adapters: Adapters) -> None:
        message = await adapters.ended(outcome=CUT)
        anew = continued(adapters, message, request_id=adapters.ids.new())
        calls = [adapters.messages.continue_reply(anew, limits=SendingLimits(daily=5)) for _ in range(20)]
        assert names(await adapters.race(*calls, rows_of="messages")) == {"Allowance": 20}
        adapters.unseen[message.user_id] += 1
        assert await counters(adapters, message) == (2, 1)


class TestEnds:
    @pytest.mark.parametrize(
        ("outcome", "used"),
        [(FAILED, 1), (BLOCKED, 2), (replace(CANCELLED, response=None), 2)],
        ids=lambda o: str(o)[:30],
    )
    async def test_without_a_word_the_reply_is_what_it_was(
        self, adapters: Adapters, outcome: Outcome, used: int
    ) -> None:
        message = await go_on(adapters, await adapters.ended(outcome=CUT))
        await claim(adapters, message)
        assert await adapters.finish(message, replace(outcome, input_tokens=5), attempt=2)
        ended = await adapters.stored(message)
        assert (ended.status, ended.response, ended.finish_reason) == (MessageStatus.COMPLETED, CUT.response, CUT_OFF)
        assert (ended.error_code, ended.error_detail) == (outcome.error_code, outcome.error_detail)
        assert (ended.thoughts, ended.input_tokens, ended.charged) == ("Blue.", 12, used == 2)
        assert await counters(adapters, message) == (used, 0)

        again = await go_on(adapters, ended)
        assert (again.kept_attempt, again.kept_characters) == (1, 10), "attempt 2 has added nothing"
        assert (again.error_code, again.charged) == (None, True)
        await claim(adapters, message)
        await adapters.finish(message, FAILED, attempt=3)
        assert (await adapters.counters())[message.user_id][1:] == (used, 0), "given back once"
        assert not await adapters.messages.requeue(message.id), "it is not failed"

    async def test_stopped_it_keeps_what_was_added(self, adapters: Adapters) -> None:
        message = await go_on(adapters, await adapters.ended(outcome=CUT))
        await claim(adapters, message)
        asked = await adapters.messages.cancel(message.id, message.chatroom_id, message.user_id)
        assert (asked.status, asked.cancel_requested) == (MessageStatus.GENERATING, True)
        await adapters.finish(message, CANCELLED, attempt=2)
        ended = await adapters.stored(message)
        assert (ended.status, ended.finish_reason) == (MessageStatus.COMPLETED, CUT_OFF)
        assert ended.response == "Rayleigh 🌻Half a"
        assert (await go_on(adapters, ended)).kept_attempt == 2

    @pytest.mark.parametrize("dead", [False, True], ids=["queued", "its worker dead"])
    async def test_stopped_where_nobody_answers_it_has_ended_at_once(self, adapters: Adapters, dead: bool) -> None:
        message = await go_on(adapters, await adapters.ended(outcome=CUT))
        if dead:
            await claim(adapters, message, EXPIRED)
        ended = await adapters.messages.cancel(message.id, message.chatroom_id, message.user_id)
        assert ended == await adapters.stored(message)
        assert (ended.status, ended.response, ended.finish_reason) == (MessageStatus.COMPLETED, CUT.response, CUT_OFF)
        assert (ended.input_tokens, ended.thoughts) == (7, "Blue.")
        assert ended.completed_at is not None
        assert await counters(adapters, message) == (1 + dead, 0), "it is given back if the model was not asked"
        assert not await adapters.messages.finish(message.id, 2, MORE)
        assert (await go_on(adapters, ended)).kept_attempt == 1

    async def test_whose_worker_died_it_is_taken_over_and_not_doubled(self, adapters: Adapters) -> None:
        message = await go_on(adapters, await adapters.ended(outcome=CUT))
        await claim(adapters, message, EXPIRED)
        heir = await claim(adapters, message)
        assert (heir.response, heir.kept_characters, heir.kept_attempt, heir.deaths) == (CUT.response, 10, 1, 1)
        assert not await adapters.finish(message, MORE, attempt=2)
        assert await adapters.finish(message, MORE, attempt=3)
        assert (await adapters.stored(message)).response == "Rayleigh 🌻 e\u0301 on."

    async def test_put_back_it_keeps_its_text(self, adapters: Adapters) -> None:
        message = await go_on(adapters, await adapters.ended(outcome=CUT))
        for attempt, put_back in ((2, adapters.messages.retry), (3, adapters.messages.release)):
            await claim(adapters, message)
            assert await put_back(message.id, attempt, delay=timedelta())
            stored = await adapters.stored(message)
            assert (stored.status, stored.response, stored.kept_attempt) == (MessageStatus.QUEUED, CUT.response, 1)

    async def test_deleted_it_is_in_flight_no_more(self, adapters: Adapters) -> None:
        message = await go_on(adapters, await adapters.ended(outcome=CUT))
        assert await adapters.chatrooms.delete(message.chatroom_id, message.user_id) == [message.id]
        assert (await adapters.counters())[message.user_id][1:] == (2, 0)
        adapters.unseen[message.user_id] += 1


class TestRefused:
    @pytest.mark.parametrize(
        "outcome",
        [
            COMPLETED,
            FAILED,
            BLOCKED,
            CANCELLED,
            replace(COMPLETED, finish_reason=None),
            replace(FAILED, finish_reason=CUT_OFF),
            replace(CUT, response="x" * (MAX_CONTINUED_CHARACTERS + 1)),
        ],
        ids=lambda o: f"{o.status} {o.finish_reason} {len(o.response or '')}",
    )
    async def test_what_was_not_cut_off(self, adapters: Adapters, outcome: Outcome) -> None:
        message = await adapters.ended(outcome=outcome)
        anew = replace(adapters.anew(message), response=message.response)
        with pytest.raises(MessageNotContinuable):
            await adapters.messages.continue_reply(anew, limits=SendingLimits(daily=0))
        assert await adapters.stored(message) == message

    async def test_what_is_being_answered_goes_on(self, adapters: Adapters) -> None:
        going_on = await go_on(adapters, await adapters.ended(outcome=CUT))
        for message in (
            going_on,
            await adapters.queued(),
            await adapters.claimed(),
            await adapters.claimed(lease=EXPIRED),
        ):
            with pytest.raises(MessageNotEnded):
                await adapters.messages.continue_reply(adapters.anew(message), limits=SendingLimits(daily=0))
            assert await adapters.stored(message) == message

    async def test_a_message_of_another_is_as_absent_as_none(self, adapters: Adapters) -> None:
        message, own = await adapters.ended(outcome=CUT), await adapters.room()
        for changes in (
            {"id": MessageId(adapters.ids.new())},
            {"chatroom_id": own.id},
            {"user_id": own.user_id},
            {"user_id": own.user_id, "chatroom_id": own.id},
        ):
            with pytest.raises(MessageNotFound):
                await adapters.messages.continue_reply(
                    continued(adapters, message, **changes), limits=SendingLimits(daily=0)
                )
        assert await adapters.stored(message) == message
        assert await counters(adapters, message) == (1, 0)

    @pytest.mark.parametrize(
        ("limits", "error"),
        [
            ({"daily": 2, "in_flight": 1, "per_minute": 2}, QuotaExceeded),
            ({"daily": 3, "in_flight": 1, "per_minute": 2}, TooManyInFlight),
            ({"daily": 3, "in_flight": 2, "per_minute": 2}, SendingTooFast),
        ],
    )
    async def test_by_a_limit_it_changes_nothing(
        self, adapters: Adapters, limits: dict[str, int], error: type[DomainError]
    ) -> None:
        room = await adapters.room()
        message = await adapters.ended(room, CUT)
        await adapters.queued(room)
        with pytest.raises(error):
            await adapters.messages.continue_reply(continued(adapters, message), limits=SendingLimits(**limits))
        assert await adapters.stored(message) == message
        assert await counters(adapters, message) == (2, 1)


class TestRaces:
    async def test_twenty_times_at_once_is_once(self, adapters: Adapters) -> None:
        message = await adapters.ended(outcome=CUT)
        calls = [
            adapters.messages.continue_reply(continued(adapters, message), limits=SendingLimits(daily=9))
            for _ in range(20)
        ]
        results = await adapters.race(*calls, rows_of="messages")
        assert names(results) == {"Allowance": 1, "MessageNotEnded": 19}
        adapters.unseen[message.user_id] = 1
        assert await counters(adapters, message) == (2, 1)

    async def test_with_asking_anew_one_wins(self, adapters: Adapters) -> None:
        message = await adapters.ended(outcome=CUT)
        calls: list[Any] = [
            call
            for _ in range(10)
            for call in (
                adapters.messages.continue_reply(continued(adapters, message), limits=SendingLimits()),
                adapters.messages.regenerate(adapters.anew(message), limits=SendingLimits()),
            )
        ]
        results = await adapters.race(*calls, rows_of="messages")
        assert names(results) == {"Allowance": 1, "MessageNotEnded": 19}
        adapters.unseen[message.user_id] = 1
        stored = await adapters.stored(message)
        assert (stored.kept_characters, stored.response) in ((0, None), (10, CUT.response))

    async def test_of_many_at_once_no_more_than_the_total(self, adapters: Adapters) -> None:
        room = await adapters.room()
        cut = [await adapters.ended(room, CUT) for _ in range(10)]
        calls: list[Any] = [
            adapters.messages.continue_reply(continued(adapters, message), limits=SendingLimits(daily=14))
            for message in cut
        ]
        calls += [adapters.messages.accept(adapters.new_message(room), limits=SendingLimits(daily=14)) for _ in cut]
        results = await adapters.race(*calls, rows_of="allowances")
        assert names(results) == {"Allowance": 4, "QuotaExceeded": 16}
        adapters.unseen[room.user_id] = names(results[:10])["Allowance"]
        assert await counters(adapters, cut[0]) == (14, 4)

    async def test_rolled_back_is_none(self, adapters: Adapters) -> None:
        message = await adapters.ended(outcome=CUT)
        async with adapters.rolled_back():
            await adapters.messages.continue_reply(continued(adapters, message), limits=SendingLimits())
        assert await adapters.stored(message) == message
        assert await counters(adapters, message) == (1, 0)
