-- list_prices: every version of the prices of the endpoint $1 there ever was, newest first.
-- One that `ends` is no price: the endpoint was removed then, and those made before it count no more.
SELECT price_id, version, input_per_million, cached_per_million, output_per_million, valid_from, ends
FROM prices
WHERE endpoint_id = $1
ORDER BY version DESC;
