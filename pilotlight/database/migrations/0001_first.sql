-- The first schema. Every table has org_id, so that "who pays" is never added later.
-- Times are timestamptz; durations are milliseconds (integer); money is NUMERIC, US dollars.

CREATE TABLE orgs (
    org_id      text PRIMARY KEY,
    name        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
INSERT INTO orgs (org_id, name) VALUES ('default', 'Default organisation');

CREATE TABLE endpoints (
    endpoint_id  text PRIMARY KEY,
    org_id       text NOT NULL REFERENCES orgs,
    name         text NOT NULL UNIQUE,
    route        jsonb NOT NULL DEFAULT '[]',          -- [[revision_id, weight], …], weights sum to 100
    max_held     integer NOT NULL DEFAULT 1000,
    hold_seconds double precision NOT NULL DEFAULT 300,
    created_at   timestamptz NOT NULL DEFAULT now(),
    removed_at   timestamptz
);

CREATE TABLE revisions (                                -- immutable
    revision_id   text PRIMARY KEY,
    org_id        text NOT NULL REFERENCES orgs,
    endpoint_id   text NOT NULL REFERENCES endpoints,
    number        integer NOT NULL,
    digest        text NOT NULL,
    task          text NOT NULL CHECK (task IN ('generate', 'embed', 'score')),
    engine_args   jsonb NOT NULL DEFAULT '{}',
    min_replicas  integer NOT NULL CHECK (min_replicas >= 0),
    max_replicas  integer NOT NULL CHECK (max_replicas >= greatest(min_replicas, 1)),
    idle_timeout_seconds double precision NOT NULL CHECK (idle_timeout_seconds >= 0),
    slots         integer NOT NULL CHECK (slots >= 1),
    created_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (endpoint_id, number)
);

CREATE TABLE replicas (
    replica_id   text PRIMARY KEY,
    org_id       text NOT NULL REFERENCES orgs,
    revision_id  text NOT NULL REFERENCES revisions,
    node_id      text NOT NULL,
    state        text NOT NULL CHECK (state IN ('starting', 'ready', 'draining', 'stopped')),
    -- starting → ready → draining → stopped; any state → stopped when it dies
    address      text NOT NULL DEFAULT '',
    phases       jsonb NOT NULL DEFAULT '[]',           -- [{name, at, seconds}, …]
    reason       text NOT NULL DEFAULT '',
    started_at   timestamptz NOT NULL DEFAULT now(),
    ready_at     timestamptz,
    stopped_at   timestamptz
);
CREATE INDEX replicas_alive ON replicas (revision_id) WHERE state <> 'stopped';

CREATE TABLE keys (
    key_id       text PRIMARY KEY,
    org_id       text NOT NULL REFERENCES orgs,
    endpoint_id  text REFERENCES endpoints,             -- null: an admin key
    scope        text NOT NULL CHECK (scope IN ('inference', 'admin')),
    name         text NOT NULL DEFAULT '',
    hash         bytea NOT NULL UNIQUE,                 -- HMAC-SHA-256 under the installation's pepper
    prefix       text NOT NULL,                         -- "pl_ab"
    last_four    text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz
);

CREATE TABLE prices (                                   -- immutable rows; a new price is a new row
    price_id      text PRIMARY KEY,
    org_id        text NOT NULL REFERENCES orgs,
    endpoint_id   text REFERENCES endpoints,            -- null: the default of every endpoint
    version       bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    input_per_million   numeric(20,10) NOT NULL CHECK (input_per_million >= 0),
    cached_per_million  numeric(20,10) NOT NULL CHECK (cached_per_million >= 0),
    output_per_million  numeric(20,10) NOT NULL CHECK (output_per_million >= 0),
    valid_from    timestamptz NOT NULL DEFAULT now()
);
INSERT INTO prices (price_id, org_id, input_per_million, cached_per_million, output_per_million, valid_from)
VALUES ('price_default', 'default', 0.10, 0.05, 0.40, '2000-01-01T00:00:00Z');

CREATE TABLE engine_journal (                           -- what an engine produced; the ledger joins it with the router's record
    request_id    text PRIMARY KEY,
    org_id        text NOT NULL REFERENCES orgs,
    replica_id    text NOT NULL,
    input_tokens  bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    finish        text NOT NULL,
    stored_at     timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE usage (                                    -- one immutable row a request
    event_id      text PRIMARY KEY,                     -- also x-request-id
    org_id        text NOT NULL REFERENCES orgs,
    endpoint_id   text NOT NULL,
    revision_id   text NOT NULL DEFAULT '',
    replica_id    text NOT NULL DEFAULT '',
    key_id        text NOT NULL,
    path          text NOT NULL,
    streamed      boolean NOT NULL,
    status        integer NOT NULL,                     -- HTTP status; 0: the client left before one was sent
    finish        text NOT NULL CHECK (finish IN ('complete', 'client_disconnect', 'upstream_error', 'refused', 'timeout', 'router_lost')),
    start         text NOT NULL CHECK (start IN ('warm', 'cold')),
    admitted_at   timestamptz NOT NULL,
    hold_ms       double precision NOT NULL,
    first_byte_ms double precision,                     -- from admission; null: none was sent
    total_ms      double precision NOT NULL,
    phases        jsonb NOT NULL DEFAULT '[]',
    input_tokens  bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    count_source  text NOT NULL CHECK (count_source IN ('engine', 'journal', 'relayed', 'none')),
    price_version bigint NOT NULL,
    cost          numeric(20,10) NOT NULL,
    settled_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX usage_by_endpoint ON usage (endpoint_id, admitted_at DESC);

CREATE TABLE leadership (                               -- the activator's epoch; one row
    only_one  boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    org_id    text NOT NULL REFERENCES orgs,
    epoch     bigint NOT NULL
);
INSERT INTO leadership (org_id, epoch) VALUES ('default', 0);
