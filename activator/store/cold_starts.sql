-- Cold starts: one row each, ready or failed, never changed; the oldest of an endpoint are deleted.

-- name: add
-- Ages in seconds, not moments: only durations travel between hosts. Whose it is, and how large its snapshot: as its revision says.
INSERT INTO cold_starts (cold_start_id, org_id, endpoint_id, revision_id, replica_id, node_id, rung, snapshot_bytes, phases, reason, seconds, started_at)
SELECT $1, v.org_id, v.endpoint_id, v.revision_id, $3, $4, $5, v.weight_bytes, $6::text::jsonb, $7, $8::float8, now() - make_interval(secs => $9::float8)
FROM revisions v WHERE v.revision_id = $2
ON CONFLICT (cold_start_id) DO NOTHING

-- name: prune
-- All but the newest $2 of the endpoint of this revision.
DELETE FROM cold_starts c USING revisions v
WHERE v.revision_id = $1 AND c.endpoint_id = v.endpoint_id
  AND c.started_at < (SELECT started_at FROM cold_starts n WHERE n.endpoint_id = v.endpoint_id ORDER BY started_at DESC OFFSET $2::bigint - 1 LIMIT 1)

-- name: past
-- The last $1 successful starts of each revision from each rung, oldest first. What one took is the sum of its phases: its `seconds` end
-- when an activator saw it ready, which is later where none was there to see it.
SELECT revision_id, rung, nbytes, took AS seconds
FROM (SELECT revision_id, rung, snapshot_bytes AS nbytes, started_at,
             (SELECT sum((phase->>'seconds')::float8) FROM jsonb_array_elements(phases) AS phase) AS took,
             row_number() OVER (PARTITION BY revision_id, rung ORDER BY started_at DESC) AS nth
      FROM cold_starts
      WHERE reason = '' AND phases @? '$[*] ? (@.name != "place")' AND started_at > now() - interval '30 days') last
WHERE nth <= $1
ORDER BY started_at
