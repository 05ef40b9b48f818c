-- Housekeeping: what is deleted by age. Each statement takes a bounded batch, the oldest first, and may be repeated.

-- name: journal
-- Rows older than $1 days whose request is in usage, at most $2: the bill has what they told, and never changes. One whose
-- request never came stays: it is the only trace of what an engine made.
DELETE FROM engine_journal WHERE request_id IN (
    SELECT j.request_id FROM engine_journal j
    WHERE j.stored_at < now() - make_interval(secs => $1::float8 * 86400)
      AND EXISTS (SELECT FROM usage u WHERE u.event_id = j.request_id)
    ORDER BY j.stored_at LIMIT $2
)

-- name: journals
-- Word that journals are whole, older than $1 days, at most $2: no request can wait for one of them any more.
DELETE FROM journals WHERE replica_id IN (
    SELECT replica_id FROM journals WHERE complete_at < now() - make_interval(secs => $1::float8 * 86400) ORDER BY complete_at LIMIT $2
)

-- name: events
-- Events older than $1 days, at most $2.
DELETE FROM events WHERE event_id IN (
    SELECT event_id FROM events WHERE at < now() - make_interval(secs => $1::float8 * 86400) ORDER BY at LIMIT $2
)

-- name: audit
-- What operators did more than $1 days ago, at most $2. Postgres itself lets none go that is younger than 90 days.
DELETE FROM audit WHERE act_id IN (
    SELECT act_id FROM audit WHERE recorded_at < now() - make_interval(secs => $1::float8 * 86400) ORDER BY recorded_at LIMIT $2
)

-- name: replicas
-- Replicas that ended more than $1 days ago, at most $2. Their cold starts and their requests' rows stay.
DELETE FROM replicas WHERE replica_id IN (
    SELECT replica_id FROM replicas
    WHERE state = 'stopped' AND stopped_at < now() - make_interval(secs => $1::float8 * 86400) ORDER BY stopped_at LIMIT $2
)
