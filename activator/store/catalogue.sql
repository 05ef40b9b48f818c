-- Endpoints and their revisions. The activator is their only writer.

-- name: epoch
-- The epoch that leads now; shared-locked, so that it cannot change before the command that asks has committed.
SELECT epoch FROM leadership FOR SHARE

-- name: endpoints
-- Every endpoint that serves, and the removed ones whose replicas still run. $1: only the one of this name, null: all.
SELECT e.endpoint_id, e.org_id, e.name, e.route::text AS route, e.max_held, e.hold_seconds, e.finish_seconds, e.cors_origins, e.paused,
       coalesce(e.next_revision, '') AS next,
       extract(epoch FROM e.created_at)::bigint AS created, e.removed_at IS NOT NULL AS removed
FROM endpoints e
WHERE CASE WHEN $1::text IS NOT NULL THEN e.name = $1
           ELSE e.removed_at IS NULL OR EXISTS (
                SELECT FROM revisions v JOIN replicas r USING (revision_id)
                WHERE v.endpoint_id = e.endpoint_id AND r.state <> 'stopped') END

-- name: revisions
-- Of the endpoints given: the newest revision, those in the route, the next one, and those with replicas that are not stopped.
-- $2: and all others they ever had.
SELECT v.revision_id, v.endpoint_id, v.org_id, v.number, v.digest, v.task, v.engine_args::text AS engine_args,
       v.min_replicas, v.max_replicas, v.idle_timeout_seconds, v.slots, v.target_concurrency, v.weight_bytes, v.zero,
       v.created_by, v.outcome, v.failure, v.allow, v.media_hosts
FROM revisions v JOIN endpoints e USING (endpoint_id)
WHERE v.endpoint_id = ANY($1::text[])
  AND (v.number = (SELECT max(number) FROM revisions n WHERE n.endpoint_id = v.endpoint_id)
       OR v.revision_id = e.next_revision OR $2::boolean
       OR EXISTS (SELECT FROM jsonb_array_elements(e.route) AS part WHERE part->>0 = v.revision_id)
       OR EXISTS (SELECT FROM replicas r WHERE r.revision_id = v.revision_id AND r.state <> 'stopped'))
ORDER BY v.endpoint_id, v.number

-- name: put_endpoint
-- A new endpoint, or new limits, route and life for one that is known (removed ones come back with what they were).
INSERT INTO endpoints (endpoint_id, org_id, name, max_held, hold_seconds, route, removed_at, next_revision, finish_seconds, cors_origins, paused)
VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, CASE WHEN $7::boolean THEN now() END, nullif($8, ''), $9, $10, $11)
ON CONFLICT (endpoint_id) DO UPDATE
SET max_held = excluded.max_held, hold_seconds = excluded.hold_seconds, route = excluded.route, removed_at = excluded.removed_at,
    next_revision = excluded.next_revision, finish_seconds = excluded.finish_seconds,
    cors_origins = excluded.cors_origins, paused = excluded.paused

-- name: add_revision
-- Immutable, but for what became of it: see settle_revision.
INSERT INTO revisions (revision_id, org_id, endpoint_id, number, digest, task, engine_args,
                       min_replicas, max_replicas, idle_timeout_seconds, slots, target_concurrency, weight_bytes, zero, created_by,
                       allow, media_hosts)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8, $9, $10, $11, $12, $13, $14, $15, $16::text[], $17::text[])

-- name: settle_revision
-- What became of it. One that has served once is proved for ever.
UPDATE revisions SET outcome = $2, failure = $3 WHERE revision_id = $1 AND outcome <> 'proved'

-- name: revoke_keys
-- An endpoint's life ends, or a new one begins: none of the keys made in it opens anything again, as with `keys revoke`.
UPDATE keys SET revoked_at = now() WHERE endpoint_id = $1 AND revoked_at IS NULL RETURNING key_id

-- name: one_price_at_a_time
-- As the admin API's create_price does: a ledger knows it is up to date by the highest version, so none comes to light after a higher one.
SELECT pg_advisory_xact_lock(hashtext('pilotlight prices'))

-- name: end_prices
-- The prices made in that life count for what was admitted in it and no more; not even those that were to begin later. Rows stay.
INSERT INTO prices (price_id, org_id, endpoint_id, input_per_million, cached_per_million, output_per_million, valid_from, ends)
SELECT $2, org_id, endpoint_id, 0, 0, 0, clock_timestamp(), true
FROM endpoints WHERE endpoint_id = $1
  AND (SELECT NOT ends FROM prices WHERE endpoint_id = $1 ORDER BY version DESC LIMIT 1)
RETURNING price_id

-- name: tell_ledgers
-- Of keys and prices that have changed; heard when the transaction commits.
SELECT pg_notify('policy', $1)
