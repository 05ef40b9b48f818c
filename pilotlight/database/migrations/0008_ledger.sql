-- Bills that wait for word and not for time: which journals are whole, what came later than its row, what was delivered.

ALTER TABLE engine_journal
    ADD COLUMN partial boolean NOT NULL DEFAULT false,  -- the last durable count of a request whose replica ended before it was whole
    DROP CONSTRAINT engine_journal_pkey,
    ADD PRIMARY KEY (request_id, replica_id, partial);  -- a request that ran at two replicas keeps what both made

CREATE TABLE journals (                                 -- replicas that are gone and whose whole journal is in engine_journal
    replica_id   text PRIMARY KEY,
    org_id       text NOT NULL REFERENCES orgs,
    complete_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX journals_by_time ON journals (complete_at);
INSERT INTO journals (replica_id, org_id) SELECT replica_id, org_id FROM replicas WHERE state = 'stopped';  -- the release before said nothing of them

ALTER TABLE usage
    ADD COLUMN delivered_tokens bigint,                 -- output tokens counted as they passed to the client; null: not counted
    ADD COLUMN corrects text REFERENCES usage,          -- the row this one corrects: its figures are what is to be added
    DROP CONSTRAINT usage_count_source_check,
    ADD CONSTRAINT usage_count_source_check CHECK (count_source IN ('engine', 'journal', 'last_count', 'relayed', 'none'));
CREATE INDEX usage_corrections ON usage (corrects) WHERE corrects IS NOT NULL;
-- Rows that a journal may still correct: few, for most are told in band or waited for.
CREATE INDEX usage_uncertain ON usage (settled_at)
    WHERE corrects IS NULL AND (count_source IN ('relayed', 'last_count') OR (count_source = 'none' AND (replica_id <> '' OR finish = 'router_lost')));

-- The default price has no beginning: a request of a machine whose clock is decades slow has one, too.
INSERT INTO prices (price_id, org_id, input_per_million, cached_per_million, output_per_million, valid_from)
SELECT 'price_always', org_id, input_per_million, cached_per_million, output_per_million, '-infinity'
FROM prices WHERE price_id = 'price_default';
