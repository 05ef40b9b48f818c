-- What operators did: one row an act, never changed. Rows may be deleted once they are 90 days old; housekeeping does it later still.

CREATE TABLE audit (
    act_id       text PRIMARY KEY,                     -- made where the act was: written twice, it is one row
    org_id       text NOT NULL REFERENCES orgs,
    at           timestamptz NOT NULL,                 -- when it began
    act          text NOT NULL,
    object       text NOT NULL,
    who          text NOT NULL,                        -- proved: an admin key, or a user of the machine
    said_by      text NOT NULL DEFAULT '',             -- what the caller says of himself
    origin       text NOT NULL,                        -- the address it came from, or the machine itself
    asked        jsonb NOT NULL DEFAULT '{}',          -- without secrets
    changed      jsonb NOT NULL DEFAULT '{}',
    outcome      text NOT NULL CHECK (outcome IN ('done', 'refused', 'failed', 'unknown')),
    reason       text NOT NULL DEFAULT '',
    recorded_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_by_time ON audit (org_id, at DESC);
CREATE INDEX audit_by_age ON audit (recorded_at);

CREATE FUNCTION audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.recorded_at < now() - interval '90 days' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'rows of audit are never changed, nor deleted before they are 90 days old' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_stays BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_stays();
CREATE TRIGGER audit_is_not_emptied BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_stays();
