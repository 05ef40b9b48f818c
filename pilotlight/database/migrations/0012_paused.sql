-- An endpoint may be paused: it keeps its name, keys and revisions, runs nothing, and its callers are told so.

ALTER TABLE endpoints
    ADD COLUMN paused boolean NOT NULL DEFAULT false;
