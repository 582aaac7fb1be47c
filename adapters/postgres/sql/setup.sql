-- report --
-- Keep why the model refuses the deployment's key, or that it does not.
INSERT INTO model_setup VALUES (1, :refused_for, now())
ON CONFLICT (id) DO UPDATE SET refused_for = excluded.refused_for, seen_at = excluded.seen_at;

-- refused_for --
-- What was reported last.
SELECT refused_for FROM model_setup;
