"""Endpoints that are paused."""

from pilotlight.database.migrations.script import run_sql

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    run_sql("0012_paused.sql")
