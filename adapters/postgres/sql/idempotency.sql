-- begin --
-- Take the key if it is new, expired, or held by a request that never finished.
INSERT INTO idempotency_keys AS kept (scope, key, body_hash, resource_id, busy_until, created_at)
VALUES (:scope, :key, :body_hash, :new_id, now() + :busy_for, now())
ON CONFLICT (scope, key) DO UPDATE SET
    body_hash = excluded.body_hash,
    busy_until = excluded.busy_until,
    status = NULL,
    reply = NULL,
    resource_id = CASE WHEN kept.created_at <= now() - :kept_for::interval
        THEN excluded.resource_id ELSE kept.resource_id END,
    created_at = CASE WHEN kept.created_at <= now() - :kept_for::interval THEN now() ELSE kept.created_at END
WHERE kept.created_at <= now() - :kept_for::interval
    OR kept.status IS NULL AND kept.busy_until <= now() AND kept.body_hash = excluded.body_hash
RETURNING resource_id;

-- get --
-- What is stored under the key.
SELECT body_hash, status, reply FROM idempotency_keys WHERE scope = :scope AND key = :key;

-- finish --
-- Store the reply.
UPDATE idempotency_keys SET status = :status, reply = :reply
WHERE scope = :scope AND key = :key AND status IS NULL;

-- abandon --
-- Let the next request with the key run at once.
UPDATE idempotency_keys SET busy_until = now() WHERE scope = :scope AND key = :key AND status IS NULL;

-- forget --
-- Drop the key of a request that had no effect.
DELETE FROM idempotency_keys WHERE scope = :scope AND key = :key AND status IS NULL;

-- trim --
-- Remove all but the newest keys of a user that no request holds.
WITH own AS MATERIALIZED (
    SELECT id AS own_id, created_at AS used_at FROM idempotency_keys
    WHERE scope = ANY(:scopes::text[]) AND (status IS NOT NULL OR busy_until <= now())
)
DELETE FROM idempotency_keys WHERE id = ANY (ARRAY(SELECT own_id FROM own ORDER BY used_at DESC OFFSET :keep));

-- purge --
-- Remove what is no longer replayed, in batches.
DELETE FROM idempotency_keys WHERE id = ANY (ARRAY(
    SELECT id FROM idempotency_keys WHERE created_at <= now() - :kept_for::interval ORDER BY created_at LIMIT 500 FOR UPDATE SKIP LOCKED
))
RETURNING id;
