"""The engines' usage journal in Postgres. Step 12.

What must survive is an entry that Postgres refuses: it is left out, loudly, and the others are stored.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from activator.store.connection import REFUSED, Connection
from activator.store.statements import statements
from runtime.wire import UsageEntry

SQL = statements("journal")
log = structlog.get_logger()


async def add(connection: Connection, entries: Sequence[UsageEntry], complete: Sequence[str] = ()) -> None:
    """Store entries, once each, and which replicas' journals end with them; wake the ledger.

    One that Postgres refuses as data is left out, loudly, so that the others do not wait behind it for ever.
    """
    try:
        async with connection.transaction():
            await _add(connection, entries)
            await connection.execute(SQL["complete"], complete)
    except REFUSED:
        for entry in entries:
            try:
                await _add(connection, [entry])
            except REFUSED as error:
                log.error(
                    "a usage entry cannot be stored",
                    action="usage_refused",
                    request_id=entry.request_id,
                    error=str(error),
                )
        await connection.execute(SQL["complete"], complete)
        await connection.execute(SQL["notify"])


async def _add(connection: Connection, entries: Sequence[UsageEntry]) -> None:
    await connection.execute(
        SQL["add_usage"],
        [entry.request_id for entry in entries],
        [entry.replica_id for entry in entries],
        [entry.input_tokens for entry in entries],
        [entry.cached_tokens for entry in entries],
        [entry.output_tokens for entry in entries],
        [entry.finish for entry in entries],
        [entry.partial for entry in entries],
    )
    await connection.execute(SQL["notify"])
