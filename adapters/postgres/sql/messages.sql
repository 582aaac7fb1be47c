-- columns --
-- The columns of a Message. While it is open, its entry in the queue has its state.
messages.id, messages.chatroom_id, user_id, input, created_at,
    CASE WHEN entry.message_id IS NULL THEN status WHEN worker_id IS NULL THEN 'queued' ELSE 'generating' END AS status,
    response, thoughts, thinking_seconds, finish_reason, input_tokens, cached_tokens, output_tokens, thought_tokens,
    error_code, error_detail, coalesce(entry.attempt, messages.attempt) AS attempt,
    coalesce(entry.failures, messages.failures) AS failures, coalesce(entry.deaths, messages.deaths) AS deaths,
    allowance_day, charged, coalesce(entry.cancel_requested, messages.cancel_requested) AS cancel_requested,
    messages.queued_at, max_output_tokens, thinking, kept_characters, kept_attempt, request_id, window_from,
    completed_at

-- consumed --
-- Consume one message of the user's allowance for a `payable` row, unless a limit is reached. NULL means unlimited.
-- One row holds all counters of a user, so that one conditional statement decides. The day never goes back: a message
-- stamped before midnight but stored after it is counted on the new day.
consumed AS (
    INSERT INTO allowances AS a (user_id, day, used, in_flight, minute_from, minute_used)
    SELECT :user_id, :day, 1, 1, :at, 1 FROM payable
    WHERE coalesce(:daily::int, 1) > 0 AND coalesce(:in_flight::int, 1) > 0 AND coalesce(:per_minute::int, 1) > 0
    ON CONFLICT (user_id) DO UPDATE SET
        day = greatest(a.day, excluded.day),
        used = a.used * (a.day >= excluded.day)::int + 1,
        input_tokens = a.input_tokens * (a.day >= excluded.day)::int,
        output_tokens = a.output_tokens * (a.day >= excluded.day)::int,
        empty_cuts = a.empty_cuts * (a.day >= excluded.day)::int,
        in_flight = a.in_flight + 1,
        minute_from = CASE WHEN a.minute_from + interval '60 s' > excluded.minute_from
            THEN a.minute_from ELSE excluded.minute_from END,
        minute_used = a.minute_used * (a.minute_from + interval '60 s' > excluded.minute_from)::int + 1
    WHERE (:daily::int IS NULL OR a.used * (a.day >= excluded.day)::int < :daily)
        AND (:in_flight::int IS NULL OR a.in_flight < :in_flight)
        AND (:per_minute::int IS NULL
            OR a.minute_used * (a.minute_from + interval '60 s' > excluded.minute_from)::int < :per_minute)
    RETURNING day, used, input_tokens, output_tokens
)

-- accept --
-- Consume one message of the allowance, store the message and queue it, unless it is stored already.
WITH payable AS (
    SELECT id FROM chatrooms
    WHERE id = :chatroom_id AND user_id = :user_id AND NOT EXISTS (SELECT FROM messages WHERE id = :id)
    FOR KEY SHARE
),
-- include consumed --
,
stored AS (
    INSERT INTO messages (id, chatroom_id, user_id, input, created_at, status, allowance_day, charged, queued_at,
        max_output_tokens, thinking, attempt, failures, deaths)
    SELECT :id, :chatroom_id, :user_id, :input, :at, 'queued', day, true, :at, :max_output_tokens, :thinking, 0, 0, 0
    FROM consumed
),
queued AS (
    INSERT INTO queue_entries (message_id, chatroom_id, queued_at, due_at, notified_at)
    SELECT :id, :chatroom_id, :at, now(), now() FROM consumed
)
SELECT day, used, input_tokens, output_tokens FROM consumed;

-- regenerate --
-- Consume one message of the allowance and queue an ended message without its reply; once for each request.
WITH room AS (
    SELECT id FROM chatrooms WHERE id = :chatroom_id AND user_id = :user_id FOR KEY SHARE
),
payable AS (
    SELECT messages.id, attempt AS last_attempt FROM messages JOIN room ON room.id = chatroom_id
    WHERE messages.id = :id AND status <> 'queued'
        AND (:request_id::uuid IS NULL OR messages.request_id IS DISTINCT FROM :request_id)
    FOR UPDATE OF messages
),
-- include consumed --
,
cleared AS (
    UPDATE messages SET status = 'queued', response = NULL, thoughts = NULL, thinking_seconds = NULL,
        finish_reason = NULL, input_tokens = NULL, cached_tokens = NULL, output_tokens = NULL, thought_tokens = NULL,
        error_code = NULL, error_detail = NULL, completed_at = NULL, allowance_day = day, charged = true,
        queued_at = :at, max_output_tokens = :max_output_tokens, thinking = :thinking, kept_characters = 0,
        kept_attempt = 0, request_id = :request_id, window_from = NULL, cancel_requested = false
    FROM consumed WHERE id = :id
),
queued AS (
    INSERT INTO queue_entries (message_id, chatroom_id, attempt, queued_at, due_at, notified_at)
    SELECT :id, :chatroom_id, last_attempt, :at, now(), now() FROM consumed, payable
)
SELECT day, used, input_tokens, output_tokens FROM consumed;

-- continue_reply --
-- Consume one message of the allowance and queue a reply that was cut off, with its text; once for each request.
WITH room AS (
    SELECT id FROM chatrooms WHERE id = :chatroom_id AND user_id = :user_id FOR KEY SHARE
),
payable AS (
    SELECT messages.id, attempt AS last_attempt FROM messages JOIN room ON room.id = chatroom_id
    WHERE messages.id = :id AND status = 'completed' AND finish_reason = 'MAX_TOKENS'
        AND length(response) BETWEEN 1 AND :max_characters
        AND (:request_id::uuid IS NULL OR messages.request_id IS DISTINCT FROM :request_id)
    FOR UPDATE OF messages
),
-- include consumed --
,
kept AS (
    UPDATE messages SET status = 'queued', finish_reason = NULL, error_code = NULL, error_detail = NULL,
        completed_at = NULL, allowance_day = day, charged = true, queued_at = :at,
        max_output_tokens = :max_output_tokens, thinking = :thinking, request_id = :request_id,
        cancel_requested = false,
        kept_attempt = CASE WHEN kept_characters = length(response) THEN kept_attempt ELSE attempt END,
        kept_characters = length(response)
    FROM consumed WHERE id = :id
),
queued AS (
    INSERT INTO queue_entries (message_id, chatroom_id, attempt, queued_at, due_at, notified_at)
    SELECT :id, :chatroom_id, last_attempt, :at, now(), now() FROM consumed, payable
)
SELECT day, used, input_tokens, output_tokens FROM consumed;

-- usage_columns --
-- The columns of a Usage.
day, used, in_flight, minute_from, minute_used, input_tokens, output_tokens, empty_cuts

-- refusal --
-- Why a message was not accepted: no row without the room, and else the counters of its owner.
SELECT EXISTS (SELECT FROM messages WHERE id = :id AND chatroom_id = chatrooms.id) AS is_stored,
-- include usage_columns --
FROM chatrooms
LEFT JOIN allowances ON allowances.user_id = :user_id
WHERE chatrooms.id = :chatroom_id AND chatrooms.user_id = :user_id;

-- usages --
-- The counters of users.
SELECT user_id AS key,
-- include usage_columns --
FROM allowances WHERE user_id = ANY(:keys::uuid[]);

-- get --
-- A message of the user's room.
SELECT
-- include columns --
FROM messages LEFT JOIN queue_entries AS entry ON message_id = :id
WHERE messages.id = :id AND messages.chatroom_id = :chatroom_id AND user_id = :user_id
    AND EXISTS (SELECT FROM chatrooms WHERE id = :chatroom_id);

-- cancel_requested --
-- Messages that are being generated and are to be cancelled.
SELECT message_id FROM queue_entries WHERE cancel_requested AND worker_id IS NOT NULL;

-- unanswered --
-- Those of the messages that have not ended.
SELECT message_id FROM queue_entries WHERE message_id = ANY (:ids::uuid[]);

-- context --
-- The room's settings, with its newest answered messages before this one.
SELECT room.instructions, room.auto_title, past.id, past.input, past.response, past.window_from
FROM chatrooms room LEFT JOIN LATERAL (
    SELECT id, input, response, window_from FROM messages
    WHERE chatroom_id = room.id AND id < :id AND id >= :oldest AND (status = 'completed' OR kept_characters > 0)
        AND response IS NOT NULL
    ORDER BY id DESC LIMIT :limit
) past ON true
WHERE room.id = :chatroom_id
ORDER BY past.id DESC;

-- seen --
-- The entry of a message that no live worker has, and its last worker's lease, which is not renewed meanwhile.
-- A statement does not see a worker that registers while it waits for a lock. So it changes the entry only if it still
-- is as it was seen here.
seen AS MATERIALIZED (
    SELECT message_id AS seen_id, attempt AS last_attempt, worker_id AS last_worker, worker_id IS NOT NULL AS died
    FROM queue_entries
    WHERE message_id = :id
        AND NOT EXISTS (SELECT FROM workers WHERE workers.id = worker_id AND lease_until > now())
),
last_lease AS MATERIALIZED (
    SELECT lease_until FROM workers JOIN seen ON workers.id = last_worker FOR SHARE OF workers
)

-- claim --
-- Take a message for one attempt, unless another live worker has it or this worker's own lease has expired. If its last
-- worker died, the call is booked as lost, since its usage is unknown.
WITH
-- include seen --
,
own_lease AS (
    SELECT EXISTS (SELECT FROM workers WHERE id = :worker AND lease_until > now()) AS is_live
),
entry AS (
    UPDATE queue_entries SET worker_id = :worker, attempt = queue_entries.attempt + 1,
        deaths = queue_entries.deaths + died::int, called = queue_entries.called OR died
    FROM seen, own_lease, messages
    WHERE message_id = seen_id AND queue_entries.attempt = last_attempt AND worker_id IS NOT DISTINCT FROM last_worker
        AND messages.id = :id AND is_live AND (died OR queue_entries.due_at <= now())
        AND (:alone OR queue_entries.deaths + died::int < :suspect_deaths)
        AND NOT EXISTS (SELECT FROM last_lease WHERE lease_until > now())
    RETURNING message_id, worker_id, queue_entries.attempt, queue_entries.failures, queue_entries.deaths,
        queue_entries.cancel_requested, died, last_attempt, user_id AS owner_id
),
lost AS (
    INSERT INTO model_calls (user_id, message_id, attempt, purpose, model, outcome)
    SELECT owner_id, message_id, last_attempt, 'reply', '', 'lost' FROM entry WHERE died
    ON CONFLICT DO NOTHING
)
SELECT is_live,
-- include columns --
FROM own_lease LEFT JOIN (entry JOIN messages ON messages.id = :id) ON true;

-- is_suspect --
-- A row if the message is claimable, but only in quarantine.
SELECT FROM queue_entries
WHERE message_id = :id
    AND CASE WHEN worker_id IS NULL THEN due_at <= now() AND deaths >= :suspect_deaths
        ELSE deaths >= :suspect_deaths - 1
            AND NOT EXISTS (SELECT FROM workers WHERE id = worker_id AND lease_until > now()) END;

-- renew --
-- Renew a worker's lease, or begin it. A claim of what this worker has waits meanwhile, and then finds it alive.
INSERT INTO workers (id, lease_until) VALUES (:worker, now() + :lease)
ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until;

-- forget_workers --
-- Forget workers that died long ago, in batches.
DELETE FROM workers WHERE id = ANY (ARRAY(
    SELECT id FROM workers WHERE lease_until <= now() - :expired_for::interval LIMIT 500 FOR UPDATE SKIP LOCKED
))
RETURNING id;

-- held --
-- Those of the attempts whose messages the worker still has.
SELECT message_id FROM queue_entries JOIN unnest(:ids::uuid[], :attempts::int[]) AS claimed (id, number) ON id = message_id
WHERE attempt = number AND worker_id = :worker;

-- booked --
-- Book a call of the model once, if there is one. It replaces a call that was booked as lost.
booked AS (
    INSERT INTO model_calls AS known (user_id, message_id, attempt, purpose, model, outcome,
        input_tokens, cached_tokens, output_tokens, thought_tokens)
    SELECT :call_user, :call_message, :call_attempt, :call_purpose, :call_model, :call_outcome::text,
        :call_input, :call_cached, :call_output, :call_thoughts
    WHERE :call_outcome::text IS NOT NULL
    ON CONFLICT (message_id, attempt, purpose) DO UPDATE SET model = excluded.model, outcome = excluded.outcome,
        input_tokens = excluded.input_tokens, cached_tokens = excluded.cached_tokens,
        output_tokens = excluded.output_tokens, thought_tokens = excluded.thought_tokens
    WHERE known.outcome = 'lost'
    RETURNING user_id, :call_day::date AS call_day,
        coalesce(input_tokens, 0) * (purpose = 'reply')::int AS input,
        coalesce(output_tokens, 0) * (purpose = 'reply')::int AS output
)

-- book --
-- Book a call on its own.
WITH
-- include booked --
UPDATE allowances SET input_tokens = input_tokens + input, output_tokens = output_tokens + output
FROM booked WHERE allowances.user_id = booked.user_id AND day = call_day AND input + output > 0
RETURNING 1;

-- finish --
-- End the attempt, if it still holds the message, and book its call. A failure, and a cancellation before the model was
-- called, refunds the allowance, once; of replies that were cut off before their first word, only the day's first.
-- A continued message has the text, thoughts and usage of what it kept. The outcome's are added, and the message is
-- completed again however the continuation ended, as in Message.in_all.
WITH entry AS (
    DELETE FROM queue_entries WHERE message_id = :id AND attempt = :attempt AND worker_id IS NOT NULL
    RETURNING message_id, attempt AS last_attempt, failures AS all_failures, deaths AS all_deaths, called,
        cancel_requested AS is_cancelled
),
held AS (
    SELECT last_attempt, all_failures, all_deaths, is_cancelled, id, user_id, allowance_day, kept_characters > 0 AS continued,
        charged AND (:status = 'failed' OR :status = 'cancelled' AND NOT entry.called AND :call_outcome::text IS NULL)
            AS refundable
    FROM entry JOIN messages ON id = :id
),
-- include booked --
,
counted AS (
    UPDATE allowances SET
        in_flight = in_flight - (held.id IS NOT NULL)::int,
        used = used - coalesce(refundable AND day = allowance_day AND NOT (:is_empty_cut AND empty_cuts > 0), false)::int,
        empty_cuts = empty_cuts + coalesce(:is_empty_cut AND refundable AND day = allowance_day, false)::int,
        input_tokens = input_tokens + coalesce(input * (day = call_day)::int, 0),
        output_tokens = output_tokens + coalesce(output * (day = call_day)::int, 0)
    FROM held FULL JOIN booked ON booked.user_id = held.user_id
    WHERE allowances.user_id = coalesce(held.user_id, booked.user_id)
    RETURNING allowances.user_id, NOT (:is_empty_cut AND day = allowance_day AND empty_cuts > 1) AS gives_back
),
ended AS (
    UPDATE messages SET
        status = CASE WHEN continued THEN 'completed' ELSE :status END,
        response = CASE WHEN continued THEN concat(response, :response::text) ELSE :response END,
        finish_reason = CASE WHEN continued AND :status <> 'completed' THEN 'MAX_TOKENS' ELSE :finish_reason END,
        thoughts = CASE WHEN continued
            THEN nullif(left(concat_ws(E'\n\n', thoughts, :thoughts::text), :max_thoughts), '') ELSE :thoughts END,
        thinking_seconds = coalesce(
            CASE WHEN continued THEN thinking_seconds + coalesce(:thinking_seconds::float8, 0) END, :thinking_seconds),
        input_tokens = coalesce(
            CASE WHEN continued THEN input_tokens + coalesce(:input_tokens::int, 0) END, :input_tokens),
        cached_tokens = coalesce(
            CASE WHEN continued THEN cached_tokens + coalesce(:cached_tokens::int, 0) END, :cached_tokens),
        output_tokens = coalesce(
            CASE WHEN continued THEN output_tokens + coalesce(:output_tokens::int, 0) END, :output_tokens),
        thought_tokens = coalesce(
            CASE WHEN continued THEN thought_tokens + coalesce(:thought_tokens::int, 0) END, :thought_tokens),
        error_code = :error_code, error_detail = :error_detail,
        charged = charged AND NOT (refundable AND coalesce(gives_back, true)),
        window_from = coalesce(:window_from, window_from),
        attempt = last_attempt, failures = all_failures, deaths = all_deaths, cancel_requested = is_cancelled,
        completed_at = date_trunc('milliseconds', now())
    FROM held LEFT JOIN counted ON counted.user_id = held.user_id
    WHERE messages.id = :id
)
SELECT FROM held;

-- put_back --
-- Return the message to the queue, if the attempt still holds it, and book its call.
WITH held AS (
    SELECT message_id AS held_id FROM queue_entries
    WHERE message_id = :id AND attempt = :attempt AND worker_id IS NOT NULL FOR NO KEY UPDATE
),
-- include booked --
,
counted AS (
    UPDATE allowances SET input_tokens = input_tokens + input, output_tokens = output_tokens + output
    FROM booked WHERE allowances.user_id = booked.user_id AND day = call_day AND input + output > 0
)
UPDATE queue_entries SET worker_id = NULL, failures = failures + :failures,
    called = called OR :call_outcome::text IS NOT NULL,
    due_at = now() + CASE WHEN cancel_requested THEN interval '0' ELSE :delay END
FROM held WHERE message_id = held_id
RETURNING message_id;

-- cancel --
-- Cancel a message that no live worker has, with a refund if the model was not called; else request its cancellation.
WITH
-- include seen --
,
requested AS (
    UPDATE queue_entries SET cancel_requested = true
    FROM messages
    WHERE message_id = :id AND messages.id = :id AND messages.chatroom_id = :chatroom_id AND user_id = :user_id
        AND (NOT EXISTS (SELECT FROM seen) OR EXISTS (SELECT FROM last_lease WHERE lease_until > now()))
        AND worker_id IS NOT NULL
    RETURNING message_id
),
entry AS (
    DELETE FROM queue_entries USING seen, messages
    WHERE message_id = seen_id AND queue_entries.attempt = last_attempt AND worker_id IS NOT DISTINCT FROM last_worker
        AND messages.id = :id AND messages.chatroom_id = :chatroom_id AND user_id = :user_id
        AND NOT EXISTS (SELECT FROM last_lease WHERE lease_until > now())
    RETURNING message_id, last_attempt, died, queue_entries.failures AS all_failures,
        queue_entries.deaths AS all_deaths, user_id AS owner_id, allowance_day AS paid_on,
        charged AND NOT died AND NOT queue_entries.called AS refund
),
lost AS (
    INSERT INTO model_calls (user_id, message_id, attempt, purpose, model, outcome)
    SELECT owner_id, message_id, last_attempt, 'reply', '', 'lost' FROM entry WHERE died
    ON CONFLICT DO NOTHING
),
ended AS (
    UPDATE messages SET status = CASE WHEN kept_characters > 0 THEN 'completed' ELSE 'cancelled' END,
        finish_reason = CASE WHEN kept_characters > 0 THEN 'MAX_TOKENS' END, charged = charged AND NOT refund,
        attempt = last_attempt, failures = all_failures, deaths = all_deaths, cancel_requested = true,
        completed_at = date_trunc('milliseconds', now())
    FROM entry WHERE id = :id
),
counted AS (
    UPDATE allowances SET in_flight = in_flight - 1, used = used - (refund AND day = paid_on)::int
    FROM entry WHERE user_id = owner_id
)
SELECT FROM requested UNION ALL SELECT FROM entry;

-- requeue --
-- Queue a failed message as if it had just been sent, but without charge. The next sweep notifies the workers.
WITH room AS (
    SELECT chatrooms.id AS room_id FROM chatrooms JOIN messages ON chatrooms.id = chatroom_id WHERE messages.id = :id
    FOR KEY SHARE OF chatrooms
),
requeued AS (
    UPDATE messages SET status = 'queued', error_code = NULL, error_detail = NULL, finish_reason = NULL,
        completed_at = NULL, queued_at = now(), cancel_requested = false
    FROM room WHERE id = :id AND status = 'failed'
    RETURNING id, room_id, user_id, attempt
),
queued AS (
    INSERT INTO queue_entries (message_id, chatroom_id, attempt, queued_at, due_at, notified_at)
    SELECT id, room_id, attempt, now(), now(), now() - interval '1 day' FROM requeued
)
UPDATE allowances SET in_flight = in_flight + 1 FROM requeued WHERE allowances.user_id = requeued.user_id
RETURNING requeued.user_id;

-- list_open --
-- The newest messages of all users that wait, or that a worker has.
SELECT
-- include columns --
FROM (
    SELECT message_id, worker_id, attempt, failures, deaths, cancel_requested FROM queue_entries
    WHERE (worker_id IS NOT NULL) = :is_held ORDER BY message_id DESC LIMIT :limit
) AS entry JOIN messages ON messages.id = message_id
ORDER BY messages.id DESC;

-- ended_columns --
-- The columns of a Message that has ended.
id, chatroom_id, user_id, input, created_at, status, response, thoughts, thinking_seconds, finish_reason, input_tokens,
    cached_tokens, output_tokens, thought_tokens, error_code, error_detail, attempt, failures, deaths, allowance_day,
    charged, cancel_requested, queued_at, max_output_tokens, thinking, kept_characters, kept_attempt, request_id,
    window_from, completed_at

-- list_completed --
-- The newest messages of all users with a reply, which most have.
SELECT
-- include ended_columns --
FROM messages WHERE status = 'completed' AND EXISTS (SELECT FROM chatrooms WHERE chatrooms.id = chatroom_id)
ORDER BY id DESC LIMIT :limit;

-- list_unanswered --
-- The newest messages of all users that ended in this state, without a reply. An index has only those.
SELECT
-- include ended_columns --
FROM messages
WHERE status = :status AND status IN ('failed', 'blocked', 'cancelled')
    AND EXISTS (SELECT FROM chatrooms WHERE chatrooms.id = chatroom_id)
ORDER BY id DESC LIMIT :limit;

-- take_expired --
-- Messages whose worker died, without a recent notification. They count as notified from now on.
WITH found AS MATERIALIZED (
    SELECT message_id AS found_id, coalesce(lease_until, '-infinity') AS expired_at
    FROM queue_entries AS entry LEFT JOIN workers ON workers.id = worker_id
    WHERE worker_id IS NOT NULL AND coalesce(lease_until, '-infinity') <= now()
        AND (notified_at < lease_until OR notified_at <= now() - :notified_before::interval)
    ORDER BY expired_at, found_id LIMIT :limit FOR UPDATE OF entry SKIP LOCKED
),
taken AS (
    UPDATE queue_entries SET notified_at = now() FROM found WHERE message_id = found_id
)
SELECT found_id AS message_id FROM found ORDER BY expired_at, found_id;

-- take_unnotified --
-- Due messages without a notification. They count as notified from now on.
-- A notification is missing if there was none since the message became due, or if the last one had no effect for half
-- the time that the message has waited, within bounds: the longer the queue, the rarer the notifications.
WITH found AS MATERIALIZED (
    SELECT message_id AS found_id, due_at AS since FROM queue_entries
    WHERE worker_id IS NULL AND due_at <= now()
        AND (notified_at < due_at
            OR notified_at <= now() - greatest(
                :notified_before::interval, least((now() - queued_at) / 2, 3 * :notified_before::interval)))
    ORDER BY due_at, message_id LIMIT :limit FOR UPDATE SKIP LOCKED
),
taken AS (
    UPDATE queue_entries SET notified_at = now() FROM found WHERE message_id = found_id
)
SELECT found_id AS message_id FROM found ORDER BY since, found_id;
