-- How much one replica is meant to take at once, and how much memory it takes.

ALTER TABLE revisions
    ADD COLUMN target_concurrency integer NOT NULL DEFAULT 0 CHECK (target_concurrency >= 0),  -- requests a replica; 0: as many as it has slots
    ADD COLUMN weight_bytes bigint NOT NULL DEFAULT 0 CHECK (weight_bytes >= 0);               -- of the snapshot's safetensors; 0: not known

ALTER TABLE replicas
    ADD COLUMN memory_bytes bigint NOT NULL DEFAULT 0 CHECK (memory_bytes >= 0);               -- private pages + KV cache, the most measured; 0: never
