"""What alembic runs: every missing migration in one transaction, under a lock of the whole database. See `../migrate.py`."""

from __future__ import annotations

import asyncio

import asyncpg
from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

LOCK = 7_011_973_402_951  # any number, the same for ever


async def _connect(**_: object) -> asyncpg.Connection:
    return await asyncpg.connect(context.config.attributes["dsn"])


async def _run() -> None:
    engine = create_async_engine("postgresql+asyncpg://", async_creator=_connect, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    context.configure(connection=connection, version_table=context.config.attributes["version_table"])
    context.run_migrations()


asyncio.run(_run())
