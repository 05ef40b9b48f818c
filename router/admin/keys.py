"""API keys over the admin API: made and shown once, listed without themselves, rotated, revoked for good.

Step 2 recognises them. Each change notifies the channel `policy`, and every ledger pushes it to its workers at once. An
answer waits, bounded, until this machine's workers have said so (`everywhere`). So a key just shown is never a 401, and
a revoked one never a 200. The failure to survive is a leak: only a keyed hash, the prefix and the last four characters
are ever stored.
"""

from __future__ import annotations

import secrets
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from pilotlight.keys import SHOWN_LAST, SHOWN_PREFIX, hash_key, mint
from router.admin.acts import changed
from router.admin.bodies import KeyBody, RotateBody, read_body
from router.admin.endpoints import ORG, find_endpoint
from router.admin.store import AdminStore, Row
from router.errors import NotFound, quoted
from router.ledger.client import CONFIRM_SECONDS, key_is_known

MADE = ("key_id", "endpoint", "name", "prefix", "last_four", "expires_at")  # of a new key, as its note tells it


class Keys:
    """`ledger` is its frame address."""

    def __init__(self, store: AdminStore, *, ledger: str, pepper: bytes) -> None:
        self._store = store
        self._ledger = ledger
        self._pepper = pepper

    def routes(self) -> list[Route]:
        return [
            Route("/endpoints/{name}/keys", self.create, methods=["POST"]),
            Route("/endpoints/{name}/keys", self.list, methods=["GET"]),
            Route("/keys", self.list_all, methods=["GET"]),
            Route("/keys/{key_id}/rotate", self.rotate, methods=["POST"]),
            Route("/keys/{key_id}", self.revoke, methods=["DELETE"]),
        ]

    async def create(self, request: Request) -> JSONResponse:
        """201, with the key: the only time it is ever shown."""
        body = await read_body(request, KeyBody)
        endpoint = await find_endpoint(self._store, request.path_params["name"])
        key, new = self._mint()
        row = await self._store.create_key(
            org_id=endpoint["org_id"],
            endpoint_id=endpoint["endpoint_id"],
            name=body.name,
            expires_in=body.expires_in_seconds,
            **new,
        )
        changed(request, {field: row.get(field) for field in MADE})
        return await self._shown_once(shown(row, endpoint["name"]), key)

    async def list(self, request: Request) -> JSONResponse:
        endpoint = await find_endpoint(self._store, request.path_params["name"])
        rows = await self._store.keys(endpoint["endpoint_id"])
        return JSONResponse({"object": "list", "data": [shown(row, endpoint["name"]) for row in rows]})

    async def list_all(self, request: Request) -> JSONResponse:
        """Of every endpoint, also of those that have been removed."""
        rows = await self._store.all_keys(org_id=ORG)
        return JSONResponse({"object": "list", "data": [{"object": "key", **row} for row in rows]})

    async def rotate(self, request: Request) -> JSONResponse:
        """201, with a new key in the old one's place; the old one works on for the grace it is given."""
        body = await read_body(request, RotateBody)
        key_id = request.path_params["key_id"]
        key, new = self._mint()
        row = None
        if "\0" not in key_id:
            row = await self._store.rotate_key(
                key_id, org_id=ORG, grace=body.grace_seconds, expires_in=body.expires_in_seconds, **new
            )
        if row is None:
            raise NotFound(
                f"there is no live key {quoted(key_id)!r}: `pilotlight keys ls`, or GET /api/v1/keys, lists them",
                param="key_id",
            )
        changed(request, {field: row.get(field) for field in (*MADE, "replaced_expires_at", "replaced_revoked_at")})
        return await self._shown_once({"object": "key", **row}, key)

    async def revoke(self, request: Request) -> JSONResponse:
        key_id = request.path_params["key_id"]
        row = await self._store.revoke_key(key_id, org_id=ORG) if "\0" not in key_id else None
        if row is None:
            raise NotFound(
                f"there is no key {quoted(key_id)!r}: `pilotlight keys ls`, or GET /api/v1/keys, lists them",
                param="key_id",
            )
        changed(request, {"revoked_at": row.get("revoked_at")})
        everywhere = await key_is_known(self._ledger, key_id, live=False, seconds=CONFIRM_SECONDS)
        return JSONResponse({"object": "key", **row, "revoked": True, "everywhere": everywhere})

    def _mint(self) -> tuple[str, dict[str, Any]]:
        """A key, and all of it that is stored."""
        key = mint()
        new = {"key_id": f"key_{secrets.token_hex(10)}", "hash": hash_key(self._pepper, key)}
        return key, new | {"prefix": key[:SHOWN_PREFIX], "last_four": key[-SHOWN_LAST:]}

    async def _shown_once(self, row: Row, key: str) -> JSONResponse:
        """After a rotation without grace the old key must be known no more, too."""
        everywhere = await key_is_known(self._ledger, row["key_id"], live=True, seconds=CONFIRM_SECONDS)
        if row.get("replaced_revoked_at"):
            everywhere = (
                await key_is_known(self._ledger, row["replaces"], live=False, seconds=CONFIRM_SECONDS) and everywhere
            )
        answer = {**row, "key": key, "everywhere": everywhere}
        return JSONResponse(answer, status_code=201, headers={"cache-control": "no-store"})


def shown(row: Row, endpoint: str) -> Row:
    return {"object": "key", "endpoint": endpoint, **row}
