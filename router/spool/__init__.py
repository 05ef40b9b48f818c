"""What a worker writes down of each request before anybody hears of it, for the ledger to read. Step 12."""
