-- list_events: what happened to an endpoint that an operator should hear of, newest first.
-- $1: the endpoint's id; $2: of this organisation; $3: at most so many rows.
SELECT event_id, at, kind, revision_id, replica_id, node_id, text
FROM events
WHERE endpoint_id = $1 AND org_id = $2
ORDER BY event_id DESC
LIMIT $3;
