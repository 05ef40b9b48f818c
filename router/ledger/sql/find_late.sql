-- find_late: journal entries of the last $1 seconds whose requests were settled without them, the oldest first, at most $2; not of the
-- requests $3. One entry a request: the whole line rather than a last count. A row that the engine told in band is never corrected.
-- Where a router died nobody knows at which replica its request was last, and the row names the one whose line was there.
SELECT DISTINCT ON (u.event_id)
    u.event_id, u.price_version, u.finish, u.streamed, u.delivered_tokens,
    had.input_tokens AS had_input, had.cached_tokens AS had_cached, had.output_tokens AS had_output,
    (had.cost * 10000000000)::bigint AS had_cost,
    j.partial, j.input_tokens, j.cached_tokens, j.output_tokens
FROM engine_journal AS j
INNER JOIN usage AS u ON u.event_id = j.request_id
CROSS JOIN LATERAL (
    SELECT
        sum(a.input_tokens)::bigint AS input_tokens, sum(a.cached_tokens)::bigint AS cached_tokens,
        sum(a.output_tokens)::bigint AS output_tokens, sum(a.cost) AS cost
    FROM usage AS a
    WHERE a.event_id = u.event_id OR a.corrects = u.event_id
) AS had
WHERE j.stored_at > now() - make_interval(secs => $1)
    AND u.settled_at > now() - interval '31 days'  -- journals are kept for less
    AND u.corrects IS NULL
    AND (u.count_source IN ('relayed', 'last_count') OR (u.count_source = 'none' AND (u.replica_id <> '' OR u.finish = 'router_lost')))
    AND NOT (j.partial AND u.count_source = 'last_count')
    AND (u.replica_id = '' OR u.replica_id = j.replica_id OR u.finish = 'router_lost')
    AND NOT EXISTS (
        SELECT FROM usage AS c
        WHERE c.corrects = u.event_id AND (c.count_source = 'journal' OR j.partial)
    )
    AND u.event_id <> ALL ($3::text[])
ORDER BY u.event_id, j.partial, j.output_tokens DESC
LIMIT $2;
