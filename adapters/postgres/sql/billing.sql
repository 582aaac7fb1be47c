-- customer --
-- The user's customer at Stripe.
SELECT customer_id FROM billing_accounts WHERE user_id = :user_id;

-- open_checkouts --
-- The user's open checkouts, as far as is known.
SELECT id, user_id, url, expires_at, payment_intent_id, settled FROM checkouts
WHERE user_id = :user_id AND url IS NOT NULL;

-- unsettled_checkouts --
-- The user's checkouts that are not settled.
SELECT id, user_id, url, expires_at, payment_intent_id, settled FROM checkouts
WHERE user_id = :user_id AND NOT settled ORDER BY id;

-- has_subscription --
-- A row if the user has a subscription that may still charge.
SELECT FROM subscriptions
WHERE user_id = :user_id AND status <> ALL (:ended) AND (cancel_at IS NULL OR cancel_at > now())
LIMIT 1;

-- open_checkout --
-- The user's checkout that stays open the longest, if it stays open until then.
SELECT id, user_id, url, expires_at, payment_intent_id, settled FROM checkouts
WHERE user_id = :user_id AND url IS NOT NULL AND expires_at > :open_until
ORDER BY expires_at DESC LIMIT 1;

-- lock_checkout --
-- Take the lock on the user's checkouts, unless somebody has it.
INSERT INTO billing_accounts AS account
    (user_id, customers, checkouts, changes, attempt, failures, announced, checkout_busy_until)
VALUES (:user_id, 0, 0, 0, 0, 0, false, now() + :lock_for)
ON CONFLICT (user_id) DO UPDATE SET checkout_busy_until = excluded.checkout_busy_until
    WHERE account.checkout_busy_until IS NULL OR account.checkout_busy_until <= now()
RETURNING user_id, customer_id, customers AS customer_count, checkouts AS checkout_count, attempt, failures,
    changes AS change_count, announced;

-- unlock_checkout --
-- Release the lock on the user's checkouts.
UPDATE billing_accounts SET checkout_busy_until = NULL WHERE user_id = :user_id;

-- add_customer --
-- Store the user's customer, unless there is another.
UPDATE billing_accounts SET customer_id = :customer_id, customers = customers + 1
WHERE user_id = :user_id AND coalesce(customer_id, :customer_id) = :customer_id
RETURNING user_id;

-- drop_customer --
-- Forget a customer that Stripe does not know any more.
UPDATE billing_accounts SET customer_id = NULL WHERE user_id = :user_id AND customer_id = :customer_id;

-- add_checkout --
-- Store a checkout, release the lock, and have Stripe asked about it in time.
WITH account AS (
    UPDATE billing_accounts SET checkouts = checkouts + 1, changes = changes + 1, checkout_busy_until = NULL,
        due_at = least(due_at, now() + :due_in)
    WHERE user_id = :user_id RETURNING user_id
)
INSERT INTO checkouts (id, user_id, url, expires_at, payment_intent_id, settled)
SELECT :id, user_id, :url, :expires_at, :payment_intent_id, :settled FROM account
ON CONFLICT (id) DO UPDATE SET url = excluded.url, expires_at = excluded.expires_at;

-- add_event --
-- Store the event's id and make its owners' accounts due, both or neither, once. A payment belongs to the owner of its
-- checkout. Only checkouts are trusted to name a user.
WITH kept AS (
    INSERT INTO payment_events (id, received_at) VALUES (:id, now()) ON CONFLICT (id) DO NOTHING RETURNING id
),
named AS (
    SELECT users.id AS user_id FROM kept, users WHERE users.id = :user_id AND :checkout_id::text IS NOT NULL
),
opened AS (
    INSERT INTO checkouts (id, user_id, expires_at, settled) SELECT :checkout_id, user_id, now(), false FROM named
    ON CONFLICT (id) DO NOTHING
),
owners AS (
    SELECT user_id FROM kept, billing_accounts WHERE customer_id = :customer_id
    UNION SELECT user_id FROM kept, checkouts WHERE payment_intent_id = :payment_intent_id
    UNION SELECT user_id FROM kept, checkouts WHERE checkouts.id = :checkout_id
    UNION SELECT user_id FROM named
)
INSERT INTO billing_accounts AS account
    (user_id, customers, checkouts, changes, attempt, failures, announced, due_at, rung_at)
SELECT user_id, 0, 0, 1, 0, 0, true, now(), now() FROM owners ORDER BY user_id
ON CONFLICT (user_id) DO UPDATE SET
    changes = account.changes + 1, announced = true, due_at = now(), rung_at = now()
RETURNING user_id;

-- claim --
-- Take a due account for one attempt.
UPDATE billing_accounts SET attempt = attempt + 1, lease_until = now() + :lease
WHERE user_id = :user_id AND due_at <= now() AND (lease_until IS NULL OR lease_until <= now())
RETURNING user_id, customer_id, customers AS customer_count, checkouts AS checkout_count, attempt, failures,
    changes AS change_count, announced;

-- finish --
-- End the attempt that still holds the account; due at once if something has changed since it began.
UPDATE billing_accounts SET lease_until = NULL, failures = 0, announced = announced AND changes <> :change_count,
    due_at = CASE WHEN changes = :change_count THEN now() + :due_in ELSE now() END
WHERE user_id = :user_id AND attempt = :attempt AND lease_until IS NOT NULL
RETURNING user_id;

-- retry --
-- Release the account after a failure; due sooner if something has changed since the attempt began.
UPDATE billing_accounts SET lease_until = NULL, failures = failures + 1,
    due_at = now() + CASE WHEN changes = :change_count THEN :delay ELSE least(:delay, interval '5 s') END
WHERE user_id = :user_id AND attempt = :attempt AND lease_until IS NOT NULL;

-- make_due --
-- Make the next accounts due, or the one that is named. Locked in the order of their ids, as events lock them.
WITH next AS (
    SELECT user_id FROM billing_accounts
    WHERE user_id >= :first AND (:only::uuid IS NULL OR user_id = :only)
    ORDER BY user_id LIMIT :limit FOR UPDATE
)
UPDATE billing_accounts AS account SET changes = changes + 1, due_at = now(), rung_at = NULL
FROM next WHERE account.user_id = next.user_id
RETURNING account.user_id;

-- take_due --
-- Due accounts that no worker was notified of for a while; they count as notified from now on.
WITH found AS MATERIALIZED (
    SELECT user_id FROM billing_accounts
    WHERE due_at <= now() AND (lease_until IS NULL OR lease_until <= now())
        AND (rung_at IS NULL OR rung_at < due_at OR rung_at <= now() - :notified_before::interval)
    ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED
)
UPDATE billing_accounts AS account SET rung_at = now() FROM found WHERE account.user_id = found.user_id
RETURNING account.user_id, due_at;

-- purge_checkouts --
-- Forget checkouts that expired long ago and are settled, in batches.
DELETE FROM checkouts WHERE id = ANY (ARRAY(
    SELECT id FROM checkouts WHERE settled AND expires_at < :expired_before
    ORDER BY expires_at LIMIT 500 FOR UPDATE SKIP LOCKED
))
RETURNING id;

-- purge_events --
-- Forget events that Stripe does not repeat any more, in batches.
DELETE FROM payment_events WHERE id = ANY (ARRAY(
    SELECT id FROM payment_events WHERE received_at < :received_before ORDER BY received_at LIMIT 500 FOR UPDATE SKIP LOCKED
))
RETURNING id;
