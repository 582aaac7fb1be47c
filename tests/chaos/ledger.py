"""What was promised against what became of it: every 202 is a promise, and the database tells how it was kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.world import World

# The test database writes down every claim, every ending and every refund, by triggers of its own: whatever a
# process believes it did, this is what happened, and what happened twice stands there twice.
_WITNESS = """
CREATE TABLE witness (
    message_id uuid, event text, attempt int, deaths int, process text, at timestamptz DEFAULT clock_timestamp()
);
CREATE FUNCTION bear_witness() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO witness VALUES (
        NEW.id,
        CASE WHEN NEW.attempt > OLD.attempt THEN 'claimed'
             WHEN NEW.status = 'queued' THEN 'handed back'
             ELSE 'ended' END,
        NEW.attempt, NEW.deaths, current_setting('application_name')
    );
    IF OLD.charged AND NOT NEW.charged THEN
        INSERT INTO witness VALUES (NEW.id, 'refunded', NEW.attempt, NEW.deaths, current_setting('application_name'));
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER witness AFTER UPDATE ON messages FOR EACH ROW
    WHEN (NEW.status <> OLD.status OR NEW.attempt <> OLD.attempt) EXECUTE FUNCTION bear_witness();
"""

_FINAL = {"completed", "failed", "blocked", "cancelled"}


@dataclass
class Verdict:
    """Ids by what is wrong with them; all empty when every promise was kept."""

    accepted: int
    statuses: Counter[str]
    lost: set[str] = field(default_factory=set)
    stuck: set[str] = field(default_factory=set)
    duplicated: set[str] = field(default_factory=set)
    refunded_twice: set[str] = field(default_factory=set)
    wrong_usage: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        return not (self.lost or self.stuck or self.duplicated or self.refunded_twice or self.wrong_usage)

    def __str__(self) -> str:
        return (
            f"{self.accepted} accepted, {dict(self.statuses)}, {len(self.lost)} lost, {len(self.stuck)} stuck,"
            f" {len(self.duplicated)} duplicated, {len(self.refunded_twice)} refunded twice"
            + (f", wrong usage: {self.wrong_usage[:3]}" if self.wrong_usage else "")
        )


class Ledger:
    """Keeps the ids of accepted messages and compares them with the database."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.accepted: set[str] = set()

    async def open(self) -> None:
        await self._world.execute(_WITNESS)

    async def open_count(self) -> int:
        """Messages without an ending."""
        found = await self._world.fetch("SELECT count(*) AS n FROM messages WHERE status IN ('queued', 'generating')")
        return int(found[0]["n"])

    async def verdict(self) -> Verdict:
        stored = {str(row["id"]): row["status"] for row in await self._world.fetch("SELECT id, status FROM messages")}
        events = Counter[tuple[str, str]](
            (str(row["message_id"]), row["event"]) for row in await self._world.fetch("SELECT * FROM witness")
        )
        verdict = Verdict(len(self.accepted), Counter(stored[id] for id in self.accepted if id in stored))
        verdict.lost = self.accepted - stored.keys()
        verdict.stuck = {id for id, status in stored.items() if status not in _FINAL}
        verdict.duplicated = {id for (id, event), times in events.items() if event == "ended" and times > 1}
        verdict.refunded_twice = {id for (id, event), times in events.items() if event == "refunded" and times > 1}
        verdict.wrong_usage = [str(dict(row)) for row in await self._wrong_usage()]
        return verdict

    async def _wrong_usage(self) -> list[dict[str, Any]]:
        """Users whose counters do not say what their messages say."""
        return await self._world.fetch(
            "SELECT * FROM (SELECT a.user_id, a.used, a.in_flight,"
            " (SELECT count(*) FROM messages m WHERE m.user_id = a.user_id AND m.charged AND m.allowance_day = a.day)"
            "   AS charged,"
            " (SELECT count(*) FROM messages m WHERE m.user_id = a.user_id AND m.status IN ('queued', 'generating'))"
            "   AS open FROM allowances a) AS counted WHERE used <> charged OR in_flight <> open"
        )

    async def reclaim_seconds(self, kills: dict[str, float]) -> list[float]:
        """For each attempt that died with its process: seconds from the kill until the message ran again.

        `kills` are epoch seconds by the name under which the process spoke to the database.
        """
        claims = await self._world.fetch(
            "SELECT process, extract(epoch FROM at)::float8 AS at, lead(extract(epoch FROM at)::float8) OVER w AS next,"
            " lead(event) OVER w AS what FROM witness WHERE event <> 'refunded' WINDOW w AS (PARTITION BY message_id ORDER BY at)"
        )
        return [
            row["next"] - kills[row["process"]]
            for row in claims
            if row["what"] == "claimed" and row["process"] in kills and row["next"] > kills[row["process"]]
        ]
