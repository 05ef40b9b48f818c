-- list_live_keys: what routers must know to recognise a caller: every key neither revoked nor expired, as a hash.
SELECT
    encode(hash, 'hex') AS hash, key_id, org_id, coalesce(endpoint_id, '') AS endpoint_id, scope,
    coalesce(extract(epoch FROM expires_at), 0)::double precision AS expires_at
FROM keys
WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
ORDER BY key_id;
