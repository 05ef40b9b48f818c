-- What engines produced, for the ledger to join with the routers' records. Step 12.

-- name: add_usage
-- At least once becomes once: request, replica and kind of count are the key, and the first says it. Who pays is whoever the
-- replica's revision belongs to; an entry of a replica that never got a row is kept under the default organisation, since it must not be lost.
INSERT INTO engine_journal (request_id, org_id, replica_id, input_tokens, cached_tokens, output_tokens, finish, partial)
SELECT u.request_id, coalesce(r.org_id, 'default'), u.replica_id, u.input_tokens, u.cached_tokens, u.output_tokens, u.finish, u.partial
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::boolean[])
     AS u(request_id, replica_id, input_tokens, cached_tokens, output_tokens, finish, partial)
LEFT JOIN replicas r USING (replica_id)
ON CONFLICT (request_id, replica_id, partial) DO NOTHING

-- name: complete
-- Of these replicas, which are gone, all that was ever journalled is here.
INSERT INTO journals (replica_id, org_id)
SELECT c.replica_id, coalesce(r.org_id, 'default') FROM unnest($1::text[]) AS c(replica_id) LEFT JOIN replicas r USING (replica_id)
ON CONFLICT (replica_id) DO NOTHING

-- name: notify
-- Tells the ledger that there is something to join.
NOTIFY journal
