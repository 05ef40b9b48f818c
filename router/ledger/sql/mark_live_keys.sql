-- mark_live_keys: one number and a count that all keys of list_live_keys add up to: equal while none has changed, come or gone.
SELECT count(*) || ' ' || coalesce(sum(hashtextextended(key_id || ' ' || coalesce(expires_at::text, ''), 0)), 0)
FROM keys
WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());
