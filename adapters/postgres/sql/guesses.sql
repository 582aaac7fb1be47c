-- next_guess --
-- When the next guess may be made: after the wait for wrong ones in a row, and within the hour's and the day's budget.
greatest(
    budget.wrong_at[1] + CASE WHEN budget.in_a_row > :free
        THEN least(power(2, least(budget.in_a_row - :free - 1, 30)) * interval '1 s', :longest_wait)
        ELSE interval '0' END,
    budget.wrong_at[:an_hour] + interval '1 hour',
    budget.wrong_at[:a_day] + interval '1 day'
)

-- record_wrong --
-- Count a guess as wrong, if it may be made. Of `max_streak` NULL is no limit.
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
-- How many wrong guesses there were in a row, and when the next may be made.
SELECT in_a_row,
-- include next_guess --
AS next_at
FROM wrong_guesses AS budget WHERE number_digest = :number_digest AND kind = :kind;

-- clear --
-- The last guess was right: it does not count, and the wrong ones in a row end.
UPDATE wrong_guesses SET wrong_at = wrong_at[2:], in_a_row = 0 WHERE number_digest = :number_digest AND kind = :kind;

-- reset --
-- Forget all wrong guesses at a number.
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
