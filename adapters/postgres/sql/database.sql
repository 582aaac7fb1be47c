-- find_tables --
-- Fail unless the database can be used and has tables.
SELECT FROM messages LIMIT 0;

-- lock_migrations --
-- Lock this database for migrations until the end of the transaction, if it is not locked. A statement that waits for
-- the lock would hold a snapshot, and CREATE INDEX CONCURRENTLY waits for those.
SELECT pg_try_advisory_xact_lock(:key) AS is_locked;

-- lock_holder --
-- Who holds that lock.
SELECT pid FROM pg_locks
WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (classid::bigint << 32) + objid::bigint = :key;

-- has_history --
-- Whether any migration was ever applied.
SELECT to_regclass('aerich') IS NOT NULL AS has_history;

-- applied_migrations --
-- The names of the migrations that were applied, in their order.
SELECT version FROM aerich WHERE app = 'models' ORDER BY id;

-- tables --
-- The tables of the schema that new ones are created in.
SELECT tablename FROM pg_tables WHERE schemaname = current_schema();
