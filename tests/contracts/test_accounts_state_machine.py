"""Random verbs, in random order: after each of them Postgres and Redis hold what the domain's rules say.

The same verb is called on Postgres and on memory, whose adapters only call the verbs of WrongGuesses, CodesSent,
OtpChallenge, Session, KnownDevice and RefreshToken. Results and stored rows are compared after each step. The rate
limiter's script is compared with CallRate.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
)

from adapters.memory.accounts import (
    MemoryGuessLimits,
    MemoryOtpChallenges,
    MemoryOtpSendLimits,
    MemorySessions,
    MemoryUsers,
)
from adapters.postgres.connection import rows
from adapters.postgres.mapping import to_entity
from application.ports.accounts import GuessLimits, OtpChallenges, OtpSendLimits, Sessions
from application.ports.runtime import Bucket
from domain.accounts import (
    FIRST_GUESS,
    OTP_LIFETIME,
    STRANGE_GUESS,
    USUAL_GUESS,
    CodesSent,
    Device,
    GuessKind,
    GuessRule,
    KnownDevice,
    MobileNumber,
    OtpChallenge,
    OtpPurpose,
    RefreshToken,
    Session,
    Standing,
    User,
    WrongGuesses,
)
from domain.errors import CodesSentTooOften, DomainError, OtpLocked, RefreshTokenInvalid, TooManyGuesses
from domain.ids import SessionId
from domain.rates import MICROSECONDS, CallRate, Rate
from entrypoints.container import Container
from tests.contracts.conftest import InPostgresAndRedis
from tests.support.state_machine import Game, play

ANN, BOB = MobileNumber("+919876543210"), MobileNumber("+919876543211")
MOMENT, SECOND, DAY = timedelta(milliseconds=1), timedelta(seconds=1), timedelta(days=1)

numbers = st.sampled_from([ANN, ANN, ANN, BOB])
kinds = st.sampled_from([GuessKind.CODE, GuessKind.CODE, GuessKind.PASSWORD])
purposes = st.sampled_from(OtpPurpose)
hashes = st.sampled_from(["one", "two"])
devices = st.sampled_from([b"", b"", b"phone"])
guess_rules = st.sampled_from([USUAL_GUESS, FIRST_GUESS, STRANGE_GUESS])
standings = st.sampled_from(Standing)
#: The clocks of two machines differ, and of two requests the later one may come first.
skews = st.sampled_from([timedelta(), timedelta(), 20 * MOMENT])
pauses = st.sampled_from(
    [
        *(MOMENT, SECOND, 9 * SECOND, 10 * SECOND, 59 * SECOND, timedelta(minutes=1)),
        *(timedelta(minutes=5), timedelta(minutes=10), timedelta(hours=1), DAY, DAY + MOMENT, 7 * DAY, 24 * DAY),
        90 * DAY,
    ]
)


@dataclass(frozen=True)
class Side:
    guesses: GuessLimits
    sending: OtpSendLimits
    challenges: OtpChallenges
    sessions: Sessions


class AccountsGame(Game):
    """Two numbers, whose owners guess, ask for codes, sign in and refresh. An index drawn counts from the latest."""

    def __init__(self, real: InPostgresAndRedis, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.real = real
        self.now = real.clock.now()
        self.users = MemoryUsers()
        self.memory_guesses, self.memory_sending = MemoryGuessLimits(), MemoryOtpSendLimits()
        self.memory_challenges, self.memory_sessions = MemoryOtpChallenges(), MemorySessions(self.users)
        self.memory = Side(self.memory_guesses, self.memory_sending, self.memory_challenges, self.memory_sessions)
        self.stored = Side(real.guess_limits, real.send_limits, real.challenges, real.sessions)
        self.people: list[User] = []
        self.sessions: list[Session] = []
        self.tokens: list[bytes] = []
        self.challenges: list[bytes] = []

    @initialize()
    def begin(self) -> None:
        self.run(empty())
        for number in (ANN, BOB):
            user = self.real.new_user(mobile=number)
            self.run(self.users.add(user))
            self.run(self.real.users.add(user))
            self.people.append(user)

    @rule(pause=pauses)
    def wait(self, pause: timedelta) -> None:
        self.now += pause

    # --- guesses and codes ---

    @rule(number=numbers, kind=kinds, device=devices, guess_rule=guess_rules, skew=skews)
    def guess(
        self,
        number: MobileNumber,
        kind: GuessKind,
        device: bytes,
        guess_rule: GuessRule,
        skew: timedelta = timedelta(),
    ) -> None:
        at = self.now - skew
        self.both(lambda side: side.guesses.record_wrong(number, kind, now=at, device=device, rule=guess_rule))

    @rule(number=numbers, kind=kinds, device=devices, guess_rule=guess_rules, times=st.sampled_from([2, 5, 11, 25]))
    def never_rest(
        self, number: MobileNumber, kind: GuessKind, device: bytes, guess_rule: GuessRule, times: int
    ) -> None:
        """Guess as soon as it is allowed, and once just before."""
        for _ in range(times):
            guesses = self.memory_guesses.table.get((number, device, kind)) or WrongGuesses(kind)
            self.now = max(self.now, guess_rule.next_allowed_at(guesses) or self.now)
            self.guess(number, kind, device, guess_rule)
        self.now = max(self.now, (guess_rule.next_allowed_at(guesses) or self.now) - MOMENT)
        self.guess(number, kind, device, guess_rule)

    @rule(number=numbers, kind=kinds, device=devices)
    def guess_right(self, number: MobileNumber, kind: GuessKind, device: bytes) -> None:
        self.both(lambda side: side.guesses.clear(number, kind, device=device))

    @rule(number=numbers, sure=st.sampled_from([False, False, True]))
    def unlock(self, number: MobileNumber, sure: bool) -> None:
        if sure:
            self.both(lambda side: side.guesses.reset(number))

    @rule(number=numbers, is_eager=st.booleans(), standing=standings, skew=skews)
    def send(self, number: MobileNumber, is_eager: bool, standing: Standing, skew: timedelta) -> None:
        sent = self.memory_sending.table.get(number)
        if is_eager and sent:
            self.now = max(self.now, sent.next_allowed_at(standing) or self.now)
        self.both(lambda side: side.sending.record(number, now=self.now - skew, standing=standing))

    @rule(is_sent=st.booleans(), most=st.integers(0, 3))
    def send_in_total(self, is_sent: bool, most: int) -> None:
        day = self.now.date()
        self.both(lambda side: side.sending.record_in_total(day=day, most=most, is_sent=is_sent))

    @rule(number=numbers, purpose=purposes, code_hash=hashes)
    def challenge(self, number: MobileNumber, purpose: OtpPurpose, code_hash: str) -> None:
        challenge = OtpChallenge(
            mobile=number,
            purpose=purpose,
            challenge_hash=self.real.ids.new().bytes,
            code_hash=code_hash,
            expires_at=self.now + OTP_LIFETIME,
        )
        self.challenges.append(challenge.challenge_hash)
        self.both(lambda side: side.challenges.add(challenge))

    @rule(number=numbers, purpose=purposes, times=st.integers(1, 6), n=st.sampled_from([None, None, 0, 1, 2]))
    def spend_guesses(self, number: MobileNumber, purpose: OtpPurpose, times: int, n: int | None) -> None:
        bound = None if n is None else ([b"none", *self.challenges][-1 - n % (len(self.challenges) + 1)])
        for _ in range(times):
            self.both(lambda side: side.challenges.count_guess(number, purpose, challenge_hash=bound, now=self.now))

    @rule(number=numbers, purpose=purposes, code_hash=hashes)
    def consume(self, number: MobileNumber, purpose: OtpPurpose, code_hash: str) -> None:
        self.both(lambda side: side.challenges.consume(number, purpose, code_hash))

    # --- sessions ---

    @rule(owner=st.integers(0, 1), device=st.integers(0, 25))
    def sign_in(self, owner: int, device: int) -> None:
        session = Session.begin(SessionId(self.real.ids.new()), self.people[owner].id, Device("A phone", ""), self.now)
        self.sessions.append(session)
        self.tokens.append(session.id.bytes)
        self.now += MOMENT  # which device was seen last is never by chance
        self.both(lambda side: side.sessions.add(session, session.id.bytes, b"%d" % device))

    @rule(number=numbers, device=st.sampled_from([None, b"0", b"1", b"25"]))
    def recognise(self, number: MobileNumber, device: bytes | None) -> None:
        self.both(lambda side: side.sessions.standing(number, device, now=self.now))

    @precondition(lambda self: self.tokens)
    @rule(n=st.integers(0, 7))
    def find_unspent(self, n: int) -> None:
        some = [b"none", *self.tokens[-1 - n % len(self.tokens) :]]
        self.both(lambda side: side.sessions.unspent(some))

    @precondition(lambda self: self.tokens)
    @rule(n=st.integers(0, 7), skew=skews)
    def refresh(self, n: int, skew: timedelta) -> None:
        token = self.tokens[-1 - n % len(self.tokens)]
        successor = token + b"+"
        rotated = self.both(lambda side: side.sessions.rotate(token, successor, now=self.now - skew))
        if isinstance(rotated, Session) and successor not in self.tokens:
            self.tokens.append(successor)

    @precondition(lambda self: self.tokens)
    @rule(times=st.sampled_from([1, 5]))
    def stay(self, times: int) -> None:
        """Refresh the latest session once in a while, up to its end."""
        for _ in range(times):
            self.now += 6 * DAY
            self.refresh(0, timedelta())

    @precondition(lambda self: self.sessions)
    @rule(n=st.integers(0, 7), owner=st.integers(0, 1), forget=st.booleans())
    def end(self, n: int, owner: int, forget: bool) -> None:
        session, user_id = self.sessions[-1 - n % len(self.sessions)], self.people[owner].id
        self.both(lambda side: side.sessions.end(session.id, user_id, now=self.now, forget_device=forget))

    @precondition(lambda self: self.sessions)
    @rule(n=st.integers(0, 7), sure=st.sampled_from([False, False, True]))
    def end_others(self, n: int, sure: bool) -> None:
        session = self.sessions[-1 - n % len(self.sessions)]
        if sure:
            self.both(lambda side: side.sessions.end_all(session.user_id, now=self.now, keep=session.id))

    @rule(owner=st.integers(0, 1))
    def list_sessions(self, owner: int) -> None:
        self.both(lambda side: side.sessions.alive(self.people[owner].id, now=self.now))

    @rule()
    def purge(self) -> None:
        self.both(lambda side: side.guesses.purge(now=self.now))
        self.both(lambda side: side.sending.purge(now=self.now))
        self.both(lambda side: side.sessions.purge(now=self.now))
        self.both(lambda side: side.challenges.purge(expired_before=self.now))

    # --- the two sides ---

    def both(self, verb: Callable[[Side], Awaitable[object]]) -> object:
        """The result of the verb, which is the same on both sides."""
        return self.run(self.results(verb))

    async def results(self, verb: Callable[[Side], Awaitable[object]]) -> object:
        expected, found = await result_of(verb(self.memory)), await result_of(verb(self.stored))
        assert found == expected
        return found

    @invariant()
    def is_stored_the_same(self) -> None:
        self.run(self.compare())

    async def compare(self) -> None:
        digests = {
            self.real.digests.digest(number, device): (number, device)
            for number in (ANN, BOB)
            for device in (b"", b"phone")
        }
        assert {
            (*digests[row["number_digest"]], GuessKind(row["kind"])): (tuple(row["wrong_at"]), row["in_a_row"])
            for row in await rows("TABLE wrong_guesses")
        } == {key: (guesses.times, guesses.streak) for key, guesses in self.memory_guesses.table.items()}
        assert {
            digests[row["number_digest"]][0]: CodesSent(tuple(row["sent_at"]), tuple(row["known_at"] or ()))
            for row in await rows("TABLE codes_sent")
        } == dict(self.memory_sending.table.items())
        totals = {row["day"]: row["sent"] for row in await rows("TABLE codes_total")}
        assert totals == dict(self.memory_sending.totals.items())
        assert {row["challenge_hash"]: to_entity(OtpChallenge, row) for row in await rows("TABLE one_time_codes")} == {
            key: challenge for key, (_, challenge) in self.memory_challenges.table.items()
        }
        assert {row["hash"]: to_entity(KnownDevice, row) for row in await rows("TABLE known_devices")} == dict(
            self.memory_sessions.devices.items()
        )
        sessions = {row["id"]: to_entity(Session, row) for row in await rows("TABLE sessions")}
        assert sessions == dict(self.memory_sessions.table.items())
        # A purge takes the tokens along; memory leaves them, and finds no session for them.
        tokens = {row["hash"]: to_entity(RefreshToken, row) for row in await rows("TABLE refresh_tokens")}
        assert tokens == {
            key: token for key, token in self.memory_sessions.tokens.items() if token.session_id in sessions
        }


async def result_of(verb: Awaitable[object]) -> object:
    try:
        return await verb
    except (TooManyGuesses, OtpLocked, CodesSentTooOften) as error:
        return type(error), error.retry_after
    except (DomainError, RefreshTokenInvalid) as error:
        return type(error), error.detail


async def empty() -> None:
    for table in ("users", "wrong_guesses", "codes_sent", "codes_total", "one_time_codes"):
        await rows(f"DELETE FROM {table}")  # noqa: S608 - one of these tables


class RatesGame(Game):
    """Buckets of three rates. The server's clock cannot be set: a decision lies between those just before and after."""

    RATES = (Rate(1, 3_600), Rate(3, 1_000), Rate(30, 300))

    def __init__(self, container: Container, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.redis: Any = container.redis()
        self.limiter: Any = container.rate_limiter()._shared  # noqa: SLF001 - the one in Redis
        self.buckets = [Bucket("rule", secrets.token_hex(8), rate) for rate in self.RATES]
        self.rates = [CallRate(rate) for rate in self.RATES]

    @rule(chosen=st.sets(st.integers(0, 2), min_size=1), times=st.sampled_from([1, 1, 2, 5]))
    def hit(self, chosen: set[int], times: int) -> None:
        for _ in range(times):
            self.run(self.hit_once(sorted(chosen)))

    async def hit_once(self, chosen: list[int]) -> None:
        before = await self.time()
        decision = await self.limiter.hit([self.buckets[n] for n in chosen])
        after = await self.time()
        waits = [max(self.rates[n].wait(at) for n in chosen) for at in (after, before)]
        wait = round(decision.retry_after * MICROSECONDS)
        assert waits[0] <= wait <= waits[1]
        for n, left in zip(chosen, decision.remaining, strict=True):
            earliest, latest = self.rates[n], self.rates[n]
            if wait == 0:
                earliest, latest = earliest.counted(before), latest.counted(after)
            assert earliest.calls_left(before) <= left.calls <= latest.calls_left(after)
            resets_in = round(left.resets_in * MICROSECONDS)
            assert earliest.resets_in(after) <= resets_in <= latest.resets_in(before)
            full_at = int(await self.redis.client.get(self.key(n)) or 0)
            assert earliest.full_at <= full_at <= latest.full_at or (full_at == 0 and latest.full_at <= after)
            self.rates[n] = CallRate(self.RATES[n], full_at)

    @rule(seconds=st.sampled_from([0.5, 9.9, 10.1, 100, 334, 1_000, 3_500, 3_700]))
    def wait(self, seconds: float) -> None:
        """What is stored becomes older."""
        self.run(self.age(round(seconds * MICROSECONDS)))

    async def age(self, by: int) -> None:
        now = await self.time()
        for n, rate in enumerate(self.rates):
            aged = CallRate(rate.rate, max(0, rate.full_at - by))
            self.rates[n] = aged
            await self.redis.client.set(self.key(n), aged.full_at, px=aged.resets_in(now) // 1_000 + 1)

    def key(self, n: int) -> str:
        return str(self.limiter._name(self.buckets[n]))  # noqa: SLF001 - what it stores is compared

    async def time(self) -> int:
        seconds, microseconds = await self.redis.client.time()
        return int(seconds) * MICROSECONDS + int(microseconds)


async def test_postgres_follows_the_rules_of_accounts(real: InPostgresAndRedis) -> None:
    await play(lambda loop: AccountsGame(real, loop), games=20, steps=25)
    await empty()


async def test_redis_follows_the_rule_of_rates(container: Container) -> None:
    await play(lambda loop: RatesGame(container, loop), games=8, steps=15)
