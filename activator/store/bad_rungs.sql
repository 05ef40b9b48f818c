-- Rungs that gave a wrong answer, until when they are passed over; a row is replaced by a later mark of the same rung.

-- name: put
-- Seconds that are left, not a moment: only durations travel between hosts. Whose it is: as its revision says.
INSERT INTO bad_rungs (revision_id, node_id, rung, org_id, until)
SELECT v.revision_id, $2, $3, v.org_id, now() + make_interval(secs => $4::float8)
FROM revisions v WHERE v.revision_id = $1
ON CONFLICT (revision_id, node_id, rung) DO UPDATE SET until = excluded.until

-- name: remove
-- It is good again.
DELETE FROM bad_rungs WHERE revision_id = $1 AND node_id = $2 AND rung = $3

-- name: prune
-- Those whose time is over.
DELETE FROM bad_rungs WHERE until <= now()

-- name: marked
-- Those that are bad now, with the seconds left.
SELECT revision_id, node_id, rung, extract(epoch FROM until - now())::float8 AS seconds_left FROM bad_rungs WHERE until > now()
