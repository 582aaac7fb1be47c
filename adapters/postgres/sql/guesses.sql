-- next_guess --
-- When the next guess is allowed: after the backoff for the streak of wrong ones, within the hourly and daily limits.
-- NULL, which `greatest` ignores, means no wait: a request that is a moment late may come with an earlier time.
greatest(
    budget.wrong_at[1] + CASE WHEN :backs_off AND budget.in_a_row > :before_backoff
        THEN least(power(2, least(budget.in_a_row - :before_backoff - 1, 30)) * interval '1 s', :max_backoff) END,
    budget.wrong_at[:an_hour] + interval '1 hour',
    budget.wrong_at[:a_day] + interval '1 day'
)

-- locked_until --
-- After a streak of `max_streak` (NULL: however long), guesses are refused for a time.
(budget.wrong_at[1] + CASE WHEN budget.in_a_row >= :max_streak::int THEN :lockout::interval END)

-- record_wrong --
-- Record a guess as wrong, if it is allowed. After a lockout the streak is new.
INSERT INTO wrong_guesses AS budget (number_digest, kind, wrong_at, in_a_row)
VALUES (:number_digest, :kind, ARRAY[:now::timestamptz], 1)
ON CONFLICT (number_digest, kind) DO UPDATE SET
    wrong_at = (:now::timestamptz || budget.wrong_at)[1 : :kept],
    in_a_row = CASE WHEN budget.in_a_row >= :max_streak::int THEN 1 ELSE budget.in_a_row + 1 END
WHERE coalesce(
    -- include next_guess --
    <= :now, true
) AND coalesce(
    -- include locked_until --
    <= :now, true
)
RETURNING budget.in_a_row;

-- budget --
-- Until when guesses are refused, and when the next one is allowed.
SELECT
-- include locked_until --
AS locked_until,
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
WHERE coalesce(
    wrong_at[1] < :now::timestamptz - CASE WHEN in_a_row > 0 AND kind = :code
        THEN :retention::interval ELSE interval '1 day' END,
    true
);
