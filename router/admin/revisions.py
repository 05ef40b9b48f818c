"""The revisions of an endpoint over the admin API: what each was, what became of it, and the way back to an earlier
one.

A revision is never deleted, so any of them can be gone back to. The failure to survive is a rollback whose answer is
lost. Repeated while it is on its way, it changes nothing. Repeated once that serves, it goes one revision further back,
never to one that was rolled back from. One that gives the revision's number (`to`) changes nothing then either.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from activator.wire import Configuration, Done, Rollback
from router.admin.acts import changed
from router.admin.bodies import EventQuery, RollbackBody, read_body, read_query
from router.admin.store import AdminStore, Row
from runtime.argument_names import plain_name

CONFIGURED = ("digest", *Configuration.model_fields)
Find = Callable[[str], Awaitable[Row]]  # raises NotFound, Unavailable
Command = Callable[[Rollback], Awaitable[Done]]


class Revisions:
    def __init__(self, store: AdminStore, *, org_id: str, find: Find, command: Command) -> None:
        self._store = store
        self._org_id = org_id
        self._find = find
        self._command = command

    def routes(self) -> list[Route]:
        return [
            Route("/endpoints/{name}/revisions", self.list, methods=["GET"]),
            Route("/endpoints/{name}/rollback", self.rollback, methods=["POST"]),
        ]

    async def list(self, request: Request) -> JSONResponse:
        query = read_query(request, EventQuery)
        row = await self._find(request.path_params["name"])
        rows = await self._store.revisions(row["endpoint_id"], org_id=self._org_id, limit=query.limit + 1)
        return JSONResponse({"object": "list", "data": history(rows, row)[: query.limit]})

    async def rollback(self, request: Request) -> JSONResponse:
        body = await read_body(request, RollbackBody)
        row = await self._find(request.path_params["name"])
        done = await self._command(Rollback(org_id=self._org_id, name=row["name"], **body.model_dump()))
        changed(request, {field: done.result.get(field) for field in ("revision_id", "number")})
        return JSONResponse({"object": "endpoint", "name": row["name"], "deploy": deployed(done)})


def deployed(done: Done) -> dict[str, Any]:
    """What a deploy or rollback has begun: the revision that is to serve, whether it is on its way, whether anything is
    new, what of its model it will not serve.
    """
    shown = {field: done.result.get(field) for field in ("revision_id", "number", "pending", "changed", "unchecked")}
    return shown | {"notes": done.result.get("notes") or []}


def history(rows: list[Row], endpoint: Row) -> list[dict[str, Any]]:
    """Revisions, newest first, each with its state and what differs from the one before. Pure."""
    routed = {revision_id for revision_id, weight in endpoint.get("route") or () if weight}
    coming = (endpoint.get("next") or {}).get("revision_id")
    return [
        {"state": state(row, routed, coming), **row, "differs": differences(before, row)}
        for row, before in pairwise([*rows, None])
        if row
    ]


def state(row: Row, routed: set[str], coming: str | None) -> str:
    """serves, next (it gets the route once it is ready), failed, served, or never tried. Pure."""
    if row["revision_id"] == coming:
        return "next"
    if row["revision_id"] in routed:
        return "serves, but fails" if row["outcome"] == "failed" else "serves"
    return {"proved": "served", "failed": "failed"}.get(row["outcome"], "not tried")


def differences(before: Row | None, row: Row) -> dict[str, list[Any]]:
    """field → [as it was, as it is]; engine arguments one by one; nothing for the first. Pure."""
    if before is None:
        return {}
    was, now = _flat(before), _flat(row)
    return {field: [was.get(field), now.get(field)] for field in {**was, **now} if was.get(field) != now.get(field)}


def _flat(row: Row) -> dict[str, Any]:
    plain = {field: row[field] for field in CONFIGURED if field in row and field != "engine_args"}
    return plain | {f"engine_args.{plain_name(name)}": value for name, value in (row.get("engine_args") or {}).items()}
