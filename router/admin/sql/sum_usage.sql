-- sum_usage: the totals, corrections included, of what list_usage would list without its limit. $1 org_id, $2 endpoint_id or null, $3 since or null, $4 until or null.
SELECT
    count(*) FILTER (WHERE corrects IS NULL) AS requests,
    count(*) FILTER (WHERE corrects IS NOT NULL) AS corrections,
    coalesce(sum(input_tokens), 0)::bigint AS input_tokens,
    coalesce(sum(cached_tokens), 0)::bigint AS cached_tokens,
    coalesce(sum(output_tokens), 0)::bigint AS output_tokens,
    coalesce(sum(cost), 0)::numeric AS cost
FROM usage
WHERE org_id = $1
    AND ($2::text IS NULL OR endpoint_id = $2)
    AND ($3::double precision IS NULL OR admitted_at >= to_timestamp($3))
    AND ($4::double precision IS NULL OR admitted_at < to_timestamp($4));
