"""What callers may ask for beyond what every endpoint serves, and the hosts media may be fetched from."""

from pilotlight.database.migrations.script import run_sql

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    run_sql("0011_allow.sql")
