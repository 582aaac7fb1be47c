"""Random verbs, in random order: after each of them Postgres and Redis hold what the domain's rules say.

The same verb is called on Postgres and on memory, whose adapters only call the verbs of WrongGuesses, CodesSent,
OtpChallenge, Session and RefreshToken. Results and stored rows are compared after each step. The rate limiter's script
is compared with CallRate.
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
    OTP_LIFETIME,
    Device,
    GuessKind,
    MobileNumber,
    OtpChallenge,
    OtpPurpose,
    RefreshToken,
    Session,
    User,
    WrongGuesses,
)
from domain.errors import CodesSentTooOften, DomainError, RefreshTokenInvalid, TooManyGuesses
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

    @rule(number=numbers, kind=kinds, skew=skews)
    def guess(self, number: MobileNumber, kind: GuessKind, skew: timedelta = timedelta()) -> None:
        self.both(lambda side: side.guesses.record_wrong(number, kind, now=self.now - skew))

    @rule(number=numbers, kind=kinds, times=st.sampled_from([2, 5, 11, 25]))
    def never_rest(self, number: MobileNumber, kind: GuessKind, times: int) -> None:
        """Guess as soon as it is allowed, and once just before."""
        for _ in range(times):
            guesses = self.memory_guesses.table.get((number, kind)) or WrongGuesses(kind)
            self.now = max(self.now, guesses.next_allowed_at() or self.now)
            self.guess(number, kind)
        self.now = max(self.now, (guesses.next_allowed_at() or self.now) - MOMENT)
        self.guess(number, kind)

    @rule(number=numbers, kind=kinds)
    def guess_right(self, number: MobileNumber, kind: GuessKind) -> None:
        self.both(lambda side: side.guesses.clear(number, kind))

    @rule(number=numbers, sure=st.sampled_from([False, False, True]))
    def unlock(self, number: MobileNumber, sure: bool) -> None:
        if sure:
            self.both(lambda side: side.guesses.reset(number))

    @rule(number=numbers, is_eager=st.booleans(), skew=skews)
    def send(self, number: MobileNumber, is_eager: bool, skew: timedelta) -> None:
        sent = self.memory_sending.table.get(number)
        if is_eager and sent:
            self.now = max(self.now, sent.next_allowed_at() or self.now)
        self.both(lambda side: side.sending.record(number, now=self.now - skew))

    @rule(number=numbers, purpose=purposes, code_hash=hashes)
    def challenge(self, number: MobileNumber, purpose: OtpPurpose, code_hash: str) -> None:
        expires_at = self.now + OTP_LIFETIME
        challenge = OtpChallenge(mobile=number, purpose=purpose, code_hash=code_hash, expires_at=expires_at)
        self.both(lambda side: side.challenges.replace(challenge))

    @rule(number=numbers, purpose=purposes, times=st.integers(1, 6))
    def spend_guesses(self, number: MobileNumber, purpose: OtpPurpose, times: int) -> None:
        for _ in range(times):
            self.both(lambda side: side.challenges.count_guess(number, purpose, now=self.now))

    @rule(number=numbers, purpose=purposes, code_hash=hashes)
    def consume(self, number: MobileNumber, purpose: OtpPurpose, code_hash: str) -> None:
        self.both(lambda side: side.challenges.consume(number, purpose, code_hash))

    # --- sessions ---

    @rule(owner=st.integers(0, 1))
    def sign_in(self, owner: int) -> None:
        session = Session.begin(SessionId(self.real.ids.new()), self.people[owner].id, Device("A phone", ""), self.now)
        self.sessions.append(session)
        self.tokens.append(session.id.bytes)
        self.both(lambda side: side.sessions.add(session, session.id.bytes))

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
    @rule(n=st.integers(0, 7), owner=st.integers(0, 1))
    def end(self, n: int, owner: int) -> None:
        session = self.sessions[-1 - n % len(self.sessions)]
        self.both(lambda side: side.sessions.end(session.id, self.people[owner].id, now=self.now))

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
        digests = {self.real.digests.digest(number): number for number in (ANN, BOB)}
        assert {
            (digests[row["number_digest"]], GuessKind(row["kind"])): (tuple(row["wrong_at"]), row["in_a_row"])
            for row in await rows("TABLE wrong_guesses")
        } == {key: (guesses.times, guesses.streak) for key, guesses in self.memory_guesses.table.items()}
        assert {digests[row["number_digest"]]: tuple(row["sent_at"]) for row in await rows("TABLE codes_sent")} == {
            number: sent.times for number, sent in self.memory_sending.table.items()
        }
        assert {
            (row["mobile"], OtpPurpose(row["purpose"])): to_entity(OtpChallenge, row)
            for row in await rows("TABLE otp_challenges")
        } == dict(self.memory_challenges.table.items())
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
    except (TooManyGuesses, CodesSentTooOften) as error:
        return type(error), error.retry_after
    except (DomainError, RefreshTokenInvalid) as error:
        return type(error), error.detail


async def empty() -> None:
    for table in ("users", "wrong_guesses", "codes_sent", "otp_challenges"):
        await rows(f"DELETE FROM {table}")  # noqa: S608 - one of these tables


class RatesGame(Game):
    """Buckets of three rates. The server's clock cannot be set: a decision lies between those just before and after."""

    RATES = (Rate(1, 3_600), Rate(3, 1_000), Rate(30, 300))

    def __init__(self, container: Container, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.redis: Any = container.redis()
        self.limiter: Any = container.rate_limiter()
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
