-- Who leads: the holder of a session advisory lock; and under which epoch.

-- name: wait
-- Returns when this session leads. The lock ends with the session, so a leader that is killed is followed at once.
SELECT pg_advisory_lock($1)

-- name: try
-- True when this session leads now.
SELECT pg_try_advisory_lock($1)

-- name: probe
-- Answers while the session lives.
SELECT 1

-- name: take_epoch
-- A new epoch, above every earlier one and above $1.
UPDATE leadership SET epoch = greatest(epoch, $1::bigint) + 1 RETURNING epoch
