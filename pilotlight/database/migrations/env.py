"""What alembic runs: every missing migration in one transaction, under a lock of the whole database. See
`../migrate.py`.

The tables are in a schema of ours. Releases before 2026-11-27 put them beside whatever else was in the database; they
are moved, and nothing else is touched. What looks like another program's is left alone.
"""

from __future__ import annotations

import asyncio

import asyncpg
from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from pilotlight.database.connect import SCHEMA, connect
from pilotlight.database.migrate import REVISION

FIRST = (
    "orgs",
    "endpoints",
    "revisions",
    "replicas",
    "keys",
    "prices",
    "engine_journal",
    "usage",
    "leadership",
)  # of revision 0001
LATER = ("cold_starts", "events", "bad_rungs", "journals")  # up to 0009, the last that was made there
LOCK = 7_011_973_402_951  # any number, the same for ever


async def _connect(**_: object) -> asyncpg.Connection:
    return await connect(context.config.attributes["dsn"], application="migrate")


async def _run() -> None:
    engine = create_async_engine("postgresql+asyncpg://", async_creator=_connect, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    _make_schema(connection)
    _move_in(connection)
    context.configure(
        connection=connection, version_table=context.config.attributes["version_table"], version_table_schema=SCHEMA
    )
    context.run_migrations()


def _make_schema(connection: Connection) -> None:
    """Raises PermissionError, which says what to grant."""
    if connection.scalar(text("SELECT 1 FROM pg_namespace WHERE nspname = :name"), {"name": SCHEMA}):
        return
    if not connection.scalar(text("SELECT has_database_privilege(current_database(), 'CREATE')")):
        user, database = connection.execute(text("SELECT current_user, current_database()")).one()
        raise PermissionError(
            f'the user {user} may not make a schema in {database}; as its owner run: CREATE SCHEMA {SCHEMA} AUTHORIZATION "{user}"'
        )
    connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))


def _move_in(connection: Connection) -> None:
    """What releases before 2026-11-27 made in the schema `public`: all of these tables, and a revision of ours."""
    table = context.config.attributes["version_table"]
    if connection.scalar(text("SELECT to_regclass(:name)"), {"name": f"{SCHEMA}.{table}"}):
        return
    there = connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
    if not {table, *FIRST} <= set(there) or not REVISION.fullmatch(
        str(connection.scalar(text(f"SELECT max(version_num) FROM public.{table}")))
    ):
        return
    for name in (table, *FIRST, *LATER):
        if name in there:
            connection.execute(text(f"ALTER TABLE public.{name} SET SCHEMA {SCHEMA}"))


asyncio.run(_run())
