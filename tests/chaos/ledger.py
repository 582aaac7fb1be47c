"""Compares what was promised with what happened: every 202 is a promise, and the database shows how it was kept."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.world import World

# Triggers in the test database record every claim, ending and refund: not what a process believes, but what happened,
# and twice if it happened twice. They also record writes that met no row: an UPDATE of the reply that changes nothing
# was an attempt by a process that had lost its message.
_WITNESS = """
CREATE TABLE witness (
    message_id uuid, event text, attempt int, deaths int, process text, at timestamptz DEFAULT clock_timestamp()
);
CREATE FUNCTION bear_witness_of_work() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO witness VALUES (
        NEW.message_id, CASE WHEN NEW.attempt > OLD.attempt THEN 'claimed' ELSE 'handed back' END,
        NEW.attempt, NEW.deaths, current_setting('application_name')
    );
    RETURN NEW;
END $$;
CREATE TRIGGER witness AFTER UPDATE ON queue_entries FOR EACH ROW
    WHEN (NEW.attempt <> OLD.attempt OR NEW.worker_id IS DISTINCT FROM OLD.worker_id)
    EXECUTE FUNCTION bear_witness_of_work();
CREATE FUNCTION bear_witness() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO witness VALUES (
        NEW.id, CASE NEW.status WHEN 'queued' THEN 'handed back' ELSE 'ended' END,
        NEW.attempt, NEW.deaths, current_setting('application_name')
    );
    IF OLD.charged AND NOT NEW.charged THEN
        INSERT INTO witness VALUES (NEW.id, 'refunded', NEW.attempt, NEW.deaths, current_setting('application_name'));
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER witness AFTER UPDATE ON messages FOR EACH ROW
    WHEN (NEW.status <> OLD.status OR NEW.charged <> OLD.charged
        OR NEW.response IS DISTINCT FROM OLD.response OR NEW.completed_at IS DISTINCT FROM OLD.completed_at)
    EXECUTE FUNCTION bear_witness();
CREATE FUNCTION note_attempted_ending() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO witness VALUES (NULL, 'tried to end', NULL, NULL, current_setting('application_name'));
    RETURN NULL;
END $$;
CREATE TRIGGER attempted_ending AFTER UPDATE OF response ON messages FOR EACH STATEMENT
    EXECUTE FUNCTION note_attempted_ending();
"""

_STORED = """
SELECT messages.*, workers.lease_until, entry.due_at, notified_at, entry.attempt AS last_attempt,
    entry.deaths AS last_deaths
FROM messages LEFT JOIN queue_entries entry ON message_id = messages.id LEFT JOIN workers ON workers.id = worker_id
"""
_FINAL = {"completed", "failed", "blocked", "cancelled"}


def _costs(row: dict[str, Any], *, asked: bool) -> bool:
    """Whether a message costs its allowance, in scenarios where no prompt is cut before its first word twice."""
    return asked if row["status"] == "cancelled" else row["status"] != "failed"


@dataclass
class Report:
    """Ids by what is wrong with them; all empty if every promise was kept."""

    accepted: int
    statuses: Counter[str]
    wrong: dict[str, list[str]] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        return not any(self.wrong.values())

    def __str__(self) -> str:
        found = ", ".join(f"{number} {status}" for status, number in sorted(self.statuses.items()))
        counts = [f"{len(ids)} {what}" for what, ids in self.wrong.items() if ids or what in ("lost", "duplicated")]
        named = [f"{what}: {', '.join(ids[:3])}" for what, ids in self.wrong.items() if ids]
        return "; ".join([f"{self.accepted} accepted: {found}", ", ".join(counts), *named])


class Ledger:
    """Keeps the ids of accepted messages and compares them with the database."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.accepted: set[str] = set()

    async def open(self) -> Ledger:
        await self._world.execute(_WITNESS)
        return self

    async def open_count(self) -> int:
        """The number of messages that have not ended."""
        found = await self._world.fetch("SELECT count(*) AS n FROM messages WHERE status = 'queued'")
        return int(found[0]["n"])

    async def settled(self, *, seconds: float) -> float | None:
        """Seconds until every message had ended; None if that takes longer than `seconds`."""
        started = time.monotonic()
        while await self.open_count():
            if time.monotonic() > started + seconds:
                return None
            await asyncio.sleep(0.1)
        return time.monotonic() - started

    async def report(self, *, quoted: bool = True) -> Report:
        """`quoted`: the stand-in's reply repeats the question, so a reply to the wrong message shows."""
        stored = {str(row["id"]): row for row in await self._world.fetch(_STORED)}
        events = Counter[tuple[str, str]](
            (str(row["message_id"]), row["event"]) for row in await self._world.fetch("SELECT * FROM witness")
        )

        asked = {str(row["message_id"]) for row in await self._world.fetch("SELECT message_id FROM model_calls")}

        def twice(what: str) -> list[str]:
            return [id for (id, event), times in events.items() if event == what and times > 1]

        report = Report(len(self.accepted), Counter(stored[id]["status"] for id in self.accepted if id in stored))
        report.wrong = {
            "lost": sorted(self.accepted - stored.keys()),
            "duplicated": twice("ended"),
            "stuck": [
                f"{id} ({row['status']}, attempt {row['last_attempt']}, deaths {row['last_deaths']},"
                f" lease {row['lease_until']}, due {row['due_at']}, notified {row['notified_at']})"
                for id, row in stored.items()
                if row["status"] not in _FINAL
            ],
            "refunded twice": twice("refunded"),
            "wrongly charged": [
                f"{id} ({row['status']})"
                for id, row in stored.items()
                if row["status"] in _FINAL and row["charged"] is not _costs(row, asked=id in asked)
            ],
            "with somebody else's reply": [
                id
                for id, row in stored.items()
                if quoted and row["status"] == "completed" and f"“{row['input']}”" not in row["response"]
            ],
            "users with wrong counters": [str(dict(row)) for row in await self._wrong_counters()],
        }
        return report

    async def _wrong_counters(self) -> list[dict[str, Any]]:
        """Users whose counters do not match their messages."""
        return await self._world.fetch(
            "SELECT * FROM (SELECT a.user_id, a.used, a.in_flight,"
            " (SELECT count(*) FROM messages m WHERE m.user_id = a.user_id AND m.charged AND m.allowance_day = a.day)"
            "   AS charged,"
            " (SELECT count(*) FROM messages m WHERE m.user_id = a.user_id AND m.status = 'queued')"
            "   AS open FROM allowances a) AS counted WHERE used <> charged OR in_flight <> open"
        )

    async def holders(self) -> set[str]:
        """The names of the processes that have messages now."""
        found = await self._world.fetch(
            "SELECT DISTINCT process FROM ("
            " SELECT DISTINCT ON (message_id) event, process FROM witness ORDER BY message_id, at DESC"
            ") AS latest WHERE event = 'claimed'"
        )
        return {row["process"] for row in found}

    async def reclaim_seconds(self, kills: dict[str, float]) -> list[float]:
        """For each attempt that died with its process: seconds from the kill until the message ran again.

        `kills` are epoch seconds by the name under which the process spoke to the database.
        """
        claims = await self._world.fetch(
            "SELECT process, lead(extract(epoch FROM at)::float8) OVER w AS next, lead(event) OVER w AS what"
            " FROM witness WHERE event IN ('claimed', 'handed back', 'ended')"
            " WINDOW w AS (PARTITION BY message_id ORDER BY at)"
        )
        return [
            row["next"] - kills[row["process"]]
            for row in claims
            if row["what"] == "claimed" and row["process"] in kills and row["next"] > kills[row["process"]]
        ]

    async def queue_seconds(self) -> list[float]:
        """How long each message waited for its first worker: long waits mean that the machine is overloaded."""
        found = await self._world.fetch(
            "SELECT extract(epoch FROM witness.at - created_at)::float8 AS wait FROM messages"
            " JOIN witness ON message_id = id AND event = 'claimed' AND witness.attempt = 1"
        )
        return [row["wait"] for row in found]

    async def events(self, message_id: str) -> list[dict[str, Any]]:
        """What happened to a message, in order: {event, attempt, deaths, process, at (epoch seconds)}."""
        return await self._world.fetch(
            "SELECT event, attempt, deaths, process, extract(epoch FROM at)::float8 AS at FROM witness"
            " WHERE message_id = $1::text::uuid ORDER BY witness.at",
            message_id,
        )
