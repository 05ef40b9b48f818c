"""All usage rows of a time as CSV or JSON lines, streamed from a cursor in Postgres: any number of rows in bounded
memory.

Four failures to survive. A client reads slowly or not at all: Postgres ends the transaction after SLOW_SECONDS. At most
EXPORTS run at once, each on a connection of its own. A client leaves: that is seen between two pages. Postgres is cut
off in the middle: the answer breaks off, and never ends as if it were complete. A spreadsheet runs what a caller wrote:
text that would be a formula begins with an apostrophe.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Callable
from contextlib import aclosing

import structlog
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from router.admin.bodies import ExportQuery, read_query
from router.admin.endpoints import ORG
from router.admin.store import AdminStore, Row, find_endpoint_id
from router.errors import Unavailable

EXPORTS = 2
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
COLUMNS = (
    "event_id",
    "endpoint_id",
    "endpoint",
    "revision_id",
    "replica_id",
    "key_id",
    "path",
    "streamed",
    "status",
    "finish",
    "start",
    "admitted_at",
    "hold_ms",
    "first_byte_ms",
    "total_ms",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "count_source",
    "price_version",
    "cost",
    "settled_at",
    "delivered_tokens",
    "corrects",
)  # those of GET /usage, in its order; JSON lines have `phases` besides
KINDS = {"csv": b"text/csv; charset=utf-8; header=present", "jsonl": b"application/x-ndjson"}

log = structlog.get_logger()


class Export:
    """`GET /usage/export`, as an ASGI application: the cursor is closed in a `finally` of ours, however the answer
    ends.
    """

    def __init__(self, store: AdminStore) -> None:
        self._store = store
        self._running = asyncio.Semaphore(EXPORTS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = read_query(Request(scope), ExportQuery)
        endpoint_id = await find_endpoint_id(self._store, query.endpoint, org_id=ORG)
        if self._running.locked():
            raise Unavailable(f"{EXPORTS} exports are running already: wait for one to end", retry_after=5.0)
        async with (
            self._running,
            aclosing(
                self._store.export_usage(org_id=ORG, endpoint_id=endpoint_id, since=query.since, until=query.until)
            ) as pages,
        ):
            page: list[Row] = await anext(pages, [])  # before the head, so that a database that is away is a proper 503
            await send({"type": "http.response.start", "status": 200, "headers": _head(query.format)})
            write = csv_lines if query.format == "csv" else json_lines
            if query.format == "csv":
                await _piece(send, ",".join(COLUMNS) + "\r\n")
            left = asyncio.ensure_future(_left(receive))
            try:
                while page and not left.done() and scope["method"] != "HEAD":
                    await _piece(send, write(page))
                    page = await anext(pages, [])
            except (
                Unavailable
            ) as error:  # returning without an end makes the server cut the connection: the client sees it is not whole
                log.warning("an export is broken off", action="usage.export", reason=str(error.__cause__ or error))
                return
            finally:
                left.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def csv_lines(rows: list[Row]) -> str:
    """RFC 4180, without a head."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerows([_cell(row[name]) for name in COLUMNS] for row in rows)
    return buffer.getvalue()


def json_lines(rows: list[Row]) -> str:
    encode: Callable[[Row], str] = json.JSONEncoder(separators=(",", ":")).encode
    return "".join(encode(row) + "\n" for row in rows)


def _cell(value: object) -> object:
    """As text that no spreadsheet takes for a formula; numbers, money included, as they are."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "'" + value if isinstance(value, str) and value.startswith(FORMULA) else value


def _head(kind: str) -> list[tuple[bytes, bytes]]:
    named = b'attachment; filename="usage.%s"' % kind.encode()
    return [(b"content-type", KINDS[kind]), (b"content-disposition", named), (b"cache-control", b"no-store")]


async def _piece(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
