-- correct_usage: write corrections, each at most once for ever. $1 … $7: arrays in the order of corrections.Correction ($7 in 1e-10 dollars).
-- All else is as in the row that is corrected, but for what a correction does not have: it was never held, and took no time.
INSERT INTO usage (
    event_id, org_id, endpoint_id, revision_id, replica_id, key_id, path, streamed, status, finish, start,
    admitted_at, hold_ms, first_byte_ms, total_ms, phases,
    input_tokens, cached_tokens, output_tokens, count_source, price_version, cost, delivered_tokens, corrects
)
SELECT
    g.event_id, u.org_id, u.endpoint_id, u.revision_id, u.replica_id, u.key_id, u.path, u.streamed, u.status, u.finish, u.start,
    u.admitted_at, 0, NULL, 0, '[]',
    g.input_tokens, g.cached_tokens, g.output_tokens, g.count_source, u.price_version, g.cost * 0.0000000001, u.delivered_tokens, u.event_id
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[])
    AS g (event_id, corrects, input_tokens, cached_tokens, output_tokens, count_source, cost)
INNER JOIN usage AS u ON u.event_id = g.corrects
ON CONFLICT (event_id) DO NOTHING;
