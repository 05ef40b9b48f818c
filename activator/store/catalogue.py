"""Endpoints and revisions in Postgres. Read whole at a start, and one by one when a command has changed them."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from activator.catalogue import Endpoint, Revision
from activator.store.connection import Connection
from activator.store.statements import statements

SQL = statements("catalogue")


async def load(connection: Connection, name: str | None = None) -> list[Endpoint]:
    """Every endpoint that serves or has replicas left; with a name, that one, be it removed."""
    rows = await connection.fetch(SQL["endpoints"], name)
    revisions: dict[str, list[Revision]] = defaultdict(list)
    for row in await connection.fetch(SQL["revisions"], [row["endpoint_id"] for row in rows]):
        revisions[row["endpoint_id"]].append(_revision(row))
    return [_endpoint(row, tuple(revisions[row["endpoint_id"]])) for row in rows]


async def put(connection: Connection, endpoint: Endpoint, new_revision: Revision | None) -> None:
    """Store an endpoint as it is to be, with the revision that is new in it. Raises asyncpg.PostgresError."""
    route = json.dumps([list(part) for part in endpoint.route])
    values = (endpoint.endpoint_id, endpoint.org_id, endpoint.name, endpoint.max_held, endpoint.hold_seconds, route, endpoint.removed)
    await connection.execute(SQL["put_endpoint"], *values)
    if new_revision is not None:
        await _add_revision(connection, new_revision)


async def leading_epoch(connection: Connection) -> int:
    """Within a transaction: the epoch that leads, and goes on leading until the transaction ends."""
    return int(await connection.fetchval(SQL["epoch"]))


async def _add_revision(connection: Connection, revision: Revision) -> None:
    await connection.execute(
        SQL["add_revision"],
        revision.revision_id,
        revision.org_id,
        revision.endpoint_id,
        revision.number,
        revision.digest,
        revision.task,
        json.dumps(dict(revision.engine_args)),
        revision.min_replicas,
        revision.max_replicas,
        revision.idle_timeout_seconds,
        revision.slots,
        revision.target_concurrency,
        revision.weight_bytes,
        revision.zero,
    )


def _revision(row: Any) -> Revision:
    return Revision(**{**row, "engine_args": json.loads(row["engine_args"])})


def _endpoint(row: Any, revisions: tuple[Revision, ...]) -> Endpoint:
    route = tuple((revision_id, weight) for revision_id, weight in json.loads(row["route"]))
    return Endpoint(**{**row, "route": route, "revisions": revisions})
