"""Settled usage over the admin API: what the ledger (step 12) has written, newest first, and single requests by id.

Money and sums of it are decimal strings: a float would not be what the row says. Times are ISO 8601, in UTC. A row that
`corrects` another has what is to be added to it: sums include it, a count of requests does not.
"""

from __future__ import annotations

from decimal import Decimal

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from router.admin.bodies import UsageQuery, read_query
from router.admin.endpoints import ORG
from router.admin.export import Export
from router.admin.store import AdminStore, Row, find_endpoint_id
from router.errors import NotFound, quoted


class Usage:
    def __init__(self, store: AdminStore) -> None:
        self._store = store

    def routes(self) -> list[Route]:
        return [
            Route("/usage", self.list, methods=["GET"]),
            Route("/usage/export", Export(self._store), methods=["GET"]),
            Route("/requests/{event_id}", self.get, methods=["GET"]),
        ]

    async def list(self, request: Request) -> JSONResponse:
        """Rows up to `limit`, and totals over all that match."""
        query = read_query(request, UsageQuery)
        endpoint_id = await find_endpoint_id(self._store, query.endpoint, org_id=ORG)
        rows, totals = await self._store.usage(org_id=ORG, endpoint_id=endpoint_id, since=query.since, until=query.until, limit=query.limit)
        return JSONResponse({"rows": rows, "totals": totals, "has_more": totals["requests"] + totals["corrections"] > len(rows)})

    async def get(self, request: Request) -> JSONResponse:
        event_id = request.path_params["event_id"]
        row = await self._store.request(event_id, org_id=ORG) if "\0" not in event_id else None
        if row is None:
            raise NotFound(
                f"no settled request {quoted(event_id)!r}. One that has just ended is settled within a second, or a few where the "
                "engine's journal is waited for: look again; one still running has no row yet.",
                param="event_id",
            )
        corrections = await self._store.corrections(event_id, org_id=ORG)
        return JSONResponse({"object": "request", **row, "corrections": corrections, "total": total([row, *corrections])})


def total(rows: list[Row]) -> Row:
    """What a request comes to, its corrections included."""
    sums: Row = {name: sum(row[name] for row in rows) for name in ("input_tokens", "cached_tokens", "output_tokens")}
    return sums | {"cost": format(sum((Decimal(row["cost"]) for row in rows), Decimal(0)), "f")}
