-- list_endpoints: endpoints that have not been removed, each with the revision most of its route leads to, the one that is to follow it
-- (`next`), and the newest of all where that has failed (`last_failed`).
-- $1: a name, or null for all.
SELECT
    e.endpoint_id, e.org_id, e.name, e.route::text AS route, e.max_held, e.hold_seconds, e.finish_seconds, e.cors_origins, e.paused, e.created_at,
    r.revision_id, r.number, r.digest, r.task, r.engine_args::text AS engine_args, r.min_replicas, r.max_replicas,
    r.idle_timeout_seconds, r.slots, r.target_concurrency, r.zero, r.allow, r.media_hosts,
    (
        SELECT jsonb_build_object(
            'revision_id', n.revision_id, 'number', n.number, 'digest', n.digest, 'task', n.task, 'engine_args', n.engine_args,
            'min_replicas', n.min_replicas, 'max_replicas', n.max_replicas, 'idle_timeout_seconds', n.idle_timeout_seconds,
            'slots', n.slots, 'target_concurrency', n.target_concurrency, 'zero', n.zero,
            'allow', n.allow, 'media_hosts', n.media_hosts
        )
        FROM revisions AS n WHERE n.revision_id = e.next_revision
    )::text AS next,
    (
        SELECT CASE WHEN f.outcome = 'failed' THEN
            jsonb_build_object('revision_id', f.revision_id, 'number', f.number, 'failure', f.failure) END
        FROM revisions AS f WHERE f.endpoint_id = e.endpoint_id ORDER BY f.number DESC LIMIT 1
    )::text AS last_failed
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
