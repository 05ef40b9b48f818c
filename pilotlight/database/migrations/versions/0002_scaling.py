"""Target concurrency, and what revisions need of memory."""

from pilotlight.database.migrations.script import run_sql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_sql("0002_scaling.sql")
