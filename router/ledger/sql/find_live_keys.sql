-- find_live_keys: as list_live_keys, but only those whose id, or whose endpoint's id, is in $1.
SELECT
    encode(hash, 'hex') AS hash, key_id, org_id, coalesce(endpoint_id, '') AS endpoint_id, scope,
    coalesce(extract(epoch FROM expires_at), 0)::double precision AS expires_at
FROM keys
WHERE (key_id = ANY ($1::text[]) OR endpoint_id = ANY ($1::text[]))
  AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());
