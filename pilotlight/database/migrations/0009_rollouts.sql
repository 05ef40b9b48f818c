-- A deploy keeps the route until the new revision has shown that it serves; and running answers have time to end by themselves.

ALTER TABLE endpoints
    ADD COLUMN next_revision text,                      -- gets the whole route once it is ready; null: no deploy is on its way
    ADD COLUMN finish_seconds double precision NOT NULL DEFAULT 3600 CHECK (finish_seconds >= 0);

ALTER TABLE revisions                                   -- what it is configured to be stays immutable; this is what became of it
    ADD COLUMN created_by text NOT NULL DEFAULT '',
    ADD COLUMN outcome text NOT NULL DEFAULT '' CHECK (outcome IN ('', 'proved', 'failed')),  -- '': it has not been tried yet
    ADD COLUMN failure text NOT NULL DEFAULT '';
