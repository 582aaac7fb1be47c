-- columns --
-- The columns of a Message.
id, chatroom_id, user_id, input, created_at, status, response, thoughts, thinking_seconds, finish_reason, input_tokens,
    cached_tokens, output_tokens, thought_tokens, error_code, error_detail, attempt, failures, deaths, allowance_day,
    charged, cancel_requested, queued_at, max_output_tokens, thinking, kept_characters, kept_attempt, request_id,
    window_from, completed_at

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
-- Consume one message of the allowance and store the message, unless it is stored already.
WITH payable AS (
    SELECT id FROM chatrooms
    WHERE id = :chatroom_id AND user_id = :user_id AND NOT EXISTS (SELECT FROM messages WHERE id = :id)
    FOR KEY SHARE
),
-- include consumed --
,
stored AS (
    INSERT INTO messages (id, chatroom_id, user_id, input, created_at, status, allowance_day, charged, queued_at,
        max_output_tokens, thinking, attempt, failures, deaths, due_at, rung_at)
    SELECT :id, :chatroom_id, :user_id, :input, :at, 'queued', day, true, :at, :max_output_tokens, :thinking, 0, 0, 0,
        now(), now()
    FROM consumed
)
SELECT day, used, input_tokens, output_tokens FROM consumed;

-- regenerate --
-- Consume one message of the allowance and queue an ended message without its reply; once for each request.
WITH room AS (
    SELECT id FROM chatrooms WHERE id = :chatroom_id AND user_id = :user_id FOR KEY SHARE
),
payable AS (
    SELECT messages.id FROM messages JOIN room ON room.id = chatroom_id
    WHERE messages.id = :id AND status NOT IN ('queued', 'generating')
        AND (:request_id::uuid IS NULL OR messages.request_id IS DISTINCT FROM :request_id)
    FOR UPDATE OF messages
),
-- include consumed --
,
queued AS (
    UPDATE messages SET status = 'queued', response = NULL, thoughts = NULL, thinking_seconds = NULL,
        finish_reason = NULL, input_tokens = NULL, cached_tokens = NULL, output_tokens = NULL, thought_tokens = NULL,
        error_code = NULL, error_detail = NULL, completed_at = NULL, failures = 0, deaths = 0,
        cancel_requested = false, allowance_day = day, charged = true, queued_at = :at,
        max_output_tokens = :max_output_tokens, thinking = :thinking, kept_characters = 0, kept_attempt = 0,
        request_id = :request_id, window_from = NULL, called = false, due_at = now(), rung_at = now()
    FROM consumed WHERE id = :id
)
SELECT day, used, input_tokens, output_tokens FROM consumed;

-- continue_reply --
-- Consume one message of the allowance and queue a reply that was cut off, with its text; once for each request.
WITH room AS (
    SELECT id FROM chatrooms WHERE id = :chatroom_id AND user_id = :user_id FOR KEY SHARE
),
payable AS (
    SELECT messages.id FROM messages JOIN room ON room.id = chatroom_id
    WHERE messages.id = :id AND status = 'completed' AND finish_reason = 'MAX_TOKENS'
        AND length(response) BETWEEN 1 AND :max_characters
        AND (:request_id::uuid IS NULL OR messages.request_id IS DISTINCT FROM :request_id)
    FOR UPDATE OF messages
),
-- include consumed --
,
queued AS (
    UPDATE messages SET status = 'queued', finish_reason = NULL, error_code = NULL, error_detail = NULL,
        completed_at = NULL, failures = 0, deaths = 0, cancel_requested = false, allowance_day = day, charged = true,
        queued_at = :at, max_output_tokens = :max_output_tokens, thinking = :thinking, request_id = :request_id,
        kept_attempt = CASE WHEN kept_characters = length(response) THEN kept_attempt ELSE attempt END,
        kept_characters = length(response), called = false, due_at = now(), rung_at = now()
    FROM consumed WHERE id = :id
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
FROM messages WHERE id = :id AND chatroom_id = :chatroom_id AND user_id = :user_id;

-- cancel_requested --
-- Messages that are being generated and are to be cancelled.
SELECT id FROM messages WHERE cancel_requested AND status = 'generating';

-- unanswered --
-- Those of the messages that have not ended.
SELECT id FROM messages WHERE id = ANY (:ids::uuid[]) AND status IN ('queued', 'generating');

-- context --
-- The room's settings, with its newest answered messages before this one.
SELECT room.instructions, room.auto_title, past.id, past.input, past.response, past.window_from
FROM chatrooms room LEFT JOIN LATERAL (
    SELECT id, input, response, window_from FROM messages
    WHERE chatroom_id = room.id AND id < :id AND (status = 'completed' OR kept_characters > 0)
        AND response IS NOT NULL
    ORDER BY id DESC LIMIT :limit
) past ON true
WHERE room.id = :chatroom_id
ORDER BY past.id DESC;

-- claim --
-- Take a message for one attempt, unless it is leased. An expired lease means that its worker died: the call is booked
-- as lost, since its usage is unknown.
WITH open AS (
    SELECT id AS open_id, user_id AS owner_id, attempt AS last_attempt, status = 'generating' AS died FROM messages
    WHERE id = :id
        AND (status = 'queued' AND due_at <= now() OR status = 'generating' AND lease_until <= now())
        AND (:alone OR deaths + (status = 'generating')::int < :suspect_deaths)
    FOR UPDATE
),
lost AS (
    INSERT INTO model_calls (user_id, message_id, attempt, purpose, model, outcome)
    SELECT owner_id, open_id, last_attempt, 'reply', '', 'lost' FROM open WHERE died
    ON CONFLICT DO NOTHING
)
UPDATE messages SET status = 'generating', attempt = attempt + 1, lease_until = now() + :lease,
    deaths = deaths + died::int, called = called OR died
FROM open WHERE id = open_id
RETURNING
-- include columns --
;

-- is_suspect --
-- A row if the message is claimable, but only in quarantine.
SELECT FROM messages
WHERE id = :id
    AND (status = 'queued' AND due_at <= now() AND deaths >= :suspect_deaths
        OR status = 'generating' AND lease_until <= now() AND deaths >= :suspect_deaths - 1);

-- extend --
-- Extend the leases that are still held.
WITH held AS MATERIALIZED (
    SELECT messages.id FROM messages JOIN unnest(:ids::uuid[], :attempts::int[]) AS claimed (id, attempt) USING (id)
    WHERE messages.attempt = claimed.attempt AND status = 'generating'
    ORDER BY messages.id FOR NO KEY UPDATE OF messages
)
UPDATE messages SET lease_until = now() + :lease FROM held WHERE messages.id = held.id
RETURNING messages.id;

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
WITH held AS (
    SELECT id, user_id, allowance_day, kept_characters > 0 AS continued,
        charged AND (:status = 'failed' OR :status = 'cancelled' AND NOT called AND :call_outcome::text IS NULL)
            AS refundable
    FROM messages WHERE id = :id AND attempt = :attempt AND status = 'generating' FOR UPDATE
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
        lease_until = NULL, completed_at = date_trunc('milliseconds', now())
    FROM held LEFT JOIN counted ON counted.user_id = held.user_id
    WHERE messages.id = held.id
)
SELECT FROM held;

-- put_back --
-- Return the message to the queue, if the attempt still holds it, and book its call.
WITH held AS (
    SELECT id FROM messages WHERE id = :id AND attempt = :attempt AND status = 'generating' FOR UPDATE
),
-- include booked --
,
counted AS (
    UPDATE allowances SET input_tokens = input_tokens + input, output_tokens = output_tokens + output
    FROM booked WHERE allowances.user_id = booked.user_id AND day = call_day AND input + output > 0
)
UPDATE messages SET status = 'queued', lease_until = NULL, failures = failures + :failures,
    called = called OR :call_outcome::text IS NOT NULL,
    due_at = now() + CASE WHEN cancel_requested THEN interval '0' ELSE :delay END
FROM held WHERE messages.id = held.id
RETURNING messages.id;

-- cancel --
-- Cancel a message that no worker holds, with a refund if the model was not called; else request its cancellation.
WITH asked AS (
    SELECT id AS asked_id, user_id AS owner_id, attempt AS last_attempt, allowance_day AS paid_on,
        status = 'queued' OR lease_until <= now() AS at_once,
        status = 'generating' AND lease_until <= now() AS died, charged AND status = 'queued' AND NOT called AS refund
    FROM messages
    WHERE id = :id AND chatroom_id = :chatroom_id AND user_id = :user_id AND status IN ('queued', 'generating')
    FOR UPDATE
),
lost AS (
    INSERT INTO model_calls (user_id, message_id, attempt, purpose, model, outcome)
    SELECT owner_id, asked_id, last_attempt, 'reply', '', 'lost' FROM asked WHERE died
    ON CONFLICT DO NOTHING
),
ended AS (
    UPDATE allowances SET in_flight = in_flight - 1, used = used - (refund AND day = paid_on)::int
    FROM asked WHERE at_once AND user_id = owner_id
)
UPDATE messages SET cancel_requested = true, charged = charged AND NOT refund,
    status = CASE WHEN NOT at_once THEN status WHEN kept_characters > 0 THEN 'completed' ELSE 'cancelled' END,
    finish_reason = CASE WHEN at_once AND kept_characters > 0 THEN 'MAX_TOKENS' END,
    lease_until = CASE WHEN NOT at_once THEN lease_until END,
    completed_at = CASE WHEN at_once THEN date_trunc('milliseconds', now()) END
FROM asked WHERE id = asked_id
RETURNING
-- include columns --
;

-- requeue --
-- Queue a failed message as if it had just been sent, but without charge. The next sweep notifies the workers.
WITH room AS (
    SELECT FROM chatrooms JOIN messages ON chatrooms.id = chatroom_id WHERE messages.id = :id
    FOR KEY SHARE OF chatrooms
),
requeued AS (
    UPDATE messages SET status = 'queued', failures = 0, deaths = 0, error_code = NULL, error_detail = NULL,
        finish_reason = NULL, completed_at = NULL, cancel_requested = false, called = false, queued_at = now(),
        due_at = now(), rung_at = now() - interval '1 day'
    FROM room WHERE id = :id AND status = 'failed'
    RETURNING user_id
)
UPDATE allowances SET in_flight = in_flight + 1 FROM requeued WHERE allowances.user_id = requeued.user_id
RETURNING requeued.user_id;

-- list_by_status --
-- The newest messages of all users in this state.
SELECT
-- include columns --
FROM messages WHERE status = :status ORDER BY id DESC LIMIT :limit;

-- take_expired --
-- Messages with an expired lease and no recent notification. They count as notified from now on.
WITH found AS MATERIALIZED (
    SELECT id, lease_until FROM messages
    WHERE status = 'generating' AND lease_until <= now()
        AND (rung_at < lease_until OR rung_at <= now() - :notified_before::interval)
    ORDER BY lease_until, id LIMIT :limit FOR UPDATE SKIP LOCKED
),
taken AS (
    UPDATE messages SET rung_at = now() FROM found WHERE messages.id = found.id
)
SELECT id FROM found ORDER BY lease_until, id;

-- take_unnotified --
-- Due messages without a notification. They count as notified from now on.
-- A notification is missing if there was none since the message became due, or if the last one had no effect for half
-- the time that the message has waited, within bounds: the longer the queue, the rarer the notifications.
WITH found AS MATERIALIZED (
    SELECT id, due_at FROM messages
    WHERE status = 'queued' AND due_at <= now()
        AND (rung_at < due_at
            OR rung_at <= now() - greatest(
                :notified_before::interval, least((now() - queued_at) / 2, 3 * :notified_before::interval)))
    ORDER BY due_at, id LIMIT :limit FOR UPDATE SKIP LOCKED
),
taken AS (
    UPDATE messages SET rung_at = now() FROM found WHERE messages.id = found.id
)
SELECT id FROM found ORDER BY due_at, id;
