"""Prices over the admin API: a new price is a new row, valid from a moment on; no row is ever changed.

What has been settled stays as it was billed, for good: each usage row names the version it was priced with. Each new
version notifies the channel `policy`, so that every ledger prices with it at once (`ledger/prices.py` decides which
counts).
"""

from __future__ import annotations

import secrets
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from router.admin.acts import changed, differing
from router.admin.bodies import PriceBody, read_body
from router.admin.endpoints import find_endpoint
from router.admin.store import AdminStore, Row

AUDITED = ("input_per_million", "cached_per_million", "output_per_million", "valid_from")


class Prices:
    def __init__(self, store: AdminStore) -> None:
        self._store = store

    def routes(self) -> list[Route]:
        return [
            Route("/endpoints/{name}/prices", self.list, methods=["GET"]),
            Route("/endpoints/{name}/prices", self.put, methods=["PUT"]),
        ]

    async def list(self, request: Request) -> JSONResponse:
        """The endpoint's own versions, newest first, and the price in force now, which may be a default."""
        endpoint = await find_endpoint(self._store, request.path_params["name"])
        rows = await self._store.prices(endpoint["endpoint_id"])
        now = await self._store.price_now(endpoint["endpoint_id"], org_id=endpoint["org_id"])
        return JSONResponse(
            {
                "object": "list",
                "data": [shown(row, endpoint["name"]) for row in rows],
                "in_force": now and shown(now, endpoint["name"]),
            }
        )

    async def put(self, request: Request) -> JSONResponse:
        """201: there is one more version. Of two with the same `valid_from` the later one counts."""
        body = await read_body(request, PriceBody, exact=True)
        endpoint = await find_endpoint(self._store, request.path_params["name"])
        before = await self._store.price_now(endpoint["endpoint_id"], org_id=endpoint["org_id"])
        row = await self._store.create_price(
            price_id=f"price_{secrets.token_hex(10)}",
            org_id=endpoint["org_id"],
            endpoint_id=endpoint["endpoint_id"],
            input=body.input_per_million,
            cached=body.cached_per_million,
            output=body.output_per_million,
            valid_from=body.valid_from,
        )
        changed(request, differing(before, {field: row.get(field) for field in AUDITED}))
        return JSONResponse(shown(row, endpoint["name"]), status_code=201)


def shown(row: Row, endpoint: str) -> dict[str, Any]:
    return {"object": "price", "endpoint": endpoint, **row}
