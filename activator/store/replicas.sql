-- Replicas: one row each, kept after its end.

-- name: put_replica
-- The row as the activator sees the replica now. Ages in seconds, not moments: only durations travel between hosts.
-- A row that says stopped never says anything else again, whatever comes late.
INSERT INTO replicas (replica_id, org_id, revision_id, node_id, state, address, phases, reason, memory_bytes, started_at, ready_at, stopped_at)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8, $9,
        now() - make_interval(secs => $10::float8), now() - make_interval(secs => $11::float8), now() - make_interval(secs => $12::float8))
ON CONFLICT (replica_id) DO UPDATE
SET state = excluded.state, address = excluded.address, phases = excluded.phases, reason = excluded.reason,
    memory_bytes = greatest(replicas.memory_bytes, excluded.memory_bytes),
    ready_at = coalesce(replicas.ready_at, excluded.ready_at), stopped_at = excluded.stopped_at
WHERE replicas.state <> 'stopped'

-- name: alive
-- Replicas that were not stopped when the last activator wrote. Ages in seconds.
SELECT r.replica_id, r.org_id, r.revision_id, r.node_id, r.state, v.slots, v.weight_bytes, r.address, r.phases::text AS phases,
       extract(epoch FROM now() - r.started_at)::float8 AS started_age, extract(epoch FROM now() - r.ready_at)::float8 AS ready_age
FROM replicas r JOIN revisions v USING (revision_id) WHERE r.state <> 'stopped'

-- name: memory
-- What the newest measured replica of each revision took, in bytes.
SELECT DISTINCT ON (revision_id) revision_id, memory_bytes
FROM replicas WHERE memory_bytes > 0 AND started_at > now() - interval '30 days'
ORDER BY revision_id, started_at DESC
