-- One row a cold start: what it took, phase by phase, and from which rung it began. Expectations are learned from them.
CREATE TABLE cold_starts (                              -- immutable; the newest 1000 of an endpoint are kept
    cold_start_id  text PRIMARY KEY,                    -- the replica's id; with ".2" behind it where a parked one climbed for the second time
    org_id         text NOT NULL REFERENCES orgs,
    endpoint_id    text NOT NULL REFERENCES endpoints,
    revision_id    text NOT NULL REFERENCES revisions,
    replica_id     text NOT NULL,
    node_id        text NOT NULL,
    rung           text NOT NULL CHECK (rung IN ('parked', 'standby', 'staged', 'stored')),
    snapshot_bytes bigint NOT NULL,                     -- of its tensors; 0: not known
    started_at     timestamptz NOT NULL,
    seconds        double precision NOT NULL CHECK (seconds >= 0),  -- until it was ready, or had failed
    phases         jsonb NOT NULL,                      -- [{name, at, seconds}, …]: those that were finished
    reason         text NOT NULL                        -- why it failed; '': it became ready
);
CREATE INDEX cold_starts_by_endpoint ON cold_starts (endpoint_id, started_at DESC);
CREATE INDEX cold_starts_by_org ON cold_starts (org_id, started_at DESC);
