-- How large the database is.

-- name: bytes
-- All of it on disk, room that deleted rows left in its tables included: new rows take that first.
SELECT pg_database_size(current_database())
