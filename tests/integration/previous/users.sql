-- add --
-- Store a user, unless the number has one. A violated constraint would put the number into Postgres's log.
INSERT INTO users (id, mobile, name, password_hash, pro_until, chatrooms_version, created_at)
VALUES (:id, :mobile, :name, :password_hash, :pro_until, :chatrooms_version, :created_at)
ON CONFLICT DO NOTHING
RETURNING id;

-- restore_days_use --
-- Give a new user the usage of today that an earlier account of the number left.
WITH kept AS (
    DELETE FROM kept_allowances WHERE number_digest = :number_digest
    RETURNING day, used, minute_from, minute_used, input_tokens, output_tokens, empty_cuts
)
INSERT INTO allowances
    (user_id, in_flight, day, used, minute_from, minute_used, input_tokens, output_tokens, empty_cuts)
SELECT :user_id, 0, day, used, minute_from, minute_used, input_tokens, output_tokens, empty_cuts FROM kept;

-- keep_days_use --
-- Keep the user's usage of today, with nothing in flight, for the number's next account.
INSERT INTO kept_allowances
    (number_digest, day, used, minute_from, minute_used, input_tokens, output_tokens, empty_cuts)
SELECT :number_digest, day, used, minute_from, minute_used, input_tokens, output_tokens, empty_cuts
FROM allowances WHERE user_id = :user_id AND day >= (now() AT TIME ZONE 'UTC')::date
ON CONFLICT (number_digest) DO UPDATE SET
    day = excluded.day,
    used = excluded.used,
    minute_from = excluded.minute_from,
    minute_used = excluded.minute_used,
    input_tokens = excluded.input_tokens,
    output_tokens = excluded.output_tokens,
    empty_cuts = excluded.empty_cuts;

-- purge_days_use --
-- Remove the usage of deleted accounts of earlier days.
DELETE FROM kept_allowances WHERE day < :today;

-- lock_chatrooms --
-- Lock the user's chatrooms.
SELECT FROM chatrooms WHERE user_id = :user_id ORDER BY id FOR UPDATE;

-- lock_messages --
-- Lock the user's messages.
SELECT FROM messages WHERE user_id = :user_id ORDER BY id FOR UPDATE;

-- lock_allowance --
-- Lock the user's counters.
SELECT FROM allowances WHERE user_id = :user_id FOR UPDATE;

-- lock_billing --
-- Lock the user's billing account.
SELECT FROM billing_accounts WHERE user_id = :user_id FOR UPDATE;

-- delete_codes --
-- Delete the one-time codes of the user's number.
DELETE FROM otp_challenges WHERE mobile = (SELECT mobile FROM users WHERE id = :user_id);

-- lock --
-- Lock the user, and return the number.
SELECT mobile FROM users WHERE id = :user_id FOR UPDATE;

-- lock_sessions --
-- Lock the user's sessions.
SELECT FROM sessions WHERE user_id = :user_id ORDER BY id FOR UPDATE;

-- delete --
-- Delete a user and everything that refers to it.
DELETE FROM users WHERE id = :user_id;

-- delete_replies --
-- Delete the stored replies of an owner. Unlike LIKE, these operators always use the index.
DELETE FROM idempotency_keys WHERE scope ~>=~ (:owner::text || ' ') AND scope ~<~ (:owner::text || '!');
