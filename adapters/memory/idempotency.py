"""Idempotency keys in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from adapters.memory.store import Table
from application.ports.runtime import KEY_RETENTION, Clock, IdempotencyKeys, StartedRequest, StoredReply
from domain.errors import IdempotencyKeyInUse, IdempotencyKeyReused


@dataclass(frozen=True, slots=True)
class _Kept:
    body_hash: bytes
    resource_id: UUID
    busy_until: datetime
    created_at: datetime
    reply: StoredReply | None = None


class MemoryIdempotencyKeys(IdempotencyKeys):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.table: Table[tuple[str, str], _Kept] = Table()

    async def begin(
        self, scope: str, key: str, body_hash: bytes, *, new_id: UUID, busy_for: timedelta
    ) -> StartedRequest | StoredReply:
        now = self._clock.now()
        kept = self.table.get((scope, key))
        if kept is None or kept.created_at <= now - KEY_RETENTION:
            self.table.put((scope, key), _Kept(body_hash, new_id, now + busy_for, now))
            return StartedRequest(new_id)
        if kept.body_hash != body_hash:
            raise IdempotencyKeyReused
        if kept.reply is not None:
            return kept.reply
        if kept.busy_until > now:
            raise IdempotencyKeyInUse
        self.table.put((scope, key), replace(kept, busy_until=now + busy_for))
        return StartedRequest(kept.resource_id)

    async def finish(self, scope: str, key: str, reply: StoredReply) -> None:
        kept = self.table.get((scope, key))
        if kept and kept.reply is None:
            self.table.put((scope, key), replace(kept, reply=reply))

    async def abandon(self, scope: str, key: str) -> None:
        kept = self.table.get((scope, key))
        if kept and kept.reply is None:
            self.table.put((scope, key), replace(kept, busy_until=self._clock.now()))

    async def forget(self, scope: str, key: str) -> None:
        kept = self.table.get((scope, key))
        if kept and kept.reply is None:
            self.table.put((scope, key), None)

    async def trim(self, scopes: Sequence[str], *, keep: int) -> None:
        now = self._clock.now()
        found = [
            (kept.created_at, name)
            for name, kept in self.table.items()
            if name[0] in scopes and (kept.reply is not None or kept.busy_until <= now)
        ]
        for _, name in sorted(found, reverse=True)[keep:]:
            self.table.put(name, None)

    async def purge(self) -> None:
        for key in [key for key, kept in self.table.items() if kept.created_at <= self._clock.now() - KEY_RETENTION]:
            self.table.put(key, None)
