-- next_guess --
-- When the next guess is allowed: after the backoff for the streak of wrong ones, within the hourly and daily limits.
-- NULL, which `greatest` ignores, means no wait: a request that is a moment late may come with an earlier time.
greatest(
    budget.wrong_at[1] + CASE WHEN budget.in_a_row > :before_backoff
        THEN least(power(2, least(budget.in_a_row - :before_backoff - 1, 30)) * interval '1 s', :max_backoff) END,
    budget.wrong_at[:an_hour] + interval '1 hour',
    budget.wrong_at[:a_day] + interval '1 day'
)

-- record_wrong --
-- Record a guess as wrong, if it is allowed. `max_streak` NULL means unlimited.
INSERT INTO wrong_guesses AS budget (number_digest, kind, wrong_at, in_a_row)
VALUES (:number_digest, :kind, ARRAY[:now::timestamptz], 1)
ON CONFLICT (number_digest, kind) DO UPDATE SET
    wrong_at = (:now::timestamptz || budget.wrong_at)[1 : :a_day],
    in_a_row = budget.in_a_row + 1
WHERE coalesce(
    -- include next_guess --
    <= :now, true
) AND (:max_streak::int IS NULL OR budget.in_a_row < :max_streak)
RETURNING budget.in_a_row;

-- budget --
-- The streak of wrong guesses, and when the next guess is allowed.
SELECT in_a_row,
-- include next_guess --
AS next_at
FROM wrong_guesses AS budget WHERE number_digest = :number_digest AND kind = :kind;

-- clear --
-- The last guess was right: remove it, and end the streak.
UPDATE wrong_guesses SET wrong_at = wrong_at[2:], in_a_row = 0 WHERE number_digest = :number_digest AND kind = :kind;

-- reset --
-- Delete all wrong guesses made for a number.
DELETE FROM wrong_guesses WHERE number_digest = :number_digest RETURNING id;

-- purge --
-- Remove rows without effect.
DELETE FROM wrong_guesses
WHERE (in_a_row < :lockout_streak OR kind <> :code)
    AND coalesce(
        wrong_at[1] < :now::timestamptz - CASE WHEN in_a_row > 0 AND kind = :code
            THEN :retention::interval ELSE interval '1 day' END,
        true
    );
