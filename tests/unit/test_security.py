"""Tokens that have been tampered with, keys that change, and the product's own parameters for hashes."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from adapters.memory.runtime import MemoryClock
from adapters.security import HmacRefreshTokens, JwtAccessTokens, ZxcvbnCommonPasswords, key_id
from application.ports.accounts import AccessClaims
from domain.accounts import MIN_PASSWORD_CHARACTERS, Device, Session
from domain.errors import TokenExpired, TokenInvalid
from domain.ids import SessionId, UserId
from entrypoints.settings import Settings
from tests.support.tampering import parts, signed, tampered
from tests.unit.conftest import World

SECRET, OLD, OLDER = (
    "0123456789abcdef0123456789abcdef",
    "abcdefghijklmnopqrstuvwxyz012345",
    "zyxwvutsrqponmlkjihgfedcba543210",
)
USER, SESSION = UserId(UUID(int=1)), SessionId(UUID(int=2))
OWNER = AccessClaims(USER, SESSION)
CLOCK = MemoryClock()


def tokens(*secrets: str, clock: MemoryClock = CLOCK) -> JwtAccessTokens:
    return JwtAccessTokens(secrets=secrets or [SECRET], lifetime_seconds=3600, clock=clock)


def issued(*secrets: str, clock: MemoryClock = CLOCK) -> str:
    return tokens(*secrets, clock=clock).issue(Session.begin(SESSION, USER, Device(), clock.now())).token


GOOD = issued()
TAMPERED = dict(tampered(GOOD, SECRET))
#: Whether there is such a user and such a session is not written in a token.
ASKS_THE_STORE = {"a session that is none", "a user that is none", "user and session exchanged"}


class TestAccessTokens:
    def test_speak_for_their_session(self) -> None:
        assert tokens().read(GOOD) == OWNER
        assert tokens().read(signed(*parts(GOOD), SECRET)) == OWNER

    def test_say_who_made_them_for_whom_and_how(self) -> None:
        header, claims = parts(GOOD)
        assert header == {"alg": "HS256", "typ": "at+jwt", "kid": key_id(SECRET)}
        assert claims.keys() == {"iss", "aud", "sub", "sid", "jti", "iat", "exp"}
        assert claims["exp"] - claims["iat"] == 3600
        assert len(GOOD) < 600

    def test_there_are_many_ways_to_tamper(self) -> None:
        names = [name for name, _ in tampered(GOOD, SECRET)]
        assert len(names) == len(set(names)) > 150
        assert GOOD not in TAMPERED.values()

    @pytest.mark.parametrize("name", [name for name in TAMPERED if name not in ASKS_THE_STORE])
    def test_tampered_with_speak_for_nobody(self, name: str) -> None:
        reader = tokens(SECRET, OLD)
        for _ in range(2):
            with pytest.raises((TokenInvalid, TokenExpired)):
                reader.read(TAMPERED[name])

    @pytest.mark.parametrize("name", sorted(ASKS_THE_STORE))
    def test_of_others_speak_for_others(self, name: str) -> None:
        assert tokens().read(TAMPERED[name]) != OWNER

    def test_every_changed_character_counts(self) -> None:
        reader = tokens()
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        for position, character in enumerate(GOOD):
            other = alphabet[(alphabet.find(character) + 1) % len(alphabet)]
            with pytest.raises(TokenInvalid):
                reader.read(GOOD[:position] + other + GOOD[position + 1 :])
        for last in alphabet.replace(GOOD[-1], ""):
            with pytest.raises(TokenInvalid):
                reader.read(GOOD[:-1] + last)

    def test_every_missing_end_counts(self) -> None:
        reader = tokens()
        for length in range(len(GOOD)):
            with pytest.raises(TokenInvalid):
                reader.read(GOOD[:length])

    def test_expired_are_recognised_also_when_they_were_seen_before(self) -> None:
        clock = MemoryClock()
        token, reader = issued(clock=clock), tokens(clock=clock)
        reader.read(token)
        clock.move(timedelta(seconds=3605))
        assert reader.read(token) == OWNER, "five seconds of leeway"
        clock.move(timedelta(seconds=1))
        for anybody in (reader, tokens(clock=clock)):
            with pytest.raises(TokenExpired):
                anybody.read(token)

    def test_of_a_host_whose_clock_is_ahead_are_accepted(self) -> None:
        clock = MemoryClock()
        clock.move(timedelta(minutes=10))
        ahead, reader = issued(clock=clock), tokens()
        assert [reader.read(ahead) for _ in range(2)] == [OWNER, OWNER]

    def test_of_one_session_differ(self) -> None:
        assert issued() != issued()


class TestSecrets:
    def test_the_first_key_signs(self) -> None:
        assert parts(issued(SECRET, OLD))[0]["kid"] == parts(issued(SECRET))[0]["kid"] == key_id(SECRET)

    def test_the_others_hold_until_they_are_taken_out(self) -> None:
        before = issued(OLD)
        for accepted in ([OLD], [SECRET, OLD], [SECRET, OLDER, OLD]):
            assert tokens(*accepted).read(before) == OWNER
        for accepted in ([SECRET], [SECRET, OLDER]):
            with pytest.raises(TokenInvalid):
                tokens(*accepted).read(before)

    def test_a_process_with_the_new_key_and_one_with_the_old_understand_each_other(self) -> None:
        # First every process learns the new key, then it signs.
        learned, signs = tokens(OLD, SECRET), tokens(SECRET, OLD)
        for token in (issued(OLD, SECRET), issued(SECRET, OLD)):
            assert learned.read(token) == signs.read(token) == OWNER

    def test_a_key_answers_to_its_own_name_alone(self) -> None:
        header, claims = parts(GOOD)
        with pytest.raises(TokenInvalid):
            tokens(SECRET, OLD).read(signed({**header, "kid": key_id(OLD)}, claims, SECRET))
        assert tokens(SECRET, OLD).read(signed({**header, "kid": key_id(OLD)}, claims, OLD)) == OWNER

    def test_a_key_named_twice_is_one(self) -> None:
        assert tokens(SECRET, SECRET).read(GOOD) == OWNER

    def test_its_name_says_nothing_of_it(self) -> None:
        assert key_id(SECRET) != key_id(OLD)
        assert len(key_id(SECRET)) == 12

    def test_comes_from_the_settings(self) -> None:
        settings = Settings.from_environment(
            {"ACCESS_TOKEN_SECRET": SECRET, "ACCESS_TOKEN_OLD_SECRETS": f"{OLD}, {OLDER},"}
        )
        assert settings.login.access_token_secrets == [SECRET, OLD, OLDER]
        world = World(ACCESS_TOKEN_SECRET=SECRET, ACCESS_TOKEN_OLD_SECRETS=OLD)
        assert world.container.access_tokens().read(issued(OLD)) == OWNER
        with pytest.raises(TokenInvalid):
            world.container.access_tokens().read(issued(OLDER))


class TestRefreshTokens:
    def test_are_256_bits_of_chance(self) -> None:
        found = {HmacRefreshTokens(key=b"key").first() for _ in range(1_000)}
        assert len(found) == 1_000
        assert {len(token) for token in found} == {43}

    def test_the_next_is_always_the_same_and_as_long(self) -> None:
        token = HmacRefreshTokens(key=b"key").first()
        following = {HmacRefreshTokens(key=b"key").next(token) for _ in range(10)}
        assert len(following) == 1
        assert {len(one) for one in following} == {43}
        assert token not in following

    def test_the_next_is_found_by_nobody_without_the_key(self) -> None:
        token = HmacRefreshTokens(key=b"key").first()
        following = [HmacRefreshTokens(key=key).next(token) for key in (b"key", b"other key", b"")]
        assert len(set(following)) == 3

    def test_a_line_of_them_never_comes_back(self) -> None:
        tokens = HmacRefreshTokens(key=b"key")
        line = [tokens.first()]
        for _ in range(1_000):
            line.append(tokens.next(line[-1]))
        assert len(set(line)) == len({tokens.hash(token) for token in line}) == 1_001

    def test_of_what_is_stored_none_can_be_made(self) -> None:
        tokens = HmacRefreshTokens(key=b"key")
        token = tokens.first()
        assert token.encode() not in tokens.hash(token)
        assert len(tokens.hash(token)) == 32

    async def test_their_key_follows_from_the_secret_and_is_not_it(self) -> None:
        worlds = [World(ACCESS_TOKEN_SECRET=secret) for secret in (SECRET, SECRET, OLD)]
        following = [world.container.refresh_tokens().next("token") for world in worlds]
        assert following[0] == following[1] != following[2]
        assert HmacRefreshTokens(key=SECRET.encode()).next("token") not in following


class TestHashers:
    async def test_passwords_are_hashed_as_asvs_asks(self) -> None:
        world = World()
        world.container.password_hasher.reset_override()
        hasher = world.container.password_hasher()
        hashed = await hasher.hash("correct horse")
        assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=1$")
        assert await hasher.matches("correct horse", hashed)
        assert not await hasher.matches("wrong horse", hashed)


class TestCommonPasswords:
    def test_are_those_three_thousand_that_are_long_enough(self) -> None:
        common = ZxcvbnCommonPasswords()
        for password in ("password", "PassWord", "12345678", "sunshine", "trustno1"):
            assert common.contain(password)
        for password in ("", "correct horse battery staple", "xkzwqvyj", "123456"):
            assert not common.contain(password)
        found = common._common  # noqa: SLF001 - its size is the promise
        assert len(found) == 3_000
        assert min(map(len, found)) == MIN_PASSWORD_CHARACTERS
