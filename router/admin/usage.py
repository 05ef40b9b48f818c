"""Settled usage over the admin API: what the ledger (step 12) has written, newest first, and single requests by id.

Money and sums of it are decimal strings: a float would not be what the row says. Times are ISO 8601, in UTC. A row that
`corrects` another has what is to be added to it: sums include it, a count of requests does not.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from router.admin.bodies import SumsQuery, UsageQuery, read_query
from router.admin.endpoints import ORG
from router.admin.export import Export
from router.admin.store import AdminStore, Row, find_endpoint_id
from router.errors import BadRequest, NotFound, quoted

BEGINNING = r"[0-9a-f]{6,31}"  # of a request's id


class Usage:
    def __init__(self, store: AdminStore) -> None:
        self._store = store

    def routes(self) -> list[Route]:
        return [
            Route("/usage", self.list, methods=["GET"]),
            Route("/usage/sums", self.sums, methods=["GET"]),
            Route("/usage/export", Export(self._store), methods=["GET"]),
            Route("/requests/{event_id}", self.get, methods=["GET"]),
        ]

    async def list(self, request: Request) -> JSONResponse:
        """Rows up to `limit`, and totals over all that match."""
        query = read_query(request, UsageQuery)
        endpoint_id = await find_endpoint_id(self._store, query.endpoint, org_id=ORG)
        rows, totals = await self._store.usage(
            org_id=ORG, endpoint_id=endpoint_id, since=query.since, until=query.until, limit=query.limit
        )
        return JSONResponse(
            {"rows": rows, "totals": totals, "has_more": totals["requests"] + totals["corrections"] > len(rows)}
        )

    async def sums(self, request: Request) -> JSONResponse:
        """By what `by` names: a row for each endpoint, key, day or month there is."""
        query = read_query(request, SumsQuery)
        endpoint_id = await find_endpoint_id(self._store, query.endpoint, org_id=ORG)
        asked: dict[str, Any] = {"org_id": ORG, "endpoint_id": endpoint_id, "since": query.since, "until": query.until}
        rows = await self._store.usage_by(query.by.split(","), **asked, limit=query.limit + 1)
        return JSONResponse({"object": "list", "data": rows[: query.limit], "has_more": len(rows) > query.limit})

    async def _full_id(self, given: str) -> str:
        """Of the request that `given`, a whole id or the beginning of one, names. Raises BadRequest where it names
        several.
        """
        if not re.fullmatch(BEGINNING, given):
            return given
        found = await self._store.requests_like(given, org_id=ORG)
        if len(found) > 1:
            raise BadRequest(
                f"{given!r} is the beginning of several requests' ids, {found[0]} for one: give more of it",
                param="event_id",
            )
        return found[0] if found else given

    async def get(self, request: Request) -> JSONResponse:
        event_id = await self._full_id(request.path_params["event_id"])
        row = await self._store.request(event_id, org_id=ORG) if "\0" not in event_id else None
        if row is None:
            raise NotFound(
                f"no settled request {quoted(event_id)!r}. One still running has no row yet. One that has just ended is settled within a "
                "second, or a few where the engine's journal is waited for: look again.",
                param="event_id",
            )
        corrections = await self._store.corrections(event_id, org_id=ORG)
        return JSONResponse(
            {"object": "request", **row, "corrections": corrections, "total": total([row, *corrections])}
        )


def total(rows: list[Row]) -> Row:
    """What a request comes to, its corrections included."""
    sums: Row = {name: sum(row[name] for row in rows) for name in ("input_tokens", "cached_tokens", "output_tokens")}
    return sums | {"cost": format(sum((Decimal(row["cost"]) for row in rows), Decimal(0)), "f")}
