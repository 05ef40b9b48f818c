-- list_prices: every version of the prices of the endpoint $1 there ever was, newest first.
SELECT price_id, version, input_per_million, cached_per_million, output_per_million, valid_from
FROM prices
WHERE endpoint_id = $1
ORDER BY version DESC;
