-- create_key: a key of one endpoint, and word of it to every ledger, which pushes it to its workers.
-- $1 key_id, $2 org_id, $3 endpoint_id, $4 name, $5 hash, $6 prefix, $7 last four, $8 seconds until it expires or null.
WITH made AS (
    INSERT INTO keys (key_id, org_id, endpoint_id, scope, name, hash, prefix, last_four, expires_at)
    VALUES ($1, $2, $3, 'inference', $4, $5, $6, $7, now() + make_interval(secs => $8::double precision))
    RETURNING key_id, name, scope, prefix, last_four, created_at, expires_at, revoked_at
)
SELECT
    key_id, name, scope, prefix, last_four, created_at, expires_at, revoked_at,
    pg_notify('policy', key_id)::text AS told
FROM made;
