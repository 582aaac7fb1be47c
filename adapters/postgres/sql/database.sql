-- find_tables --
-- Fail unless the database can be used and has tables.
SELECT FROM messages LIMIT 0;

-- lock_migrations --
-- Wait until nobody else migrates this database.
SELECT pg_advisory_lock(:key);
