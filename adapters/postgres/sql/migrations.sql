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

-- find_index --
-- Whether an index is valid, which an interrupted CREATE INDEX CONCURRENTLY leaves behind as not.
SELECT indisvalid AS is_valid FROM pg_index WHERE indexrelid = to_regclass(:name);

-- partitions --
-- The partitions of a table, the last one first: none if it is not partitioned.
SELECT relname AS name FROM pg_inherits JOIN pg_class ON oid = inhrelid
WHERE inhparent = to_regclass(:name) AND relkind = 'r' ORDER BY oid DESC;

-- long_transactions --
-- Those that a migration may be waiting for: not the one that holds its lock.
SELECT pid, coalesce(nullif(application_name, ''), backend_type) AS name,
    extract(epoch FROM now() - xact_start)::int AS seconds
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start < now() - interval '2 s'
    AND NOT EXISTS (
        SELECT FROM pg_locks
        WHERE pg_locks.pid = pg_stat_activity.pid AND locktype = 'advisory'
            AND (classid::bigint << 32) + objid::bigint = :key
    )
ORDER BY xact_start LIMIT 3;
