-- claim --
-- Take a message for one attempt, unless somebody has it. Whoever had it died: what that call cost is not known.
WITH open AS (
    SELECT id, user_id, attempt, status = 'generating' AS died FROM messages
    WHERE id = :id
        AND (status = 'queued' AND due_at <= now() OR status = 'generating' AND lease_until <= now())
        AND (:alone OR deaths + (status = 'generating')::int < :suspect_deaths)
    FOR UPDATE
),
lost AS (
    INSERT INTO model_calls (user_id, message_id, attempt, purpose, model, outcome)
    SELECT user_id, id, attempt, 'reply', '', 'lost' FROM open WHERE died
    ON CONFLICT DO NOTHING
)
UPDATE messages SET status = 'generating', attempt = messages.attempt + 1, lease_until = now() + :lease,
    deaths = deaths + died::int, called = called OR died
FROM open WHERE messages.id = open.id
RETURNING messages.*;

-- booked --
-- Book a call of the model, if there is one, once. One that was taken for lost is booked after all.
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
-- End the attempt that still holds the message, and book its call. What failed, and what was cancelled before the model
-- was asked, gives the allowance back, once; of replies cut before their first word only the first one of the day.
-- The text, thoughts and usage of a message that is continued are those of what is kept: the outcome's come on top, and
-- however the continuation ended, the message is completed as before. So says Message.in_all.
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
-- Queue the message that the attempt still holds, and book its call.
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
-- End a message that nobody answers, and give its allowance back if the model was not asked; else request its end.
WITH asked AS (
    SELECT id, user_id, attempt, allowance_day, status = 'queued' OR lease_until <= now() AS at_once,
        status = 'generating' AND lease_until <= now() AS died, charged AND status = 'queued' AND NOT called AS refund
    FROM messages
    WHERE id = :id AND chatroom_id = :chatroom_id AND user_id = :user_id AND status IN ('queued', 'generating')
    FOR UPDATE
),
lost AS (
    INSERT INTO model_calls (user_id, message_id, attempt, purpose, model, outcome)
    SELECT user_id, id, attempt, 'reply', '', 'lost' FROM asked WHERE died
    ON CONFLICT DO NOTHING
),
ended AS (
    UPDATE allowances SET in_flight = in_flight - 1, used = used - (refund AND day = allowance_day)::int
    FROM asked WHERE at_once AND allowances.user_id = asked.user_id
)
UPDATE messages SET cancel_requested = true, charged = charged AND NOT refund,
    status = CASE WHEN NOT at_once THEN status WHEN kept_characters > 0 THEN 'completed' ELSE 'cancelled' END,
    finish_reason = CASE WHEN at_once AND kept_characters > 0 THEN 'MAX_TOKENS' END,
    lease_until = CASE WHEN NOT at_once THEN lease_until END,
    completed_at = CASE WHEN at_once THEN date_trunc('milliseconds', now()) END
FROM asked WHERE messages.id = asked.id RETURNING messages.*;
