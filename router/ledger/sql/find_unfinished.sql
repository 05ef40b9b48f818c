-- find_unfinished: whose journals are not known to be whole: of the replicas $1, and of all that ever served the endpoints $2.
-- Returns (replica_id, endpoint_id, stopped_at); endpoint_id is '' and stopped_at null where Postgres has no row of the replica.
WITH asked AS (
    SELECT replica_id FROM unnest($1::text[]) AS named (replica_id)
    UNION
    SELECT r.replica_id
    FROM revisions AS v
    INNER JOIN replicas AS r USING (revision_id)
    WHERE v.endpoint_id = ANY ($2::text[]) AND r.ready_at IS NOT NULL
)
SELECT a.replica_id, coalesce(v.endpoint_id, '') AS endpoint_id, extract(epoch FROM r.stopped_at)::double precision AS stopped_at
FROM asked AS a
LEFT JOIN replicas AS r USING (replica_id)
LEFT JOIN revisions AS v USING (revision_id)
WHERE NOT EXISTS (SELECT FROM journals AS j WHERE j.replica_id = a.replica_id);
