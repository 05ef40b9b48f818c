"""Deploys that wait until the new revision serves, and time for running answers to end."""

from pilotlight.database.migrations.script import run_sql

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    run_sql("0009_rollouts.sql")
