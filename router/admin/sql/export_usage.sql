-- export_usage: settled requests of the organisation $1, oldest first, with the phases of the cold starts they waited for.
-- $2: an endpoint's id or null for all; $3: admitted at this Unix time or later; $4: before this one; null: unbounded.
SELECT
    u.event_id, u.endpoint_id, coalesce(e.name, '') AS endpoint, u.revision_id, u.replica_id, u.key_id, u.path, u.streamed, u.status,
    u.finish, u.start, u.admitted_at, u.hold_ms, u.first_byte_ms, u.total_ms,
    u.input_tokens, u.cached_tokens, u.output_tokens, u.count_source, u.price_version, u.cost, u.settled_at, u.delivered_tokens,
    u.corrects, u.phases::text AS phases
FROM usage AS u
LEFT JOIN endpoints AS e USING (endpoint_id)
WHERE u.org_id = $1
    AND ($2::text IS NULL OR u.endpoint_id = $2)
    AND ($3::double precision IS NULL OR u.admitted_at >= to_timestamp($3))
    AND ($4::double precision IS NULL OR u.admitted_at < to_timestamp($4))
ORDER BY u.admitted_at, u.event_id;
