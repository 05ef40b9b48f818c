-- Web pages may call an endpoint from a browser, where it names their origins.

ALTER TABLE endpoints
    ADD COLUMN cors_origins text[] NOT NULL DEFAULT '{}';  -- as browsers write them, or '*'; besides those of router.cors_origins
