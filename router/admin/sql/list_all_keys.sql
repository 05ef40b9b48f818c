-- list_all_keys: all keys of the organisation $1 that were ever made, newest first, each with its endpoint; never the key, never its hash.
SELECT
    k.key_id, coalesce(e.name, '') AS endpoint, k.name, k.scope, k.prefix, k.last_four, k.created_at, k.expires_at, k.revoked_at
FROM keys AS k
LEFT JOIN endpoints AS e USING (endpoint_id)
WHERE k.org_id = $1
ORDER BY k.created_at DESC, k.key_id;
