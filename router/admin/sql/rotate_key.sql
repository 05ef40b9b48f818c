-- rotate_key: another key in place of the live key $1 of the organisation $2, with its label, endpoint, scope and, where it had one,
-- lifetime; the old one ends after $3 seconds, or when it would have anyway: both in one statement, so there is never none.
-- $4 the new key's id, $5 hash, $6 prefix, $7 last four, $8 seconds until the new one expires, or null: as long as the old one was given.
-- Returns no row where there is no such key, or it lives no more.
WITH old AS (
    SELECT key_id, org_id, endpoint_id, scope, name, expires_at - created_at AS lifetime
    FROM keys
    WHERE key_id = $1 AND org_id = $2 AND endpoint_id IS NOT NULL AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
    FOR UPDATE
),
made AS (
    INSERT INTO keys (key_id, org_id, endpoint_id, scope, name, hash, prefix, last_four, expires_at)
    SELECT
        $4, org_id, endpoint_id, scope, name, $5, $6, $7,
        now() + coalesce(make_interval(secs => $8::double precision), lifetime)
    FROM old
    RETURNING key_id, endpoint_id, name, scope, prefix, last_four, created_at, expires_at, revoked_at
),
ended AS (
    UPDATE keys SET
        expires_at = CASE WHEN $3 > 0 THEN least(keys.expires_at, now() + make_interval(secs => $3::double precision)) ELSE keys.expires_at END,
        revoked_at = CASE WHEN $3::double precision = 0 THEN now() END
    FROM old
    WHERE keys.key_id = old.key_id
    RETURNING keys.key_id, keys.expires_at, keys.revoked_at
)
SELECT
    made.key_id, coalesce(e.name, '') AS endpoint, made.name, made.scope, made.prefix, made.last_four, made.created_at,
    made.expires_at, made.revoked_at, ended.key_id AS replaces, ended.expires_at AS replaced_expires_at,
    ended.revoked_at AS replaced_revoked_at, pg_notify('policy', made.key_id)::text || pg_notify('policy', ended.key_id)::text AS told
FROM made CROSS JOIN ended LEFT JOIN endpoints AS e USING (endpoint_id);
