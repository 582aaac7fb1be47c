-- report --
-- Store why the model refuses the deployment's key, or NULL if it accepts it.
INSERT INTO model_setup VALUES (1, :refused_for, now())
ON CONFLICT (id) DO UPDATE SET refused_for = excluded.refused_for, seen_at = excluded.seen_at;

-- refused_for --
-- The last report.
SELECT refused_for FROM model_setup;
