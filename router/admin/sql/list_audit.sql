-- list_audit: what operators did, newest first.
-- $1: the organisation; $2, $3: since and until, in Unix seconds, or null; $4: at most so many rows.
SELECT act_id, at, act, object, who, said_by, origin, asked::text AS asked, changed::text AS changed, outcome, reason, recorded_at
FROM audit
WHERE org_id = $1
    AND ($2::double precision IS NULL OR at >= to_timestamp($2::double precision))
    AND ($3::double precision IS NULL OR at < to_timestamp($3::double precision))
ORDER BY at DESC, act_id DESC
LIMIT $4;
