-- next_guess --
-- When the next guess is allowed: after the wait for a streak of wrong ones, and within the hour's and the day's budget.
-- NULL, which `greatest` passes over, is no wait: a request that is a moment late may come with an earlier time.
greatest(
    budget.wrong_at[1] + CASE WHEN budget.in_a_row > :before_backoff
        THEN least(power(2, least(budget.in_a_row - :before_backoff - 1, 30)) * interval '1 s', :max_backoff) END,
    budget.wrong_at[:an_hour] + interval '1 hour',
    budget.wrong_at[:a_day] + interval '1 day'
)

-- record_wrong --
-- Count a guess as wrong, if it is allowed. NULL as `max_streak` is no limit.
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
-- The streak of wrong guesses, and when the next is allowed.
SELECT in_a_row,
-- include next_guess --
AS next_at
FROM wrong_guesses AS budget WHERE number_digest = :number_digest AND kind = :kind;

-- clear --
-- The last guess was right: it is not counted, and the streak of wrong ones ends.
UPDATE wrong_guesses SET wrong_at = wrong_at[2:], in_a_row = 0 WHERE number_digest = :number_digest AND kind = :kind;

-- reset --
-- Delete all wrong guesses made for a number.
DELETE FROM wrong_guesses WHERE number_digest = :number_digest RETURNING id;

-- purge --
-- Remove what has no effect any more.
DELETE FROM wrong_guesses
WHERE (in_a_row < :lockout_streak OR kind <> :code)
    AND coalesce(
        wrong_at[1] < :now::timestamptz - CASE WHEN in_a_row > 0 AND kind = :code
            THEN :retention::interval ELSE interval '1 day' END,
        true
    );
