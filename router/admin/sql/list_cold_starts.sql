-- list_cold_starts: cold starts of the organisation $1, newest first, failed ones too.
-- $2: an endpoint's id or null for all; $3: begun at this Unix time or later; $4: before this one; null: unbounded; $5: at most so many rows.
SELECT
    c.cold_start_id, c.endpoint_id, coalesce(e.name, '') AS endpoint, c.revision_id, c.replica_id, c.node_id, c.rung, c.snapshot_bytes,
    c.started_at, c.seconds, c.phases::text AS phases, c.reason, c.reason = '' AS ok
FROM cold_starts AS c
LEFT JOIN endpoints AS e USING (endpoint_id)
WHERE c.org_id = $1
    AND ($2::text IS NULL OR c.endpoint_id = $2)
    AND ($3::double precision IS NULL OR c.started_at >= to_timestamp($3))
    AND ($4::double precision IS NULL OR c.started_at < to_timestamp($4))
ORDER BY c.started_at DESC, c.cold_start_id DESC
LIMIT $5;
