-- revoke_key: the key $1 of the organisation $2 is worthless from now on. One revoked before keeps its time.
-- Returns a row where there is such a key.
WITH revoked AS (
    UPDATE keys SET revoked_at = coalesce(revoked_at, now())
    WHERE key_id = $1 AND org_id = $2
    RETURNING key_id, revoked_at
)
SELECT key_id, revoked_at, pg_notify('policy', key_id)::text AS told
FROM revoked;
