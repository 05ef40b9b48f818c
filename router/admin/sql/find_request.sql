-- find_request: one settled request of the organisation $2 by its x-request-id $1, with the phases of the cold start it waited for.
SELECT
    u.event_id, u.endpoint_id, coalesce(e.name, '') AS endpoint, u.revision_id, u.replica_id, u.key_id, u.path, u.streamed, u.status,
    u.finish, u.start, u.admitted_at, u.hold_ms, u.first_byte_ms, u.total_ms,
    u.input_tokens, u.cached_tokens, u.output_tokens, u.count_source, u.price_version, u.cost, u.settled_at, u.delivered_tokens,
    u.corrects, u.phases::text AS phases
FROM usage AS u
LEFT JOIN endpoints AS e USING (endpoint_id)
WHERE u.event_id = $1 AND u.org_id = $2;
