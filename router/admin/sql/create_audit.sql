-- create_audit: an act of an operator; one that is there already stays as it is.
-- $1 act_id, $2 org_id, $3 at, $4 act, $5 object, $6 who, $7 said_by, $8 origin, $9 asked, $10 changed, $11 outcome, $12 reason.
-- Returns a row where it is new.
INSERT INTO audit (act_id, org_id, at, act, object, who, said_by, origin, asked, changed, outcome, reason)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::jsonb, $10::text::jsonb, $11, $12)
ON CONFLICT (act_id) DO NOTHING
RETURNING act_id;
