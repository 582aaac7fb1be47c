-- partitions --
-- The partitions of messages with their range of ids, the oldest first. NULL is unbounded.
SELECT name, substring(range FROM 'FROM \(''([^'']+)''\)')::uuid AS first,
    substring(range FROM 'TO \(''([^'']+)''\)')::uuid AS next
FROM (
    SELECT relname AS name, pg_get_expr(relpartbound, oid) AS range
    FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'messages'::regclass
) AS found
ORDER BY first NULLS FIRST;

-- lock --
-- Whether this process may change the partitions now. Others do not wait for it.
SELECT pg_try_advisory_xact_lock(hashtext('gemini-backend message history')) AS is_locked;

-- limit_waiting --
-- What waits for the table keeps all others waiting, so it gives up soon.
SELECT set_config('lock_timeout', '1200', true);

-- is_used --
-- A row if the catch-all partition has messages of this time.
SELECT FROM messages_later WHERE id < :next LIMIT 1;

-- columns --
-- The columns of a message.
id, chatroom_id, user_id, input, created_at, status, response, thoughts, thinking_seconds, finish_reason, input_tokens,
    cached_tokens, output_tokens, thought_tokens, error_code, error_detail, attempt, failures, deaths, allowance_day,
    charged, cancel_requested, queued_at, max_output_tokens, thinking, kept_characters, kept_attempt, request_id,
    window_from, completed_at

-- move_on --
-- Give ids of no time, which are after the last month, their new place.
WITH moved AS (
    DELETE FROM messages_later WHERE id >= :next RETURNING
    -- include columns --
)
INSERT INTO messages (
    -- include columns --
)
SELECT
-- include columns --
FROM moved;

-- end_open --
-- Take older messages that are still open, which were queued again, out of the queue, a hundred at a time.
WITH gone AS (
    DELETE FROM queue_entries WHERE message_id = ANY (ARRAY(
        SELECT message_id FROM queue_entries WHERE message_id < :next ORDER BY message_id LIMIT 100 FOR UPDATE
    ))
    RETURNING (SELECT user_id FROM chatrooms WHERE id = chatroom_id) AS owner_id
),
owners AS (
    SELECT owner_id, count(*) AS messages FROM gone GROUP BY owner_id
)
UPDATE allowances SET in_flight = in_flight - messages FROM owners WHERE user_id = owner_id
RETURNING user_id;

-- delete_past --
-- Delete a batch of the oldest messages, which were sent before there were months.
DELETE FROM messages_past WHERE id = ANY (ARRAY(
    SELECT id FROM messages_past WHERE id < :next ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
))
RETURNING 1;

-- deleted_chatroom --
-- A deleted room whose messages are to be erased, until the end of the transaction by this process alone.
SELECT id FROM deleted_chatrooms LIMIT 1 FOR UPDATE SKIP LOCKED;

-- erase --
-- Erase a batch of the messages of a deleted room.
DELETE FROM messages
WHERE chatroom_id = :chatroom_id AND id <= coalesce(
    (SELECT id FROM messages WHERE chatroom_id = :chatroom_id ORDER BY id OFFSET :limit - 1 LIMIT 1),
    'ffffffff-ffff-ffff-ffff-ffffffffffff')
RETURNING 1;

-- forget_chatroom --
-- Forget a deleted room that has no messages any more.
DELETE FROM deleted_chatrooms
WHERE id = :chatroom_id AND NOT EXISTS (SELECT FROM messages WHERE chatroom_id = :chatroom_id);
