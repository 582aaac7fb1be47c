-- reserve --
-- Book the next call of the model and return the seconds until it may start. No row if that is too late.
INSERT INTO model_budget AS budget VALUES (1, clock_timestamp() + :interval::interval)
ON CONFLICT (id) DO UPDATE
    SET booked_until = greatest(budget.booked_until, clock_timestamp()) + :interval::interval
    WHERE budget.booked_until - :ahead::interval <= clock_timestamp() + :within::interval
RETURNING
    extract(epoch FROM booked_until - (:interval::interval + :ahead::interval) - clock_timestamp())::float8 AS wait;
