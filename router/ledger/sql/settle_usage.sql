-- settle_usage: write a batch of finished requests, each at most once for ever (event_id is the primary key).
-- $1 … $23: arrays, one element a request, in the order of row.UsageRow ($22 in 1e-10 dollars). $24: the newest price version they were priced
-- with; where there is a newer one, nothing is written and the caller loads the prices anew.
-- Returns (newest, written, clock): the newest price version, how many rows were not there before, and Postgres' clock in Unix seconds.
WITH newest AS (
    SELECT coalesce(max(version), 0) AS version FROM prices
),
written AS (
    INSERT INTO usage (
        event_id, org_id, endpoint_id, revision_id, replica_id, key_id, path, streamed, status, finish, start,
        admitted_at, hold_ms, first_byte_ms, total_ms, phases,
        input_tokens, cached_tokens, output_tokens, count_source, price_version, cost,
        delivered_tokens
    )
    SELECT
        event_id, org_id, endpoint_id, revision_id, replica_id, key_id, path, streamed, status, finish, start,
        to_timestamp(admitted_at), hold_ms, first_byte_ms, total_ms, phases::jsonb,
        input_tokens, cached_tokens, output_tokens, count_source, price_version, cost * 0.0000000001,
        delivered_tokens
    FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::boolean[], $9::integer[],
        $10::text[], $11::text[], $12::double precision[], $13::double precision[], $14::double precision[],
        $15::double precision[], $16::text[], $17::bigint[], $18::bigint[], $19::bigint[], $20::text[], $21::bigint[],
        $22::bigint[], $23::bigint[]
    ) AS given (
        event_id, org_id, endpoint_id, revision_id, replica_id, key_id, path, streamed, status,
        finish, start, admitted_at, hold_ms, first_byte_ms,
        total_ms, phases, input_tokens, cached_tokens, output_tokens, count_source, price_version,
        cost, delivered_tokens
    )
    WHERE (SELECT version FROM newest) = $24
    ON CONFLICT (event_id) DO NOTHING
    RETURNING event_id, org_id, revision_id, replica_id, finish, count_source
),
-- A whole answer that nobody counted, neither in band nor in a journal: an operator should hear of it.
uncounted AS (
    INSERT INTO events (org_id, endpoint_id, revision_id, replica_id, node_id, kind, text)
    SELECT
        w.org_id, v.endpoint_id, v.revision_id, w.replica_id, coalesce(max(r.node_id), ''), 'uncounted',
        'nobody counted the tokens of ' || count(*) || ' whole answer(s), such as ' || min(w.event_id) || '; they are billed as nothing'
    FROM written AS w
    INNER JOIN revisions AS v ON v.revision_id = w.revision_id
    LEFT JOIN replicas AS r ON r.replica_id = w.replica_id
    WHERE w.finish = 'complete' AND w.count_source = 'none'
    GROUP BY w.org_id, v.endpoint_id, v.revision_id, w.replica_id
)
SELECT
    (SELECT version FROM newest) AS newest, (SELECT count(*) FROM written) AS written,
    extract(epoch FROM clock_timestamp())::double precision AS clock;
