"""API keys over the admin API: made and shown once, listed without themselves, revoked for good.

Step 2 recognises them: each change notifies the channel `policy`, and every ledger pushes it to its workers at once. The
failure to survive is a leak: only a keyed hash, the prefix and the last four characters are ever stored.
"""

from __future__ import annotations

import secrets

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from pilotlight.keys import SHOWN_LAST, SHOWN_PREFIX, hash_key, mint
from router.admin.bodies import KeyBody, read_body
from router.admin.endpoints import ORG, find_endpoint
from router.admin.store import AdminStore, Row
from router.errors import NotFound


class Keys:
    def __init__(self, store: AdminStore, *, pepper: bytes) -> None:
        self._store, self._pepper = store, pepper

    def routes(self) -> list[Route]:
        return [
            Route("/endpoints/{name}/keys", self.create, methods=["POST"]),
            Route("/endpoints/{name}/keys", self.list, methods=["GET"]),
            Route("/keys/{key_id}", self.revoke, methods=["DELETE"]),
        ]

    async def create(self, request: Request) -> JSONResponse:
        """201, with the key: the only time it is ever shown."""
        body = await read_body(request, KeyBody)
        endpoint = await find_endpoint(self._store, request.path_params["name"])
        key = mint()
        row = await self._store.create_key(
            key_id=f"key_{secrets.token_hex(10)}",
            org_id=endpoint["org_id"],
            endpoint_id=endpoint["endpoint_id"],
            name=body.name,
            hash=hash_key(self._pepper, key),
            prefix=key[:SHOWN_PREFIX],
            last_four=key[-SHOWN_LAST:],
            expires_in=body.expires_in_seconds,
        )
        return JSONResponse({**shown(row, endpoint["name"]), "key": key}, status_code=201, headers={"cache-control": "no-store"})

    async def list(self, request: Request) -> JSONResponse:
        endpoint = await find_endpoint(self._store, request.path_params["name"])
        rows = await self._store.keys(endpoint["endpoint_id"])
        return JSONResponse({"object": "list", "data": [shown(row, endpoint["name"]) for row in rows]})

    async def revoke(self, request: Request) -> JSONResponse:
        key_id = request.path_params["key_id"]
        row = await self._store.revoke_key(key_id, org_id=ORG) if "\0" not in key_id else None
        if row is None:
            raise NotFound(f"there is no key {key_id!r}: GET /api/v1/endpoints/NAME/keys lists them", param="key_id")
        return JSONResponse({"object": "key", **row, "revoked": True})


def shown(row: Row, endpoint: str) -> Row:
    return {"object": "key", "endpoint": endpoint, **row}
