"""Deletes old rows that Postgres need not keep, once an hour. Step 12.

These are settled journal rows, events and ended replicas past `keep_days`, and the audit past `audit_days`. Where the
database is larger than it may be, rows go sooner: each time in half the days, down to one. Once it is not, the days
double again. What is settled is never deleted, so the database may stay too large; then the log says so. It deletes in
batches, so that no statement holds anything for long. What must survive is Postgres being away: the next hour does it.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn

import structlog

from activator.store.connection import FAILED, Connection, Pool
from activator.store.statements import statements

SQL = statements("housekeeping")
SIZE = statements("size")

FIRST_SECONDS = 60.0  # after the start, which has other things to ask of Postgres
EVERY_SECONDS = 3600.0
BATCH = 5000  # rows

log = structlog.get_logger()


async def keep_house(pool: Pool, *, keep_days: float, audit_days: float, most_bytes: int) -> NoReturn:
    days = keep_days
    await asyncio.sleep(FIRST_SECONDS)
    while True:
        try:
            async with pool.acquire() as connection:
                deleted = await tidy(connection, keep_days=days, audit_days=audit_days)
                size = int(await connection.fetchval(SIZE["bytes"]))
            if any(deleted.values()):
                log.info("old rows deleted", action="tidy", days=days, **deleted)
            if size > most_bytes:
                log.warning(
                    "the database is larger than disk.postgres_bytes",
                    action="tidy",
                    bytes=size,
                    most=most_bytes,
                    days=days,
                )
            days = next_days(days, keep_days, too_large=size > most_bytes)
        except FAILED as error:
            log.warning("old rows are not deleted for now", action="tidy", error=f"{type(error).__name__}: {error}")
        await asyncio.sleep(EVERY_SECONDS)


def next_days(days: float, keep_days: float, *, too_large: bool) -> float:
    """For how many days the next time keeps what need not be kept, `keep_days` being as configured. Pure."""
    return min(keep_days, max(1.0, days / 2) if too_large else days * 2)


async def tidy(connection: Connection, *, keep_days: float, audit_days: float, batch: int = BATCH) -> dict[str, int]:
    """How many rows were deleted, by statement. Raises asyncpg.PostgresError."""
    deleted = dict.fromkeys(SQL, 0)
    for name, statement in SQL.items():
        days = audit_days if name == "audit" else keep_days
        while count := int((await connection.execute(statement, days, batch)).rpartition(" ")[2]):
            deleted[name] += count
            if count < batch:
                break
    return deleted
