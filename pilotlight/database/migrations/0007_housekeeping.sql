-- What grows for ever is deleted by age: engine_journal (once its request is in usage), events, replicas that ended.
CREATE INDEX engine_journal_by_time ON engine_journal (stored_at);
CREATE INDEX events_by_time ON events (at);
CREATE INDEX replicas_by_end ON replicas (stopped_at) WHERE state = 'stopped';
