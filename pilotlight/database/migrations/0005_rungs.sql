-- Where a revision rests without a call; replicas that are parked; and what happened that an operator should hear of.

ALTER TABLE revisions
    ADD COLUMN zero text NOT NULL DEFAULT 'standby' CHECK (zero IN ('parked', 'standby', 'staged'));

ALTER TABLE replicas
    DROP CONSTRAINT replicas_state_check,
    ADD CONSTRAINT replicas_state_check CHECK (state IN ('starting', 'ready', 'draining', 'parking', 'parked', 'stopped'));
    -- starting → ready → draining → stopped; ready → parking → parked → starting; any state → stopped when it dies

CREATE TABLE events (
    event_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org_id       text NOT NULL REFERENCES orgs,
    endpoint_id  text NOT NULL REFERENCES endpoints,
    revision_id  text NOT NULL REFERENCES revisions,
    replica_id   text NOT NULL,
    node_id      text NOT NULL,
    kind         text NOT NULL,
    text         text NOT NULL,
    at           timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX events_by_endpoint ON events (endpoint_id, event_id DESC);
