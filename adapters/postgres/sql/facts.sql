-- server --
-- What an operator should know about this server, and about our place on it.
SELECT current_setting('server_version') AS version,
    current_user AS role,
    pg_backend_pid() AS pid,
    pg_is_in_recovery() AS is_standby,
    current_setting('transaction_read_only')::boolean AS is_read_only,
    current_setting('server_encoding') AS encoding,
    current_setting('max_connections')::int AS max_connections,
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true)::int, 0) AS our_connections,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used_connections,
    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_superuser,
    (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS role_limit,
    (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS database_limit,
    (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user AND backend_type = 'client backend')
        AS used_by_role,
    clock_timestamp() AS now;

-- settings --
-- What this session has.
SELECT name, setting FROM pg_settings WHERE name = ANY(:names);

-- missing_privileges --
-- What this role may not do with our tables.
SELECT relation.relname AS name, string_agg(privilege, ', ') AS missing
FROM pg_class AS relation, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
WHERE relation.relnamespace = current_schema()::regnamespace AND relation.relname = ANY(:tables)
    AND NOT has_table_privilege(relation.oid, privilege)
GROUP BY relation.relname
ORDER BY relation.relname;
