-- add --
-- Store a session with its first refresh token, unless its user was deleted or has changed the password.
-- FOR SHARE waits for a concurrent change of the password.
WITH owner AS (
    SELECT id FROM users
    WHERE id = :user_id AND (:password_hash::text IS NULL OR password_hash = :password_hash) FOR SHARE
),
opened AS (
    INSERT INTO sessions (id, user_id, created_at, last_seen_at, expires_at, device, network)
    SELECT :id, id, :created_at, :created_at, :expires_at, :device, :network FROM owner
    RETURNING id
)
INSERT INTO refresh_tokens (hash, session_id, expires_at)
SELECT :refresh_hash, id, :token_expires_at FROM opened
RETURNING session_id;

-- find_users --
-- The owners of sessions that have not ended; of many, since each request looks up one.
SELECT sessions.id AS key, users.id, mobile, name, password_hash, pro_until, chatrooms_version, users.created_at
FROM sessions JOIN users ON users.id = sessions.user_id
WHERE sessions.id = ANY(:keys::uuid[]) AND sessions.ended_at IS NULL;

-- rotate --
-- Exchange a refresh token for the next one. Concurrent requests with the same token wait here for the first and then
-- find no row. The session is locked before its tokens, as in its deletion.
WITH family AS (
    SELECT id AS family_id, expires_at AS family_expires_at FROM sessions
    WHERE id = (SELECT session_id FROM refresh_tokens WHERE hash = :spent_hash)
        AND ended_at IS NULL AND expires_at > :now
    FOR UPDATE
),
spent AS (
    UPDATE refresh_tokens SET spent_at = :now FROM family
    WHERE hash = :spent_hash AND spent_at IS NULL AND expires_at > :now AND session_id = family_id
    RETURNING family_id, family_expires_at
),
successor AS (
    INSERT INTO refresh_tokens (hash, session_id, expires_at)
    SELECT :next_hash, family_id, least(:now + :idle::interval, family_expires_at) FROM spent
)
UPDATE sessions SET last_seen_at = :now FROM spent WHERE id = family_id
RETURNING id, user_id, created_at, last_seen_at, expires_at, device, network, ended_at;

-- find_token --
-- A refresh token with its session, and whether its successor has not been spent yet.
SELECT sessions.id, user_id, created_at, last_seen_at, sessions.expires_at, device, network, ended_at,
    token.expires_at AS token_expires_at, spent_at,
    EXISTS (SELECT FROM refresh_tokens WHERE hash = :next_hash AND spent_at IS NULL) AS is_last
FROM refresh_tokens AS token JOIN sessions ON sessions.id = session_id
WHERE hash = :spent_hash;

-- alive --
-- The user's usable sessions, the most recently seen first.
SELECT id, user_id, created_at, last_seen_at, expires_at, device, network, ended_at FROM sessions
WHERE user_id = :user_id AND ended_at IS NULL AND expires_at > :now AND last_seen_at > :now - :idle::interval
ORDER BY last_seen_at DESC, id DESC;

-- end_all --
-- End the user's open sessions, except one.
WITH open AS (
    SELECT id FROM sessions
    WHERE user_id = :user_id AND ended_at IS NULL AND id IS DISTINCT FROM :keep
    ORDER BY id FOR UPDATE
)
UPDATE sessions SET ended_at = :now FROM open WHERE sessions.id = open.id;

-- purge --
-- Remove sessions that are over, in batches, each kind by its index.
DELETE FROM sessions WHERE id = ANY (
    ARRAY(SELECT id FROM sessions WHERE expires_at < :now ORDER BY expires_at LIMIT 500 FOR UPDATE SKIP LOCKED)
    || ARRAY(SELECT id FROM sessions WHERE ended_at < :now ORDER BY ended_at LIMIT 500 FOR UPDATE SKIP LOCKED)
    || ARRAY(
        SELECT id FROM sessions WHERE last_seen_at < :now - :idle::interval
        ORDER BY last_seen_at LIMIT 500 FOR UPDATE SKIP LOCKED
    )
)
RETURNING id;
