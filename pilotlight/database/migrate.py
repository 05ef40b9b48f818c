"""Brings the tables to what this version expects: `await migrate(dsn)`, after Postgres is up and before anything else.

alembic and SQLAlchemy need most of a second and 30 MB. A process that finds nothing to do never imports them; where
there is something to do, a child does it: `python -m pilotlight.database.migrate`. It must survive kill -9 half-way and
two processes that migrate at once. All migrations are one transaction; under an advisory lock the second process finds
it done.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from pilotlight import children
from pilotlight.database.connect import REFUSALS, SCHEMA, Session, check, connect, unreachable
from pilotlight.database.errors import SchemaError

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "alembic_version"
REVISION = re.compile(r"\d{4}")  # what ours look like; another program's table of the same name has others


def newest() -> str:
    """The revision this version expects: `versions/0007_anything.py` is revision "0007"."""
    return max(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


async def migrate(dsn: str) -> None:
    """Run what is missing; costs a few queries where nothing is. Raises Unreachable, Unfit, SchemaError."""
    found = await _revision(dsn)
    if found == newest():
        return
    if found > newest():
        raise SchemaError(
            f"the database is at revision {found}, this Pilotlight knows {newest()}: run the newer Pilotlight again"
        )
    pipe = asyncio.subprocess.PIPE
    environ = children.environment(os.environ) | {"DATABASE_URL": dsn}
    child = await asyncio.create_subprocess_exec(
        *children.python("pilotlight.database.migrate"), env=environ, stdout=pipe, stderr=pipe
    )
    try:
        _, said = await child.communicate()
    except BaseException:
        child.kill()
        raise
    if child.returncode != 0:
        raise SchemaError(
            f"the migration from {found or 'nothing'} to {newest()} failed and changed nothing: {said.decode(errors='replace').strip()[-500:]}"
        )


async def _revision(dsn: str) -> str:
    """The database's revision; "" where it has none of ours, or has them where releases before 2026-11-27 put them.
    Asked once a start,

    so here is also looked whether we can work with this Postgres at all. Raises Unreachable, Unfit.
    """
    try:
        connection = await connect(dsn, application="migrate")
        try:
            await check(dsn, connection)
            return await _revision_in(connection, SCHEMA)
        finally:
            connection.terminate()
    except REFUSALS as error:
        raise unreachable(dsn, error) from error


async def _revision_in(connection: Session, schema: str) -> str:
    if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{schema}.{VERSION_TABLE}"):
        return ""
    return str(await connection.fetchval(f"SELECT max(version_num) FROM {schema}.{VERSION_TABLE}") or "")


def _main() -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["dsn"] = os.environ["DATABASE_URL"]
    config.attributes["version_table"] = VERSION_TABLE
    try:
        command.upgrade(config, "head")
    except Exception as error:  # told in a line, whatever it was: a traceback is not what an operator can mend
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    _main()
