"""`pilotlight deploy`, `apply`, `set`, `ls`, `ps`, `rollback` …: endpoints and their revisions."""
