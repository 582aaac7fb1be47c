"""Idempotency keys in Postgres, so that the loss of Redis does not let a repeated request take effect twice."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from adapters.postgres.statements import Statements
from application.ports.runtime import KEY_RETENTION, IdempotencyKeys, StartedRequest, StoredReply
from domain.errors import IdempotencyKeyInUse, IdempotencyKeyReused

SQL = Statements("idempotency")


class PostgresIdempotencyKeys(IdempotencyKeys):
    async def begin(
        self, scope: str, key: str, body_hash: bytes, *, new_id: UUID, busy_for: timedelta
    ) -> StartedRequest | StoredReply:
        while True:
            begun = await SQL.begin(
                scope=scope, key=key, body_hash=body_hash, new_id=new_id, busy_for=busy_for, kept_for=KEY_RETENTION
            )
            if begun:
                return StartedRequest(UUID(int=begun[0]["resource_id"].int))
            found = await SQL.get(scope=scope, key=key)
            if not found:
                continue  # purged concurrently
            if found[0]["body_hash"] != body_hash:
                raise IdempotencyKeyReused
            if found[0]["status"] is None:
                raise IdempotencyKeyInUse
            return StoredReply(found[0]["status"], found[0]["reply"])

    async def finish(self, scope: str, key: str, reply: StoredReply) -> None:
        await SQL.finish(scope=scope, key=key, status=reply.status, reply=reply.body)

    async def abandon(self, scope: str, key: str) -> None:
        await SQL.abandon(scope=scope, key=key)

    async def forget(self, scope: str, key: str) -> None:
        await SQL.forget(scope=scope, key=key)

    async def trim(self, scopes: Sequence[str], *, keep: int) -> None:
        await SQL.trim(scopes=scopes, keep=keep)

    async def purge(self) -> None:
        while await SQL.purge(kept_for=KEY_RETENTION):
            pass
