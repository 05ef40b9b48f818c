-- list_keys: all keys of the endpoint $1 that were ever made, newest first; never the key, never its hash.
SELECT key_id, name, scope, prefix, last_four, created_at, expires_at, revoked_at
FROM keys
WHERE endpoint_id = $1
ORDER BY created_at DESC, key_id;
