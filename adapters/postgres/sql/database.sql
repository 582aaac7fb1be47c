-- find_tables --
-- Fail unless the database can be used and has tables.
SELECT FROM messages LIMIT 0;

-- lock_migrations --
-- Whether nobody else migrates this database, from now on. Waiting in here would keep a snapshot, for whose end the
-- creation of an index waits.
SELECT pg_try_advisory_lock(:key) AS is_locked;
