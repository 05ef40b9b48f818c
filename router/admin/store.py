"""What the admin API asks of Postgres, one method a statement of `sql/`. Only keys, prices and acts are written here.

The failure to survive: Postgres away. Each method then raises `Unavailable` at once (503 with Retry-After), and the
next request finds a fresh connection. Endpoints and revisions are the activator's to write; this only reads them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from asyncpg.pool import PoolConnectionProxy

from pilotlight.audit import Note
from router.errors import NotFound, Unavailable, quoted
from router.ledger.postgres import AWAY, POISON, STATEMENT_SECONDS, Database, read_sql

_SQL = {path.stem: read_sql(path.parent, path.stem) for path in (Path(__file__).parent / "sql").glob("*.sql")}
JSON_COLUMNS = ("route", "engine_args", "phases", "next", "last_failed", "asked", "changed")
PAGE_ROWS = 500
SUMMED = ("requests", "corrections", "input_tokens", "cached_tokens", "output_tokens", "cost")
SLOW_SECONDS = 60.0  # an export whose client reads nothing for so long is ended by Postgres

Row = dict[str, Any]


class AdminStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def endpoints(self) -> list[Row]:
        return await self._fetch("list_endpoints", None)

    async def endpoint(self, name: str) -> Row | None:
        return await self._fetch_one("list_endpoints", name)

    async def events(self, endpoint_id: str, *, org_id: str, limit: int) -> list[Row]:
        return await self._fetch("list_events", endpoint_id, org_id, limit)

    async def revisions(self, endpoint_id: str, *, org_id: str, limit: int) -> list[Row]:
        return await self._fetch("list_revisions", endpoint_id, org_id, limit)

    async def endpoint_id(self, name: str, *, org_id: str) -> str | None:
        row = await self._fetch_one("find_endpoint_id", name, org_id)
        return row["endpoint_id"] if row else None

    async def create_key(
        self,
        *,
        key_id: str,
        org_id: str,
        endpoint_id: str,
        name: str,
        hash: bytes,
        prefix: str,
        last_four: str,
        expires_in: float | None,
    ) -> Row:
        row = await self._fetch_one(
            "create_key", key_id, org_id, endpoint_id, name, hash, prefix, last_four, expires_in
        )
        assert row is not None  # INSERT … RETURNING
        return row

    async def rotate_key(
        self,
        old: str,
        *,
        org_id: str,
        grace: float,
        key_id: str,
        hash: bytes,
        prefix: str,
        last_four: str,
        expires_in: float | None,
    ) -> Row | None:
        """None: there is no such key, or it lives no more."""
        return await self._fetch_one("rotate_key", old, org_id, grace, key_id, hash, prefix, last_four, expires_in)

    async def keys(self, endpoint_id: str) -> list[Row]:
        return await self._fetch("list_keys", endpoint_id)

    async def all_keys(self, *, org_id: str) -> list[Row]:
        return await self._fetch("list_all_keys", org_id)

    async def revoke_key(self, key_id: str, *, org_id: str) -> Row | None:
        """None: there is no such key."""
        return await self._fetch_one("revoke_key", key_id, org_id)

    async def usage(
        self, *, org_id: str, endpoint_id: str | None, since: float | None, until: float | None, limit: int
    ) -> tuple[list[Row], Row]:
        """(rows, totals over all that match)."""
        rows = await self._fetch("list_usage", org_id, endpoint_id, since, until, limit)
        totals = await self._fetch_one("sum_usage", org_id, endpoint_id, since, until)
        return rows, totals or {}

    async def usage_by(
        self,
        by: list[str],
        *,
        org_id: str,
        endpoint_id: str | None,
        since: float | None,
        until: float | None,
        limit: int,
    ) -> list[Row]:
        """Sums by each of endpoint, key, day and month that is named."""
        rows = await self._fetch("group_usage", org_id, endpoint_id, since, until, by, limit)
        columns = {"key": "key_id"}
        return [
            {
                name: value
                for name, value in row.items()
                if name in SUMMED or name in {columns.get(each, each) for each in by}
            }
            for row in rows
        ]

    async def export_usage(
        self, *, org_id: str, endpoint_id: str | None, since: float | None, until: float | None
    ) -> AsyncGenerator[list[Row], None]:
        """Pages of at most PAGE_ROWS rows, oldest first, all of one moment, from a cursor in Postgres. Close it:
        aclosing().
        """
        limits = {"statement_timeout": STATEMENT_SECONDS, "idle_in_transaction_session_timeout": SLOW_SECONDS}
        with _unavailable():
            connection = await self._database.connect(
                "export", **{name: f"{seconds:.0f}s" for name, seconds in limits.items()}
            )
        try:
            with _unavailable():
                await connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                cursor = await connection.cursor(_SQL["export_usage"], org_id, endpoint_id, since, until)
            while True:
                with _unavailable():
                    records = await cursor.fetch(PAGE_ROWS, timeout=STATEMENT_SECONDS)
                if not records:
                    return
                yield [plain(dict(record)) for record in records]
        finally:
            connection.terminate()

    async def create_price(
        self,
        *,
        price_id: str,
        org_id: str,
        endpoint_id: str,
        input: Decimal,
        cached: Decimal,
        output: Decimal,
        valid_from: datetime | None,
    ) -> Row:
        row = await self._fetch_one("create_price", price_id, org_id, endpoint_id, input, cached, output, valid_from)
        assert row is not None  # INSERT … RETURNING
        return row

    async def prices(self, endpoint_id: str) -> list[Row]:
        """An endpoint's own, newest first."""
        return await self._fetch("list_prices", endpoint_id)

    async def price_now(self, endpoint_id: str, *, org_id: str) -> Row | None:
        return await self._fetch_one("find_price", endpoint_id, org_id)

    async def cold_starts(
        self, *, org_id: str, endpoint_id: str | None, since: float | None, until: float | None, limit: int
    ) -> list[Row]:
        return await self._fetch("list_cold_starts", org_id, endpoint_id, since, until, limit)

    async def create_audit(self, note: Note, *, org_id: str) -> None:
        """Raises one of POISON, Unavailable."""
        at, noted = datetime.fromtimestamp(note.at, UTC), (json.dumps(note.asked), json.dumps(note.changed))
        what = (
            note.act_id,
            org_id,
            at,
            note.act,
            note.object,
            note.who,
            note.said_by,
            note.origin,
            *noted,
            note.outcome,
            note.reason,
        )
        await self._fetch("create_audit", *what)

    async def audit(self, *, org_id: str, since: float | None, until: float | None, limit: int) -> list[Row]:
        return await self._fetch("list_audit", org_id, since, until, limit)

    async def request(self, event_id: str, *, org_id: str) -> Row | None:
        return await self._fetch_one("find_request", event_id, org_id)

    async def requests_like(self, beginning: str, *, org_id: str) -> list[str]:
        """Ids of requests that begin so, three at most. `beginning`: hexadecimal digits."""
        return [row["event_id"] for row in await self._fetch("match_requests", org_id, beginning, f"{beginning}g")]

    async def corrections(self, event_id: str, *, org_id: str) -> list[Row]:
        """What was added to a request's row after it was settled."""
        return await self._fetch("list_corrections", event_id, org_id)

    async def _fetch(self, statement: str, *values: Any) -> list[Row]:
        async with self._connection() as connection:
            return [plain(dict(record)) for record in await connection.fetch(_SQL[statement], *values)]

    async def _fetch_one(self, statement: str, *values: Any) -> Row | None:
        rows = await self._fetch(statement, *values)
        return rows[0] if rows else None

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[PoolConnectionProxy]:
        with _unavailable():
            async with self._database.connection() as connection:
                yield connection


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except POISON:
        raise
    except AWAY as error:
        raise Unavailable("the database is away for the moment: try again", retry_after=2.0) from error


async def find_endpoint_id(store: AdminStore, name: str | None, *, org_id: str) -> str | None:
    """Of the endpoint that usage is asked of; None: of all. Raises NotFound, Unavailable."""
    if name is None:
        return None
    endpoint_id = await store.endpoint_id(name, org_id=org_id) if "\0" not in name else None
    if endpoint_id is None:
        raise NotFound(
            f"there is no endpoint {quoted(name)!r}: `pilotlight ls`, or GET /api/v1/endpoints, lists them",
            param="endpoint",
        )
    return endpoint_id


def plain(row: Row) -> Row:
    """As JSON can say it: money as a decimal string, never a float; times as ISO 8601 in UTC; kept JSON taken apart."""
    for name, value in row.items():
        if isinstance(value, Decimal):
            row[name] = format(value, "f")
        elif isinstance(value, datetime):
            row[name] = value.astimezone(UTC).isoformat()
        elif name in JSON_COLUMNS and isinstance(value, str):
            row[name] = json.loads(value)
    row.pop("told", None)
    return row
