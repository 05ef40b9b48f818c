"""Deletes what Postgres need not keep: settled journal rows, events and ended replicas past their days. Step 12.

An hour apart, in batches, so that no statement holds anything for long. The failure to survive is a Postgres that is
away: the next hour does it.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn

import structlog

from activator.store.connection import FAILED, Connection, Pool
from activator.store.statements import statements

SQL = statements("housekeeping")

FIRST_SECONDS = 60.0  # after the start, which has other things to ask of Postgres
EVERY_SECONDS = 3600.0
BATCH = 5000  # rows

log = structlog.get_logger()


async def keep_house(pool: Pool, *, keep_days: float) -> NoReturn:
    await asyncio.sleep(FIRST_SECONDS)
    while True:
        try:
            async with pool.acquire() as connection:
                deleted = await tidy(connection, keep_days=keep_days)
            if any(deleted.values()):
                log.info("old rows deleted", action="tidy", **deleted)
        except FAILED as error:
            log.warning("old rows are not deleted for now", action="tidy", error=f"{type(error).__name__}: {error}")
        await asyncio.sleep(EVERY_SECONDS)


async def tidy(connection: Connection, *, keep_days: float, batch: int = BATCH) -> dict[str, int]:
    """How many rows were deleted, by statement. Raises asyncpg.PostgresError."""
    deleted = dict.fromkeys(SQL, 0)
    for name, statement in SQL.items():
        while count := int((await connection.execute(statement, keep_days, batch)).rpartition(" ")[2]):
            deleted[name] += count
            if count < batch:
                break
    return deleted
