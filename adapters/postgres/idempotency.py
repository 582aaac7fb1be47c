"""Idempotency keys in Postgres: losing Redis must not let a repeated request take effect twice."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from adapters.postgres.connection import rows
from application.ports.runtime import IdempotencyKeys, StoredReply
from domain.errors import IdempotencyKeyInUse, IdempotencyKeyReused

_KEPT_FOR = timedelta(hours=24)


class PostgresIdempotencyKeys(IdempotencyKeys):
    async def begin(
        self, scope: str, key: str, body_hash: bytes, *, new_id: UUID, busy_for: timedelta
    ) -> UUID | StoredReply:
        while True:
            # Ours if it is new, if it is over a day old, or if whoever began it never came back.
            begun = await rows(
                "INSERT INTO idempotency_keys AS kept (scope, key, body_hash, resource_id, busy_until, created_at)"
                " VALUES ($1, $2, $3, $4, now() + $5, now())"
                " ON CONFLICT (scope, key) DO UPDATE SET body_hash = excluded.body_hash,"
                "   busy_until = excluded.busy_until, status = NULL, reply = NULL,"
                "   resource_id = CASE WHEN kept.created_at <= now() - $6::interval THEN excluded.resource_id"
                "     ELSE kept.resource_id END,"
                "   created_at = CASE WHEN kept.created_at <= now() - $6::interval THEN now() ELSE kept.created_at END"
                " WHERE kept.created_at <= now() - $6::interval"
                "   OR kept.status IS NULL AND kept.busy_until <= now() AND kept.body_hash = excluded.body_hash"
                " RETURNING resource_id",
                scope,
                key,
                body_hash,
                new_id,
                busy_for,
                _KEPT_FOR,
            )
            if begun:
                return UUID(int=begun[0]["resource_id"].int)
            found = await rows(
                "SELECT body_hash, status, reply FROM idempotency_keys WHERE scope = $1 AND key = $2", scope, key
            )
            if not found:
                continue  # purged in this very moment
            if found[0]["body_hash"] != body_hash:
                raise IdempotencyKeyReused
            if found[0]["status"] is None:
                raise IdempotencyKeyInUse
            return StoredReply(found[0]["status"], found[0]["reply"])

    async def finish(self, scope: str, key: str, reply: StoredReply) -> None:
        await rows(
            "UPDATE idempotency_keys SET status = $3, reply = $4 WHERE scope = $1 AND key = $2 AND status IS NULL",
            scope,
            key,
            reply.status,
            reply.body,
        )

    async def abandon(self, scope: str, key: str) -> None:
        await rows(
            "UPDATE idempotency_keys SET busy_until = now() WHERE scope = $1 AND key = $2 AND status IS NULL",
            scope,
            key,
        )

    async def purge(self) -> None:
        await rows("DELETE FROM idempotency_keys WHERE created_at <= now() - $1::interval", _KEPT_FOR)
