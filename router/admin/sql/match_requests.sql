-- match_requests: ids of settled requests of the organisation $1 that begin with $2, a few of them; $3: what no such id is after.
-- A range as well as a pattern, so that the index of ids is used in every collation.
SELECT event_id FROM usage
WHERE org_id = $1 AND event_id >= $2 AND event_id < $3 AND event_id LIKE $2 || '%' AND corrects IS NULL
ORDER BY event_id
LIMIT 3;
