"""Journals that are whole, corrections of rows, what was delivered, and a default price without a beginning."""

from pilotlight.database.migrations.script import run_sql

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    run_sql("0008_ledger.sql")
