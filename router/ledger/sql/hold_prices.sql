-- hold_prices: until this transaction ends no price comes to light: what is admitted from a price's first moment on is never settled
-- before it is seen. `create_price` takes the same lock alone.
SELECT pg_advisory_xact_lock_shared(hashtext('pilotlight prices'));
