-- list_revisions: every revision an endpoint ever had, newest first.
-- $1: the endpoint's id; $2: of this organisation; $3: at most so many rows.
SELECT
    number, revision_id, created_at, created_by, outcome, failure, digest, task, engine_args::text AS engine_args, min_replicas,
    max_replicas, idle_timeout_seconds, slots, target_concurrency, zero, allow, media_hosts
FROM revisions
WHERE endpoint_id = $1 AND org_id = $2
ORDER BY number DESC
LIMIT $3;
