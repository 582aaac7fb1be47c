"""An error of the database's disk when a reply is stored: the worker keeps the reply, and stores it when it can."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.support.database import execute
from tests.support.gemini_standin import GeminiStandIn
from tests.support.http_client import sign_up
from tests.support.patience import HANG

pytestmark = pytest.mark.usefixtures("worker")

#: A sequence counts refusals, since it outlives the transactions that are rolled back.
BROKEN = """
    CREATE SEQUENCE refusals;
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM nextval('refusals');
        RAISE EXCEPTION USING ERRCODE = '{code}';
    END $$;
    CREATE TRIGGER refuse BEFORE UPDATE ON messages FOR EACH ROW WHEN (NEW.status = 'completed')
        EXECUTE FUNCTION refuse();
"""
MENDED = "DROP TRIGGER IF EXISTS refuse ON messages; DROP FUNCTION IF EXISTS refuse; DROP SEQUENCE IF EXISTS refusals"


@pytest.mark.parametrize("code", ["58030", "XX000", "55P03", "53100"])
async def test_a_finished_reply_is_kept(
    http: httpx.AsyncClient, product: dict[str, str], gemini_standin: GeminiStandIn, code: str
) -> None:
    asha, database = await sign_up(http), product["DATABASE_URL"]
    room = await asha.room()
    for statement in BROKEN.format(code=code).split(";\n    CREATE"):
        await execute(database, statement if "CREATE" in statement else f"CREATE{statement}")
    try:
        message = await asha.send(room, "Why?")
        async with asyncio.timeout(HANG):
            while (await execute(database, "SELECT last_value AS n FROM refusals"))[0]["n"] < 4:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.02)
        assert (await asha.message(room, message))["status"] != "failed"
    finally:
        for statement in MENDED.split("; "):
            await execute(database, statement)
    assert (await asha.reply(room, message))["status"] == "completed"
    assert gemini_standin.log()["total"] == 1, "the model was called again"
    [row] = await execute(database, f"SELECT attempt FROM messages WHERE id = '{message}'")  # noqa: S608
    assert row["attempt"] == 1
