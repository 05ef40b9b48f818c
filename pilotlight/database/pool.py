"""Connections to Postgres, the embedded one or the operator's, for ledger, admin and activator. Router workers open
none.

It must survive a Postgres that is away (one clear error, to be tried again by the caller) and one that hangs. Every
statement has a time limit, on the server and, a little longer, here.
"""

from __future__ import annotations

import json

import asyncpg

from pilotlight.database import connect
from pilotlight.database.errors import Unreachable
from pilotlight.settings import Settings

STATEMENT_SECONDS = 30.0
LOCK_SECONDS = 10.0
IDLE_IN_TRANSACTION_SECONDS = 60.0
UNUSED_SECONDS = 300.0  # then a connection is closed; while it lasts it costs Postgres 4 MB


def dsn(settings: Settings) -> str:
    """Where Postgres is: the operator's, else the embedded one as its last start recorded it. Raises Unreachable."""
    if settings.database_url:
        return settings.database_url
    try:
        return settings.paths.database_dsn.read_text().strip()
    except FileNotFoundError:
        raise Unreachable(
            f"no database is known: {settings.paths.database_dsn} is missing. Run `pilotlight up` once, or set DATABASE_URL"
        ) from None


async def connect_pool(
    dsn: str, *, application: str, smallest: int = 1, largest: int = 4, unused: float = UNUSED_SECONDS
) -> asyncpg.Pool:
    """A pool whose connections speak Python objects for json and jsonb. `application` is what pg_stat_activity shows.
    One that nobody has used for `unused` seconds is closed.

    The server's limits are milliseconds of statement, lock and idle transaction, as above. Raises Unreachable, Unfit.
    """
    limits = {
        "statement_timeout": str(int(STATEMENT_SECONDS * 1000)),
        "lock_timeout": str(int(LOCK_SECONDS * 1000)),
        "idle_in_transaction_session_timeout": str(int(IDLE_IN_TRANSACTION_SECONDS * 1000)),
    }
    settle = connect.settle(limits)

    async def init(connection: asyncpg.Connection) -> None:
        await settle(connection)
        await _speak_json(connection)

    driver = connect.arguments(dsn, application=application)
    try:
        return await asyncpg.create_pool(
            **driver,
            min_size=smallest,
            max_size=largest,
            init=init,
            command_timeout=STATEMENT_SECONDS + 5.0,
            max_inactive_connection_lifetime=unused,
        )
    except connect.REFUSALS as error:
        raise connect.unreachable(dsn, error) from error


async def _speak_json(connection: asyncpg.Connection) -> None:
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(kind, schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
