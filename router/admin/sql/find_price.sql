-- find_price: what a request to the endpoint $1 of the organisation $2 costs when it is admitted now, as ledger/prices.py decides it:
-- the endpoint's own price, else its organisation's, else the installation's; of these the last to become valid, and its last version.
-- What the endpoint had before it was last removed (a row that ends) counts no more.
SELECT price_id, version, input_per_million, cached_per_million, output_per_million, valid_from
FROM prices
WHERE valid_from <= now()
    AND (endpoint_id = $1 OR (endpoint_id IS NULL AND org_id IN ($2, 'default')))
    AND (endpoint_id IS NULL OR version > coalesce((SELECT max(version) FROM prices WHERE endpoint_id = $1 AND ends), 0))
ORDER BY endpoint_id IS NULL, org_id <> $2, valid_from DESC, version DESC
LIMIT 1;
