"""Past cold starts over the admin API: one row each, newest first, with what every phase took; those that failed say
why.

The activator writes them (`activator/store/cold_starts.py`); what one request waited for is at `/requests/ID`.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from router.admin.bodies import ColdStartQuery, read_query
from router.admin.endpoints import ORG
from router.admin.store import AdminStore, find_endpoint_id


class ColdStarts:
    def __init__(self, store: AdminStore) -> None:
        self._store = store

    def routes(self) -> list[Route]:
        return [Route("/cold-starts", self.list, methods=["GET"])]

    async def list(self, request: Request) -> JSONResponse:
        query = read_query(request, ColdStartQuery)
        endpoint_id = await find_endpoint_id(self._store, query.endpoint, org_id=ORG)
        rows = await self._store.cold_starts(
            org_id=ORG, endpoint_id=endpoint_id, since=query.since, until=query.until, limit=query.limit + 1
        )
        return JSONResponse({"object": "list", "data": rows[: query.limit], "has_more": len(rows) > query.limit})
