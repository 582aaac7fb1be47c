"""A key that the model refuses: where it is reported, how often, and until when."""

from __future__ import annotations

from datetime import timedelta

import pytest

from adapters.memory.language_model import MemoryModelSetup
from application.readiness import CheckReadiness, Shutdown
from domain.chat.messages import MessageStatus
from domain.errors import DatabaseUnavailable, ModelError, ModelNotConfigured, ModelUnavailable
from tests.unit.conftest import World

REFUSED = ModelNotConfigured("API_KEY_INVALID")


async def answered(world: World, number: int = 0) -> MessageStatus | None:
    room = await world.room(await world.user(f"+9198765432{number:02d}"))
    return await world.container.generate_reply()(message_id=(await world.sent(room=room)).id)


async def test_a_message_fails_at_once_and_costs_nothing(world: World) -> None:
    world.model.add(REFUSED)
    message = await world.sent()
    assert await world.container.generate_reply()(message_id=message.id) is MessageStatus.FAILED
    stored = await world.stored(message)
    assert (stored.error_code, stored.attempt, stored.charged) == ("model_not_configured", 1, False)
    assert await world.setup.refused_for() == "API_KEY_INVALID"


async def test_it_is_logged_once_a_minute(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.model.add(*[REFUSED] * 50)
    for number in range(50):
        await answered(world, number)
        world.clock.move(timedelta(seconds=3))
    lines = [record for record in caplog.records if "model_not_configured" in record.getMessage()]
    assert [record.getMessage() for record in lines] == ["model_not_configured: API_KEY_INVALID"] * 3
    assert {record.levelname for record in lines} == {"ERROR"}


async def test_until_the_model_takes_it(world: World) -> None:
    world.model.add(REFUSED, ModelUnavailable(), "A reply.", REFUSED)
    for number, refused_for in enumerate(("API_KEY_INVALID", "API_KEY_INVALID", None, "API_KEY_INVALID")):
        await answered(world, number)
        assert await world.setup.refused_for() == refused_for


@pytest.mark.parametrize(
    ("before", "found", "after"),
    [
        (None, REFUSED, "API_KEY_INVALID"),
        ("API_KEY_INVALID", None, None),
        ("API_KEY_INVALID", ModelUnavailable(), "API_KEY_INVALID"),
        (None, ModelUnavailable(), None),
        (None, ModelNotConfigured(), "model_not_configured"),
    ],
    ids=repr,
)
async def test_a_worker_looks_when_it_starts(
    world: World, before: str | None, found: ModelError | None, after: str | None
) -> None:
    await world.setup.report(before)
    world.model.unusable = found
    await world.container.watch_setup().check()
    assert await world.setup.refused_for() == after


async def test_a_store_that_is_away_costs_no_message(world: World) -> None:
    class Away(MemoryModelSetup):
        away = True

        async def report(self, refused_for: str | None) -> None:
            if self.away:
                raise DatabaseUnavailable
            await super().report(refused_for)

    setup = Away()
    world.replace(model_setup=setup)
    world.model.add(REFUSED, "A reply.")
    assert await answered(world) is MessageStatus.FAILED
    assert await answered(world, 1) is MessageStatus.COMPLETED
    setup.away = False
    await setup.report("API_KEY_INVALID")
    assert await answered(world, 2) is MessageStatus.COMPLETED
    assert await setup.refused_for() is None, "what could not be stored is stored later"


async def test_readiness_names_it(world: World) -> None:
    check = CheckReadiness([world.model], world.setup, Shutdown())
    assert await check() == {"gemini": "ok"}
    await world.setup.report("API_KEY_INVALID")
    assert await check() == {"gemini": "ok", "model": "not configured (API_KEY_INVALID)"}
