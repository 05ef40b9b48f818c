"""Origins of web pages that may call an endpoint."""

from pilotlight.database.migrations.script import run_sql

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    run_sql("0010_cors.sql")
