-- list_prices: every price there ever was; requests are priced by when they were admitted, however late they settle.
SELECT
    version, org_id, coalesce(endpoint_id, '') AS endpoint_id,
    extract(epoch FROM valid_from)::double precision AS valid_from,  -- '-infinity' is -Infinity
    input_per_million, cached_per_million, output_per_million, ends
FROM prices
ORDER BY version;
