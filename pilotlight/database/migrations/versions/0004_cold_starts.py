"""The record of every cold start."""

from pilotlight.database.migrations.script import run_sql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run_sql("0004_cold_starts.sql")
