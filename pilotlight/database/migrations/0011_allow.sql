-- What callers of an endpoint may ask for beyond what every endpoint serves, and from which hosts its engine may fetch media.

ALTER TABLE revisions
    ADD COLUMN allow text[] NOT NULL DEFAULT '{}',
    ADD COLUMN media_hosts text[] NOT NULL DEFAULT '{}';
