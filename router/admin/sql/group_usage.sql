-- group_usage: sums, corrections included, of what list_usage would list without its limit, by what $5 names: endpoint, key, day, month.
-- $1 org_id, $2 endpoint_id or null, $3 since or null, $4 until or null, $6: at most so many rows. Days and months are of UTC.
SELECT
    CASE WHEN 'month' = ANY($5::text[]) THEN to_char(u.admitted_at AT TIME ZONE 'UTC', 'YYYY-MM') END AS month,
    CASE WHEN 'day' = ANY($5::text[]) THEN to_char(u.admitted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') END AS day,
    CASE WHEN 'endpoint' = ANY($5::text[]) THEN coalesce(e.name, '') END AS endpoint,
    CASE WHEN 'key' = ANY($5::text[]) THEN coalesce(u.key_id, '') END AS key_id,
    count(*) FILTER (WHERE u.corrects IS NULL) AS requests,
    count(*) FILTER (WHERE u.corrects IS NOT NULL) AS corrections,
    coalesce(sum(u.input_tokens), 0)::bigint AS input_tokens,
    coalesce(sum(u.cached_tokens), 0)::bigint AS cached_tokens,
    coalesce(sum(u.output_tokens), 0)::bigint AS output_tokens,
    coalesce(sum(u.cost), 0)::numeric AS cost
FROM usage AS u
LEFT JOIN endpoints AS e USING (endpoint_id)
WHERE u.org_id = $1
    AND ($2::text IS NULL OR u.endpoint_id = $2)
    AND ($3::double precision IS NULL OR u.admitted_at >= to_timestamp($3))
    AND ($4::double precision IS NULL OR u.admitted_at < to_timestamp($4))
GROUP BY 1, 2, 3, 4
ORDER BY 1 DESC NULLS LAST, 2 DESC NULLS LAST, cost DESC, 3, 4
LIMIT $6;
