"""Endpoints and revisions in Postgres: all of them read at a start, then one by one as commands change them. Step 6."""

from __future__ import annotations

import json
import secrets
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

from activator.catalogue import Endpoint, Revision, RevisionOutcome
from activator.store.connection import Connection
from activator.store.statements import statements

SQL = statements("catalogue")


class Ended(NamedTuple):
    """What ended with an endpoint's life."""

    keys: tuple[str, ...] = ()
    prices: bool = False


async def load(connection: Connection, name: str | None = None, *, past: bool = False) -> list[Endpoint]:
    """Every endpoint that serves or has replicas left; with a name, that one, be it removed. `past`: with all revisions
    it ever had.
    """
    rows = await connection.fetch(SQL["endpoints"], name)
    revisions: dict[str, list[Revision]] = defaultdict(list)
    for row in await connection.fetch(SQL["revisions"], [row["endpoint_id"] for row in rows], past):
        revisions[row["endpoint_id"]].append(_revision(row))
    return [_endpoint(row, tuple(revisions[row["endpoint_id"]])) for row in rows]


async def put(connection: Connection, endpoint: Endpoint, new_revision: Revision | None) -> None:
    """Store an endpoint as it is to be, with the revision that is new in it. Raises asyncpg.PostgresError."""
    route = json.dumps([list(part) for part in endpoint.route])
    limits = (endpoint.max_held, endpoint.hold_seconds)
    values = (
        endpoint.endpoint_id,
        endpoint.org_id,
        endpoint.name,
        *limits,
        route,
        endpoint.removed,
        endpoint.next,
        endpoint.finish_seconds,
        list(endpoint.cors_origins),
        endpoint.paused,
    )
    await connection.execute(SQL["put_endpoint"], *values)
    if new_revision is not None:
        await _add_revision(connection, new_revision)


async def settle(connection: Connection, revision_id: str, outcome: RevisionOutcome, failure: str) -> None:
    """What became of a revision. Raises asyncpg.PostgresError."""
    await connection.execute(SQL["settle_revision"], revision_id, outcome, failure)


def new_price_id() -> str:
    return f"price_{secrets.token_hex(10)}"


async def end_life(connection: Connection, endpoint_id: str, new_id: Callable[[], str] = new_price_id) -> Ended:
    """Within a transaction: the keys and prices the endpoint has are of no more use. Raises asyncpg.PostgresError."""
    revoked = await connection.fetch(SQL["revoke_keys"], endpoint_id)
    await connection.execute(SQL["one_price_at_a_time"])
    prices = await connection.fetchval(SQL["end_prices"], endpoint_id, new_id())
    if revoked or prices:
        await connection.execute(SQL["tell_ledgers"], endpoint_id)
    return Ended(tuple(row["key_id"] for row in revoked), prices is not None)


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
        revision.created_by,
        list(revision.allow),
        list(revision.media_hosts),
    )


def _revision(row: Any) -> Revision:
    several = {field: tuple(row[field]) for field in ("allow", "media_hosts")}
    return Revision(**{**row, **several, "engine_args": json.loads(row["engine_args"])})


def _endpoint(row: Any, revisions: tuple[Revision, ...]) -> Endpoint:
    route = tuple((revision_id, weight) for revision_id, weight in json.loads(row["route"]))
    return Endpoint(**{**row, "route": route, "revisions": revisions, "cors_origins": tuple(row["cors_origins"])})
