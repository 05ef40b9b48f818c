"""Events in Postgres: what happened to a revision that an operator should hear of. Written once, read by the admin
API.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from activator.store.connection import Connection
from activator.store.statements import statements

SQL = statements("events")

Kind = Literal["canary_mismatch", "no_room", "deploy_failed", "deployed", "hung", "died"]


@dataclass(frozen=True, slots=True)
class EventRecord:
    """`at`: monotonic seconds of this process; what is stored is how long ago that was."""

    org_id: str
    revision_id: str
    replica_id: str
    node_id: str
    kind: Kind
    text: str
    at: float


async def add(connection: Connection, event: EventRecord, now: float) -> None:
    """Store the row, at `now` (monotonic seconds). Raises asyncpg.PostgresError."""
    values = (event.org_id, event.revision_id, event.replica_id, event.node_id, event.kind, event.text)
    await connection.execute(SQL["add"], *values, max(0.0, now - event.at))
