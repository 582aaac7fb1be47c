-- add --
-- Store a room, or find the one with its id, and increment its owner's version. No row if the owner was deleted, or has
-- reached the limit.
WITH owner AS (
    UPDATE users SET chatrooms_version = chatrooms_version + 1 WHERE id = :user_id RETURNING id AS owner_id
)
INSERT INTO chatrooms (id, user_id, name, instructions, auto_title, created_at)
SELECT :id, owner_id, :name, :instructions, :auto_title, :created_at FROM owner
WHERE (SELECT count(*) FROM (SELECT FROM chatrooms WHERE user_id = :user_id LIMIT greatest(:limit, 0)) AS owned) < :limit
    OR EXISTS (SELECT FROM chatrooms WHERE id = :id)
ON CONFLICT (id) DO UPDATE SET id = excluded.id
RETURNING id, user_id, name, instructions, auto_title, created_at;

-- lock_owner --
-- Let one request at a time count the user's rooms.
SELECT FROM users WHERE id = :id FOR NO KEY UPDATE;

-- versioned --
-- Increment the version of the changed room's owner.
versioned AS (
    UPDATE users SET chatrooms_version = chatrooms_version + 1 FROM changed WHERE users.id = changed.user_id
)

-- change --
-- Rename a room, which ends its wait for a title, or change its instructions: '' removes them, NULL keeps them.
WITH changed AS (
    UPDATE chatrooms SET
        name = coalesce(:name, name),
        auto_title = auto_title AND :name::text IS NULL,
        instructions = CASE WHEN :instructions::text IS NULL THEN instructions ELSE nullif(:instructions, '') END
    WHERE id = :id AND user_id = :user_id
    RETURNING id, user_id, name, instructions, auto_title, created_at
),
-- include versioned --
SELECT id, user_id, name, instructions, auto_title, created_at FROM changed;

-- set_title --
-- Name a room that waits for a title.
WITH changed AS (
    UPDATE chatrooms SET name = :name, auto_title = false WHERE id = :id AND auto_title RETURNING user_id
),
-- include versioned --
SELECT FROM changed;

-- lock --
-- Lock a room against concurrent sending.
SELECT FROM chatrooms WHERE id = :id AND user_id = :user_id FOR UPDATE;

-- end_unanswered --
-- Take the room's unanswered messages out of the in-flight count, and return them.
WITH unanswered AS MATERIALIZED (
    SELECT message_id FROM queue_entries WHERE chatroom_id = :id ORDER BY message_id FOR UPDATE
),
ended AS (
    UPDATE allowances SET in_flight = in_flight - (SELECT count(*) FROM unanswered)
    WHERE user_id = :user_id AND EXISTS (SELECT FROM unanswered)
)
SELECT message_id FROM unanswered ORDER BY message_id;

-- delete --
-- Delete a room with its messages.
WITH deleted AS (DELETE FROM chatrooms WHERE id = :id)
UPDATE users SET chatrooms_version = chatrooms_version + 1 WHERE id = :user_id;

-- list_for_user --
-- A page of the user's rooms, newest first.
SELECT id, user_id, name, instructions, auto_title, created_at FROM chatrooms
WHERE user_id = :user_id AND id < coalesce(:before, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
ORDER BY id DESC LIMIT :limit;

-- view_columns --
-- The columns of a MessageView. Only for a message that is open, of which a room has few, its entry is looked up.
id, chatroom_id, input, created_at,
    CASE WHEN status <> 'queued' THEN status
        WHEN EXISTS (SELECT FROM queue_entries WHERE message_id = id AND worker_id IS NOT NULL) THEN 'generating'
        ELSE 'queued' END AS status,
    response, thoughts, thinking_seconds, finish_reason, input_tokens, cached_tokens, output_tokens, thought_tokens,
    error_code, error_detail,
    CASE WHEN status <> 'queued' THEN attempt
        ELSE coalesce((SELECT entry.attempt FROM queue_entries entry WHERE message_id = id), attempt) END AS attempt,
    charged, completed_at

-- get_with_messages --
-- A room with a page of its messages, newest first, in one round trip. The room, whose instructions may be long, is in
-- the first row only. An empty room is one row without a message.
SELECT
    CASE WHEN row_number() OVER newest = 1 THEN room_name END AS room_name,
    CASE WHEN row_number() OVER newest = 1 THEN instructions END AS instructions,
    CASE WHEN row_number() OVER newest = 1 THEN auto_title END AS auto_title,
    CASE WHEN row_number() OVER newest = 1 THEN opened_at END AS opened_at, id, chatroom_id, input, created_at, status, response, thoughts,
    thinking_seconds, finish_reason, input_tokens, cached_tokens, output_tokens, thought_tokens, error_code,
    error_detail, attempt, charged, completed_at
FROM (
    SELECT id AS room_id, name AS room_name, instructions, auto_title, created_at AS opened_at
    FROM chatrooms WHERE id = :id AND user_id = :user_id
) AS room
LEFT JOIN LATERAL (
    SELECT
    -- include view_columns --
    FROM messages
    WHERE chatroom_id = room_id AND id < coalesce(:before, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
        AND id >= :oldest
    ORDER BY id DESC LIMIT :limit
) AS message ON true
WINDOW newest AS (ORDER BY id DESC)
ORDER BY id DESC;
