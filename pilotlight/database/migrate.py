"""Brings the tables to what this version expects: `await migrate(dsn)` after Postgres is up, before anything else connects.

alembic and SQLAlchemy need most of a second and 30 MB, so a process that finds nothing to do never imports them, and
where there is something to do a child does it: `python -m pilotlight.database.migrate`. It must survive kill -9 half-way
(all migrations are one transaction) and two processes that migrate at once (an advisory lock; the second finds it done).
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import asyncpg

from pilotlight import children
from pilotlight.database.errors import SchemaError
from pilotlight.database.pool import CONNECT_SECONDS, unreachable

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "alembic_version"


def newest() -> str:
    """The revision this version expects: `versions/0007_anything.py` is revision "0007"."""
    return max(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


async def migrate(dsn: str) -> None:
    """Run what is missing; costs one query where nothing is. Raises Unreachable, SchemaError."""
    found = await _revision(dsn)
    if found == newest():
        return
    if found > newest():
        raise SchemaError(f"the database is at revision {found}, this Pilotlight knows {newest()}: run the newer Pilotlight again")
    pipe = asyncio.subprocess.PIPE
    environ = children.environment(os.environ) | {"DATABASE_URL": dsn}
    child = await asyncio.create_subprocess_exec(*children.python("pilotlight.database.migrate"), env=environ, stdout=pipe, stderr=pipe)
    try:
        _, said = await child.communicate()
    except BaseException:
        child.kill()
        raise
    if child.returncode != 0:
        raise SchemaError(
            f"the migration from {found or 'nothing'} to {newest()} failed and changed nothing: {said.decode(errors='replace')[-2000:]}"
        )


async def _revision(dsn: str) -> str:
    """The database's revision, "" for an empty one."""
    try:
        connection = await asyncpg.connect(dsn, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise unreachable(dsn, error) from error
    try:
        if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", VERSION_TABLE):
            return ""
        return str(await connection.fetchval(f"SELECT max(version_num) FROM {VERSION_TABLE}") or "")
    finally:
        await connection.close()


def _main() -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["dsn"] = os.environ["DATABASE_URL"]
    config.attributes["version_table"] = VERSION_TABLE
    command.upgrade(config, "head")


if __name__ == "__main__":
    _main()
