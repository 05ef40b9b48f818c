"""Postgres, the embedded one or the operator's: found, started, connected to, migrated."""
