-- list_corrections: what was added to the row $1 of the organisation $2 after it was settled, the oldest first.
SELECT event_id, input_tokens, cached_tokens, output_tokens, count_source, price_version, cost, settled_at
FROM usage
WHERE corrects = $1 AND org_id = $2
ORDER BY settled_at, event_id;
