"""Rungs in quarantine, in Postgres: written on each change, read when an activator takes over. Step 6.

What must survive is the activator's death between a wrong answer and the next start. The next leader must not use the
rung that gave it. A mark that was not written yet dies with its activator. Then the canary, which every start passes,
catches the same wrong answer once more.
"""

from __future__ import annotations

from activator.policy.quarantine import QuarantinedRung
from activator.store.connection import Connection
from activator.store.statements import statements

SQL = statements("bad_rungs")


async def put(connection: Connection, mark: QuarantinedRung, now: float) -> None:
    """Store the mark, or that there is none any more, at `now` (monotonic seconds). Raises asyncpg.PostgresError."""
    rung = (mark.revision_id, mark.node_id, mark.step)
    if mark.until is None:
        await connection.execute(SQL["remove"], *rung)
    else:
        await connection.execute(SQL["put"], *rung, mark.until - now)
        await connection.execute(SQL["prune"])


async def marked(connection: Connection, now: float) -> list[QuarantinedRung]:
    """Those that are bad at `now`, in monotonic seconds of this process."""
    rows = await connection.fetch(SQL["marked"])
    return [QuarantinedRung(row["revision_id"], row["node_id"], row["rung"], now + row["seconds_left"]) for row in rows]
