-- Events: what happened to a revision that an operator should hear of. Rows are added, never changed.

-- name: add
-- An age in seconds, not a moment: only durations travel between hosts.
INSERT INTO events (org_id, endpoint_id, revision_id, replica_id, node_id, kind, text, at)
SELECT $1, v.endpoint_id, v.revision_id, $3, $4, $5, $6, now() - make_interval(secs => $7::float8)
FROM revisions v WHERE v.revision_id = $2
