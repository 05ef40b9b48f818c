"""Journal rows, events and ended replicas are found by age."""

from pilotlight.database.migrations.script import run_sql

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    run_sql("0007_housekeeping.sql")
