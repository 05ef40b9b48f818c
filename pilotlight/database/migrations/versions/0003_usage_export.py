"""An index for listing and exporting usage by time."""

from pilotlight.database.migrations.script import run_sql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run_sql("0003_usage_export.sql")
