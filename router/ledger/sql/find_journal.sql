-- find_journal: what engines really produced for the requests $1 (an array of request ids), as far as it has arrived.
SELECT request_id, replica_id, input_tokens, cached_tokens, output_tokens, finish, partial
FROM engine_journal
WHERE request_id = ANY ($1::text[]);
