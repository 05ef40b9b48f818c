-- list_endpoints: endpoints that have not been removed, each with the revision most of its route leads to.
-- $1: a name, or null for all.
SELECT
    e.endpoint_id, e.org_id, e.name, e.route::text AS route, e.max_held, e.hold_seconds, e.created_at,
    r.revision_id, r.number, r.digest, r.task, r.engine_args::text AS engine_args, r.min_replicas, r.max_replicas,
    r.idle_timeout_seconds, r.slots, r.target_concurrency, r.zero
FROM endpoints AS e
LEFT JOIN LATERAL (
    SELECT revisions.*
    FROM jsonb_array_elements(e.route) AS part
    JOIN revisions ON revisions.revision_id = part ->> 0
    ORDER BY (part ->> 1)::integer DESC, revisions.number DESC
    LIMIT 1
) AS r ON true
WHERE e.removed_at IS NULL AND ($1::text IS NULL OR e.name = $1)
ORDER BY e.name;
