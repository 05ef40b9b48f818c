"""Bad rungs, and the end of an endpoint's prices."""

from pilotlight.database.migrations.script import run_sql

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run_sql("0006_ends.sql")
