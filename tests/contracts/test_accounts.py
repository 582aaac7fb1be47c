"""What Users, OtpChallenges and SecretHasher promise."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from adapters.memory.accounts import PlainHasher
from adapters.security import Argon2Hasher
from application.ports.accounts import SecretHasher
from domain.accounts import OTP_GUESSES, MobileNumber, OtpChallenge, OtpGuess, OtpPurpose
from domain.billing import FOREVER
from domain.errors import MobileTaken
from domain.ids import UserId
from tests.contracts.conftest import Adapters

ANN = MobileNumber("+919876543210")
LOGIN, RESET = OtpPurpose.LOGIN, OtpPurpose.RESET


def challenge(
    adapters: Adapters, *, purpose: OtpPurpose = LOGIN, code_hash: str = "a hash", secret: bytes = b"a challenge"
) -> OtpChallenge:
    return OtpChallenge(
        mobile=ANN,
        purpose=purpose,
        challenge_hash=secret + purpose.encode(),
        code_hash=code_hash,
        expires_at=adapters.clock.now() + timedelta(minutes=5),
    )


async def guess(adapters: Adapters, purpose: OtpPurpose = LOGIN, secret: bytes | None = None) -> str | None:
    """The hash to compare with; `secret` for a bound guess."""
    challenge_hash = None if secret is None else secret + purpose.encode()
    guessed = await adapters.challenges.count_guess(
        ANN, purpose, challenge_hash=challenge_hash, now=adapters.clock.now()
    )
    return guessed.code_hash if guessed else None


class TestUsers:
    @pytest.mark.parametrize("changes", [{}, {"password_hash": "h", "pro_until": FOREVER, "chatrooms_version": 7}])
    async def test_is_found_by_number_as_it_was_stored(self, adapters: Adapters, changes: dict[str, object]) -> None:
        user = await adapters.user(name="Zoë 🌻", **changes)
        assert await adapters.users.find_by_mobile(user.mobile) == user

    async def test_an_unknown_number_is_nobody(self, adapters: Adapters) -> None:
        assert await adapters.users.find_by_mobile(ANN) is None

    async def test_a_number_is_taken_once(self, adapters: Adapters) -> None:
        user = await adapters.user(mobile=ANN)
        with pytest.raises(MobileTaken):
            await adapters.user(mobile=ANN, name="Bob")
        assert await adapters.users.find_by_mobile(ANN) == user

    async def test_of_many_at_once_one_gets_the_number(self, adapters: Adapters) -> None:
        users = [adapters.new_user(mobile=ANN) for _ in range(20)]
        results = await adapters.race(*(adapters.users.add(user) for user in users), table="users")
        assert sorted(type(result).__name__ for result in results) == ["MobileTaken"] * 19 + ["NoneType"]
        assert await adapters.users.find_by_mobile(ANN) == users[results.index(None)]

    async def test_a_rolled_back_user_leaves_the_number_free(self, adapters: Adapters) -> None:
        async with adapters.rolled_back():
            await adapters.user(mobile=ANN)
        assert await adapters.users.find_by_mobile(ANN) is None
        await adapters.user(mobile=ANN)

    async def test_a_taken_number_inside_a_unit_of_work_undoes_what_came_before(self, adapters: Adapters) -> None:
        await adapters.user(mobile=ANN)
        other = adapters.new_user()

        async def add_both() -> None:
            async with adapters.unit_of_work():
                await adapters.users.add(other)
                await adapters.user(mobile=ANN)

        with pytest.raises(MobileTaken):
            await add_both()
        assert await adapters.users.find_by_mobile(other.mobile) is None

    async def test_sets_a_password_of_one_user_alone(self, adapters: Adapters) -> None:
        ann, bob = await adapters.user(), await adapters.user()
        await adapters.users.set_password(ann.id, "new hash")
        assert await adapters.users.find_by_mobile(ann.mobile) == replace(ann, password_hash="new hash")
        assert await adapters.users.find_by_mobile(bob.mobile) == bob

    async def test_a_password_is_hashed_anew_unless_it_was_changed(self, adapters: Adapters) -> None:
        ann, bob = await adapters.user(password_hash="old"), await adapters.user(password_hash="old")
        await adapters.users.rehash_password(ann.id, "old", "new")
        await adapters.users.rehash_password(ann.id, "old", "newer")
        async with adapters.rolled_back():
            await adapters.users.rehash_password(ann.id, "new", "newer")
        assert await adapters.users.find_by_mobile(ann.mobile) == replace(ann, password_hash="new")
        assert await adapters.users.find_by_mobile(bob.mobile) == bob

    async def test_of_many_at_once_one_hashes_it_anew(self, adapters: Adapters) -> None:
        ann = await adapters.user(password_hash="old")
        calls = [adapters.users.rehash_password(ann.id, "old", f"new {n}") for n in range(10)]
        assert await adapters.race(*calls, rows_of="users") == [None] * 10
        found = await adapters.users.find_by_mobile(ann.mobile)
        assert found is not None
        assert found.password_hash in {f"new {n}" for n in range(10)}

    async def test_a_password_of_nobody_is_no_error(self, adapters: Adapters) -> None:
        await adapters.users.set_password(UserId(adapters.ids.new()), "hash")

    async def test_renames_one_user_alone(self, adapters: Adapters) -> None:
        ann, bob = await adapters.user(), await adapters.user()
        await adapters.users.rename(ann.id, "Zoë 🌻")
        assert await adapters.users.find_by_mobile(ann.mobile) == replace(ann, name="Zoë 🌻")
        assert await adapters.users.find_by_mobile(bob.mobile) == bob
        await adapters.users.rename(UserId(adapters.ids.new()), "Nobody")

    async def test_a_rolled_back_password_is_the_old_one(self, adapters: Adapters) -> None:
        ann = await adapters.user(password_hash="old")
        async with adapters.rolled_back():
            await adapters.users.set_password(ann.id, "new")
        assert await adapters.users.find_by_mobile(ann.mobile) == ann


@pytest.fixture(params=[None, b"a challenge"], ids=["unbound", "bound"])
def secret(request: pytest.FixtureRequest) -> bytes | None:
    """What a guess comes with."""
    found: bytes | None = request.param
    return found


class TestOtpChallenges:
    async def test_hands_out_the_hash_for_so_many_guesses(self, adapters: Adapters, secret: bytes | None) -> None:
        await adapters.challenges.add(challenge(adapters))
        guesses = [await guess(adapters, secret=secret) for _ in range(OTP_GUESSES + 2)]
        assert guesses == ["a hash"] * OTP_GUESSES + [None, None]

    async def test_of_many_guesses_at_once_only_so_many_are_let_through(
        self, adapters: Adapters, secret: bytes | None
    ) -> None:
        await adapters.challenges.add(challenge(adapters))
        guesses = [guess(adapters, secret=secret) for _ in range(20)]
        results = await adapters.race(*guesses, rows_of="one_time_codes")
        assert sorted(map(str, results)) == ["None"] * (20 - OTP_GUESSES) + ["a hash"] * OTP_GUESSES

    async def test_strangers_do_not_use_up_the_guesses_of_who_requested_it(self, adapters: Adapters) -> None:
        await adapters.challenges.add(challenge(adapters))
        for _ in range(OTP_GUESSES + 1):
            await guess(adapters)
            await guess(adapters, secret=b"another")
        assert await guess(adapters) is None
        counted = await adapters.challenges.count_guess(
            ANN, LOGIN, challenge_hash=b"a challenge" + LOGIN.encode(), now=adapters.clock.now()
        )
        assert counted == OtpGuess("a hash", is_first=True)

    async def test_only_the_first_bound_one_is_the_first(self, adapters: Adapters) -> None:
        await adapters.challenges.add(challenge(adapters))
        now, bound = adapters.clock.now(), b"a challenge" + LOGIN.encode()
        firsts = []
        for challenge_hash in (None, bound, bound, None):
            counted = await adapters.challenges.count_guess(ANN, LOGIN, challenge_hash=challenge_hash, now=now)
            firsts.append(counted and counted.is_first)
        assert firsts == [False, True, False, False]

    async def test_a_challenge_is_for_its_number_and_purpose(self, adapters: Adapters) -> None:
        await adapters.challenges.add(challenge(adapters))
        now, bound = adapters.clock.now(), b"a challenge" + LOGIN.encode()
        bob = MobileNumber("+919876543211")
        assert await adapters.challenges.count_guess(bob, LOGIN, challenge_hash=bound, now=now) is None
        assert await adapters.challenges.count_guess(ANN, RESET, challenge_hash=bound, now=now) is None

    @pytest.mark.parametrize(("later", "found"), [(299, "a hash"), (300, None), (301, None)])
    async def test_an_expired_code_is_none(
        self, adapters: Adapters, secret: bytes | None, later: float, found: str | None
    ) -> None:
        stored = challenge(adapters)
        await adapters.challenges.add(stored)
        now = stored.expires_at - timedelta(minutes=5) + timedelta(seconds=later)
        challenge_hash = None if secret is None else stored.challenge_hash
        counted = await adapters.challenges.count_guess(ANN, LOGIN, challenge_hash=challenge_hash, now=now)
        assert (counted and counted.code_hash) == found

    async def test_nothing_sent_is_none(self, adapters: Adapters, secret: bytes | None) -> None:
        assert await guess(adapters, secret=secret) is None
        assert not await adapters.challenges.consume(ANN, LOGIN, "a hash")

    async def test_a_purpose_has_a_code_of_its_own(self, adapters: Adapters, secret: bytes | None) -> None:
        await adapters.challenges.add(challenge(adapters, purpose=RESET))
        assert await guess(adapters, LOGIN, secret) is None
        assert not await adapters.challenges.consume(ANN, LOGIN, "a hash")
        assert await guess(adapters, RESET, secret) == "a hash"

    async def test_a_new_code_leaves_the_old_one_to_who_requested_it(self, adapters: Adapters) -> None:
        await adapters.challenges.add(challenge(adapters))
        await adapters.challenges.add(challenge(adapters, code_hash="newer", secret=b"another"))
        assert await guess(adapters) == "newer"
        assert await guess(adapters, secret=b"a challenge") == "a hash"
        assert await guess(adapters, secret=b"another") == "newer"
        assert await adapters.challenges.consume(ANN, LOGIN, "newer")
        assert await adapters.challenges.consume(ANN, LOGIN, "a hash")

    async def test_purge_removes_what_has_expired(self, adapters: Adapters) -> None:
        for purpose in (LOGIN, RESET):
            await adapters.challenges.add(challenge(adapters, purpose=purpose))
        stored = challenge(adapters, purpose=RESET, secret=b"later", code_hash="later")
        await adapters.challenges.add(replace(stored, expires_at=stored.expires_at + timedelta(minutes=5)))
        await adapters.challenges.purge(expired_before=stored.expires_at + timedelta(minutes=1))
        for purpose in (LOGIN, RESET):
            assert not await adapters.challenges.consume(ANN, purpose, "a hash")
        assert await adapters.challenges.consume(ANN, RESET, "later")

    async def test_is_consumed_once(self, adapters: Adapters, secret: bytes | None) -> None:
        await adapters.challenges.add(challenge(adapters))
        assert await adapters.challenges.consume(ANN, LOGIN, "a hash")
        assert not await adapters.challenges.consume(ANN, LOGIN, "a hash")
        assert await guess(adapters, secret=secret) is None

    async def test_of_many_at_once_one_consumes_it(self, adapters: Adapters) -> None:
        await adapters.challenges.add(challenge(adapters))
        calls = [adapters.challenges.consume(ANN, LOGIN, "a hash") for _ in range(20)]
        assert sorted(map(str, await adapters.race(*calls, rows_of="one_time_codes"))) == ["False"] * 19 + ["True"]

    async def test_many_new_codes_at_once_are_each_open_to_their_own(self, adapters: Adapters) -> None:
        calls = [
            adapters.challenges.add(challenge(adapters, code_hash=f"hash {n}", secret=b"%d" % n)) for n in range(20)
        ]
        assert await adapters.race(*calls, table="one_time_codes") == [None] * 20
        assert [await guess(adapters, secret=b"%d" % n) for n in range(20)] == [f"hash {n}" for n in range(20)]
        assert await guess(adapters) in {f"hash {n}" for n in range(20)}

    async def test_rolled_back_verbs_leave_the_code_alive(self, adapters: Adapters, secret: bytes | None) -> None:
        await adapters.challenges.add(challenge(adapters))
        for _ in range(OTP_GUESSES):
            async with adapters.rolled_back():
                assert await guess(adapters, secret=secret) == "a hash"
                assert await adapters.challenges.consume(ANN, LOGIN, "a hash")
                await adapters.challenges.add(challenge(adapters, code_hash="newer", secret=b"another"))
        assert await guess(adapters, secret=secret) == "a hash"
        assert await adapters.challenges.consume(ANN, LOGIN, "a hash")


@pytest.fixture(
    scope="module",
    params=[PlainHasher, lambda: Argon2Hasher(memory_mib=1, iterations=1),
            lambda: Argon2Hasher(memory_mib=1, iterations=1, key=b"key")],
    ids=["plain", "argon2", "argon2 with a key"],
)  # fmt: skip
def hasher(request: pytest.FixtureRequest) -> SecretHasher:
    made: SecretHasher = request.param()
    return made


class TestSecretHasher:
    @pytest.mark.parametrize("secret", ["123456", "", "pässwörd 🌻", "x" * 10_000, "with\0nul"])
    async def test_matches_what_it_hashed(self, hasher: SecretHasher, secret: str) -> None:
        hashed = await hasher.hash(secret)
        assert await hasher.matches(secret, hashed)
        assert not await hasher.matches(secret + "x", hashed)
        assert not await hasher.matches(secret + "\0", hashed)

    @pytest.mark.parametrize("hashed", [None, "", "garbage", "$argon2id$v=19$m=8,t=1,p=1$", "123456"])
    async def test_what_is_no_hash_matches_nothing(self, hasher: SecretHasher, hashed: str | None) -> None:
        assert not await hasher.matches("123456", hashed)
        assert not await hasher.matches("", hashed)

    async def test_many_at_once(self, hasher: SecretHasher) -> None:
        hashes = await asyncio.gather(*(hasher.hash(str(n), caller=str(n)) for n in range(20)))
        matches = await asyncio.gather(*(hasher.matches(str(n), hashes[n], caller=str(n)) for n in range(20)))
        crossed = await asyncio.gather(*(hasher.matches(str(n), hashes[n - 1], caller=str(n)) for n in range(20)))
        assert (matches, crossed) == ([True] * 20, [False] * 20)


async def test_argon2_salts_and_keys_its_hashes() -> None:
    plain, keyed = (Argon2Hasher(memory_mib=1, iterations=1, key=key) for key in (b"", b"key"))
    assert await plain.hash("123456") != await plain.hash("123456")
    assert not await plain.matches("123456", await keyed.hash("123456"))
    assert not await keyed.matches("123456", await plain.hash("123456"))
