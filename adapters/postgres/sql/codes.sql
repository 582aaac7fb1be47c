-- add --
-- Store a code beside earlier ones of its number.
INSERT INTO one_time_codes (mobile, purpose, challenge_hash, code_hash, expires_at, guesses_left, unbound_left)
VALUES (:mobile, :purpose, :challenge_hash, :code_hash, :expires_at, :guesses_left, :unbound_left);

-- count_bound_guess --
-- Spend a guess of the one who requested an open code.
UPDATE one_time_codes SET guesses_left = guesses_left - 1
WHERE challenge_hash = :challenge_hash AND mobile = :mobile AND purpose = :purpose
    AND guesses_left > 0 AND expires_at > :now
RETURNING code_hash, guesses_left;

-- count_unbound_guess --
-- Spend a guess of somebody else at the latest code of a number and purpose, if it is open.
UPDATE one_time_codes SET unbound_left = unbound_left - 1
WHERE id = (SELECT max(id) FROM one_time_codes WHERE mobile = :mobile AND purpose = :purpose)
    AND unbound_left > 0 AND expires_at > :now
RETURNING code_hash;

-- consume --
-- Remove a code that was entered correctly.
DELETE FROM one_time_codes WHERE mobile = :mobile AND purpose = :purpose AND code_hash = :code_hash
RETURNING id;

-- next_sending --
-- When the next code may be sent to a number. Each rule allows `most` codes `within` an interval: `all` of the number,
-- or those that its known devices asked for.
(
    SELECT greatest(
        (
            SELECT max(sending.sent_at[most] + within)
            FROM unnest(:all_most::int[], :all_within::interval[]) AS rule (most, within)
        ),
        (
            SELECT max(sending.known_at[most] + within)
            FROM unnest(:known_most::int[], :known_within::interval[]) AS rule (most, within)
        )
    )
)

-- record_sending --
-- Record a code sent to a number, if the rules allow it. NULL if no rule has been reached yet.
INSERT INTO codes_sent AS sending (number_digest, sent_at, known_at)
VALUES (:number_digest, ARRAY[:now::timestamptz], CASE WHEN :is_known THEN ARRAY[:now::timestamptz] END)
ON CONFLICT (number_digest) DO UPDATE SET
    sent_at = (:now::timestamptz || sending.sent_at)[1 : :kept],
    known_at = CASE WHEN :is_known THEN (:now::timestamptz || sending.known_at)[1 : :kept] ELSE sending.known_at END
WHERE coalesce(
-- include next_sending --
<= :now, true)
RETURNING number_digest;

-- next_sending_at --
-- When the next code may be sent to the number.
SELECT
-- include next_sending --
AS next_at
FROM codes_sent AS sending WHERE number_digest = :number_digest;

-- record_in_total --
-- Count a code that is sent, to whatever number, unless that would be too many.
INSERT INTO codes_total AS total (day, sent) VALUES (:day, 1)
ON CONFLICT (day) DO UPDATE SET sent = total.sent + 1 WHERE total.sent < :most
RETURNING sent;

-- total --
-- The codes sent on a day.
SELECT sent FROM codes_total WHERE day = :day;

-- purge_totals --
-- Remove the totals of earlier days.
DELETE FROM codes_total WHERE day < :day;

-- purge_sendings --
-- Remove rows that no rule looks back to, in batches.
DELETE FROM codes_sent WHERE number_digest = ANY (ARRAY(
    SELECT number_digest FROM codes_sent WHERE sent_at[1] < :sent_before ORDER BY number_digest LIMIT 500 FOR UPDATE SKIP LOCKED
))
RETURNING number_digest;

-- purge_previous --
-- Remove the expired codes of the previous version, which may still run beside this one.
DELETE FROM otp_challenges WHERE expires_at < :expired_before;

-- purge --
-- Remove the codes that have expired, in batches.
DELETE FROM one_time_codes WHERE id = ANY (ARRAY(
    SELECT id FROM one_time_codes WHERE expires_at < :expired_before ORDER BY expires_at LIMIT 500 FOR UPDATE SKIP LOCKED
))
RETURNING id;
