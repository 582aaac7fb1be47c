"""When calls are paused: not because of one user's messages, and no longer than the model fails."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from adapters.memory.runtime import MemoryClock
from application.chat.breaker import PROBE_SECONDS, Breaker
from domain.ids import UserId

PAUSE, MEMORY, PATIENCE = 30, 120, 10


class Scene:
    """A breaker on a clock. In a pattern "a" is a call of user a that ended well, and "A" one that failed."""

    def __init__(self, *, users: int = 20, least: int = 3) -> None:
        self.clock = MemoryClock()
        self.breaker = Breaker(
            users=users,
            min_samples=least,
            pause=timedelta(seconds=PAUSE),
            memory=timedelta(seconds=MEMORY),
            patience=timedelta(seconds=PATIENCE),
        )

    def wait(self, *, fresh: bool = True) -> float | None:
        return self.breaker.time_until_allowed(self.clock.now(), fresh=fresh)

    def report(self, pattern: str, *, ago: float = 0) -> list[bool]:
        """Whether each of these opened it; `ago`: seconds since the calls were let through."""
        now = self.clock.now()
        return [
            self.breaker.report(
                UserId(UUID(int=ord(call.lower()))), failed=call.isupper(), began=now - timedelta(seconds=ago), now=now
            )
            for call in pattern
        ]

    def opened(self, pattern: str = "ABC") -> Scene:
        assert self.report(pattern)[-1]
        return self

    def pass_(self, seconds: float) -> None:
        self.clock.move(timedelta(seconds=seconds))


class TestOpens:
    @pytest.mark.parametrize(
        ("pattern", "opens_at"),
        [
            ("A" * 1_000, None),  # one user's messages, however many
            ("AB" * 1_000, None),
            ("ABC", 3),
            ("abABC", 5),  # the two were answered before
            ("abcABC", 6),
            ("wxyzABC", None),
            ("wxyzABCD", 8),
            ("ABCa", 3),
            ("AaBbCcDd", None),  # the latest of each counts
            ("AaBbCcABC", 9),
            ("abcdefghijklmnopqrst", None),
        ],
    )
    def test_when_half_of_the_users_were_failed(self, pattern: str, opens_at: int | None) -> None:
        scene = Scene()
        opened = None
        for number, call in enumerate(pattern, 1):
            assert scene.wait() is None
            if scene.report(call) == [True]:
                opened = number
                break
        assert opened == opens_at
        assert (scene.wait() is None) is (opened is None)

    def test_only_the_latest_users_count(self) -> None:
        scene = Scene(users=6)
        scene.report("abcdefghij")
        assert scene.report("XYZ") == [False, False, True]

    def test_who_came_again_is_among_the_latest(self) -> None:
        scene = Scene(users=6)
        scene.report("abcdef")
        scene.report("a")
        assert scene.report("BCD") == [False, False, True]

    def test_what_is_long_ago_counts_no_more(self) -> None:
        scene = Scene()
        scene.report("AB")
        scene.pass_(MEMORY)
        assert scene.report("C") == [False]
        scene.report("vwxyz")
        scene.pass_(MEMORY)
        assert scene.report("ABC") == [False, False, True]

    def test_it_keeps_no_more_than_that(self) -> None:
        scene = Scene(users=6)
        for number in range(1_000):
            now = scene.clock.now()
            scene.breaker.report(UserId(UUID(int=number)), failed=False, began=now, now=now)
        assert len(scene.breaker._verdicts) == 6  # noqa: SLF001


class TestOpen:
    def test_lets_nobody_through_and_says_how_long(self) -> None:
        scene = Scene().opened()
        assert scene.wait() == PAUSE
        scene.pass_(PAUSE - 0.5)
        assert scene.wait() == 0.5
        assert scene.wait(fresh=False) == 0.5

    @pytest.mark.parametrize("late", ["ABCDE" * 10, "abcde" * 10])
    def test_what_ends_late_changes_nothing(self, late: str) -> None:
        scene = Scene().opened()
        scene.pass_(10)
        assert scene.report(late, ago=15) == [False] * 50
        assert scene.wait() == PAUSE - 10

    def test_then_lets_one_through_and_no_other(self) -> None:
        scene = Scene().opened()
        scene.pass_(PAUSE)
        assert scene.wait() is None
        assert [scene.wait() for _ in range(5)] == [PROBE_SECONDS] * 5

    def test_but_none_that_has_failed_while_others_may_come(self) -> None:
        scene = Scene().opened()
        scene.pass_(PAUSE)
        assert scene.wait(fresh=False) == PATIENCE
        scene.pass_(PATIENCE - 1)
        assert scene.wait(fresh=False) == 1
        assert scene.wait() is None

    def test_if_no_other_comes_any_one_will_do(self) -> None:
        scene = Scene().opened()
        scene.pass_(PAUSE + PATIENCE)
        assert scene.wait(fresh=False) is None
        assert scene.wait() == PROBE_SECONDS

    def test_a_probe_that_ends_well_closes_it_and_what_was_is_forgotten(self) -> None:
        scene = Scene().opened()
        scene.pass_(PAUSE)
        scene.wait()
        assert scene.report("d") == [False]
        assert [scene.wait() for _ in range(5)] == [None] * 5
        assert scene.report("ABC") == [False, False, True]

    def test_a_probe_that_fails_opens_it_again(self) -> None:
        scene = Scene().opened()
        for _ in range(3):
            scene.pass_(PAUSE)
            assert scene.wait() is None
            scene.pass_(7)
            assert scene.report("D", ago=7) == [True]
            assert scene.wait() == PAUSE

    def test_a_probe_that_began_well_may_fail_in_the_end(self) -> None:
        scene = Scene().opened()
        scene.pass_(PAUSE)
        scene.wait()
        assert scene.report("d") == [False]
        scene.pass_(7)
        assert scene.report("D", ago=7) == [False], "one user's failure, as any other"
        assert scene.report("EF") == [False, True]

    def test_a_forgotten_probe_leaves_its_place_to_another(self) -> None:
        scene = Scene().opened()
        scene.pass_(PAUSE)
        scene.wait()
        scene.breaker.discard(began=scene.clock.now())
        assert scene.wait() is None
        assert scene.wait() is not None
        assert scene.report("a") == [False]
        assert scene.wait() is None

    @pytest.mark.parametrize("late", ["D", "d"])
    def test_what_ends_late_is_not_taken_for_the_probe(self, late: str) -> None:
        scene = Scene().opened()
        scene.pass_(PAUSE)
        assert scene.wait() is None
        assert scene.report(late, ago=PAUSE + 1) == [False]
        scene.breaker.discard(began=scene.clock.now() - timedelta(seconds=PAUSE + 1))
        assert scene.wait() is not None, "the probe is still out"
        assert scene.report("a") == [False]
        assert scene.wait() is None

    def test_what_ends_after_it_has_closed_again_does_not_count(self) -> None:
        scene = Scene().opened()
        scene.pass_(PAUSE)
        scene.wait()
        scene.report("a")
        scene.pass_(5)
        assert scene.report("ABCDE", ago=PAUSE + 10) == [False] * 5
        assert scene.wait() is None

    def test_forgetting_while_it_is_closed_is_nothing(self) -> None:
        scene = Scene()
        scene.breaker.discard(began=scene.clock.now())
        assert scene.wait() is None
