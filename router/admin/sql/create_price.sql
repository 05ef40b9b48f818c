-- create_price: another version of an endpoint's prices, and word of it to every ledger. Rows of `prices` are never changed.
-- $1 price_id, $2 org_id, $3 endpoint_id, $4 $5 $6 dollars a million input, cached and output tokens, $7 valid from, or null: from now on.
-- One at a time: a ledger knows it is up to date by the highest version, so none may come to light after a higher one.
WITH alone AS MATERIALIZED (
    SELECT pg_advisory_xact_lock(hashtext('pilotlight prices'))
),
made AS (
    INSERT INTO prices (price_id, org_id, endpoint_id, input_per_million, cached_per_million, output_per_million, valid_from)
    SELECT $1, $2, $3, $4::numeric, $5::numeric, $6::numeric, coalesce($7::timestamptz, clock_timestamp()) FROM alone
    RETURNING price_id, version, input_per_million, cached_per_million, output_per_million, valid_from
)
SELECT
    price_id, version, input_per_million, cached_per_million, output_per_million, valid_from,
    pg_notify('policy', price_id)::text AS told
FROM made;
