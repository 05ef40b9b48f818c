-- Rungs that gave a wrong answer outlive the activator that saw it; and an endpoint that is removed ends its prices.

CREATE TABLE bad_rungs (                                -- not stepped on until then; a row is gone when what was wrong has been made anew
    revision_id  text NOT NULL REFERENCES revisions,
    node_id      text NOT NULL,
    rung         text NOT NULL CHECK (rung IN ('parked', 'standby')),
    org_id       text NOT NULL REFERENCES orgs,
    until        timestamptz NOT NULL,
    PRIMARY KEY (revision_id, node_id, rung)
);

ALTER TABLE prices
    ADD COLUMN ends boolean NOT NULL DEFAULT false;     -- no price: from here on none of the endpoint's own made before it counts
