-- find_tables --
-- Fail unless the database can be used and has tables; whether it accepts no writes.
SELECT current_setting('transaction_read_only')::bool AS is_read_only,
    EXISTS (SELECT FROM queue_entries LIMIT 0) AS has_messages;

-- server_process --
-- The server's process that runs this statement.
SELECT pg_backend_pid() AS pid;

-- time --
-- The time of the database, by which everything is stamped and compared.
SELECT clock_timestamp() AS now;

-- role_settings --
-- The user's own settings in this database.
SELECT current_user AS name, quote_ident(current_database()) AS database,
    coalesce((
        SELECT setconfig FROM pg_db_role_setting
        WHERE setrole = (SELECT oid FROM pg_roles WHERE rolname = current_user)
            AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
    ), '{}') AS settings;
