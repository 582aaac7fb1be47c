-- find_tables --
-- Fail unless the database can be used and has tables.
SELECT FROM messages LIMIT 0;

-- lock_migrations --
-- Lock this database for migrations, if it is not locked. A statement that waits for the lock would hold a snapshot,
-- and CREATE INDEX CONCURRENTLY waits for those.
SELECT pg_try_advisory_lock(:key) AS is_locked;
