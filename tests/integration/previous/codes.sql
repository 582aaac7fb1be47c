-- replace --
-- Store the code of a number and purpose, replacing the last one.
INSERT INTO otp_challenges (mobile, purpose, code_hash, expires_at, guesses_left)
VALUES (:mobile, :purpose, :code_hash, :expires_at, :guesses_left)
ON CONFLICT (mobile, purpose) DO UPDATE SET
    code_hash = excluded.code_hash,
    expires_at = excluded.expires_at,
    guesses_left = excluded.guesses_left;

-- count_guess --
-- Spend one guess at an open code.
UPDATE otp_challenges SET guesses_left = guesses_left - 1
WHERE mobile = :mobile AND purpose = :purpose AND guesses_left > 0 AND expires_at > :now
RETURNING code_hash;

-- consume --
-- Remove a code that was entered correctly.
DELETE FROM otp_challenges WHERE mobile = :mobile AND purpose = :purpose AND code_hash = :code_hash
RETURNING id;

-- next_sending --
-- When the next code may be sent to a number. Each rule allows `most` codes `within` an interval.
(
    SELECT max(sending.sent_at[rule.most] + rule.within)
    FROM unnest(:most::int[], :within::interval[]) AS rule (most, within)
)

-- record_sending --
-- Record a code sent to a number, if the rules allow it.
INSERT INTO codes_sent AS sending (number_digest, sent_at) VALUES (:number_digest, ARRAY[:now::timestamptz])
ON CONFLICT (number_digest) DO UPDATE SET sent_at = (:now::timestamptz || sending.sent_at)[1 : :kept]
WHERE
-- include next_sending --
<= :now
RETURNING number_digest;

-- next_sending_at --
-- When the next code may be sent to the number.
SELECT
-- include next_sending --
AS next_at
FROM codes_sent AS sending WHERE number_digest = :number_digest;

-- purge_sendings --
-- Remove rows that no rule looks back to.
DELETE FROM codes_sent WHERE sent_at[1] < :sent_before;

-- purge --
-- Remove the codes that have expired.
DELETE FROM otp_challenges WHERE expires_at < :expired_before;
