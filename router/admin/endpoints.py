"""Endpoints over the admin API: read from Postgres, changed only by commands to the activator, their one writer.

The failure to survive is an activator that is away or dies in the middle. The caller then gets a 503 with Retry-After.
The next GET finds what a command did that took effect all the same. A PUT repeated changes nothing, and a DELETE
repeated finds nothing. What became of a command whose answer was lost, the activator finds out by itself.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from activator.client import ActivatorAway, ActivatorError, command
from activator.wire import Deploy, Done, Remove, Rollback, Status, Wake
from pilotlight import endpoint_names
from pilotlight.frames import FrameError
from router.admin.acts import changed, differing
from router.admin.bodies import EndpointBody, EventQuery, read_body, read_query
from router.admin.revisions import CONFIGURED, Revisions, deployed
from router.admin.snapshots import Snapshots
from router.admin.store import AdminStore, Row
from router.errors import BadRequest, NotFound, Unavailable, quoted
from router.ledger.client import CONFIRM_SECONDS, key_is_known

COMMAND_SECONDS = 30.0
ORG = "default"  # the installation's admin key acts for this organisation


class Endpoints:
    """`activator` and `ledger` are their frame addresses."""

    def __init__(self, store: AdminStore, *, activator: str, ledger: str, snapshots: Snapshots) -> None:
        self._store = store
        self._activator = activator
        self._ledger = ledger
        self._snapshots = snapshots

    def routes(self) -> list[Route]:
        revisions = Revisions(
            self._store, org_id=ORG, find=lambda name: find_endpoint(self._store, name), command=self._command
        )
        return [
            *revisions.routes(),
            Route("/endpoints", self.list, methods=["GET"]),
            Route("/endpoints/{name}", self.get, methods=["GET"]),
            Route("/endpoints/{name}", self.put, methods=["PUT"]),
            Route("/endpoints/{name}", self.delete, methods=["DELETE"]),
            Route("/endpoints/{name}/wake", self.wake, methods=["POST"]),
            Route("/endpoints/{name}/events", self.events, methods=["GET"]),
            Route("/status", self.status, methods=["GET"]),
        ]

    async def list(self, request: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [shown(row) for row in await self._store.endpoints()]})

    async def get(self, request: Request) -> JSONResponse:
        return JSONResponse(shown(await find_endpoint(self._store, request.path_params["name"])))

    async def put(self, request: Request) -> JSONResponse:
        """Make a revision that gets the whole route once it serves; what the body does not name stays as it is. Answers
        the endpoint as it is then, and in `deploy` what is on its way.
        """
        name = request.path_params["name"]
        if not endpoint_names.is_name(name):
            raise BadRequest(f"an endpoint's name has {endpoint_names.SAID}", param="name")
        body = await read_body(request, EndpointBody)
        before = await self._now(name)
        if body.digest and (refusal := await self._snapshots.refusal(body.digest)):
            raise BadRequest(refusal, param="digest")
        given = body.model_dump(exclude_unset=True)
        done = await self._command(Deploy(org_id=ORG, name=name, **given | {"by": body.by}))
        wanted = {field: value for field, value in given.items() if field in CONFIGURED or field in (before or {})}
        changed(request, {"revision": done.result.get("number"), **differing(before, wanted)})
        row = await self._now(name)
        return JSONResponse(
            (shown(row) if row else {"object": "endpoint", "name": name, **done.result}) | {"deploy": deployed(done)}
        )

    async def delete(self, request: Request) -> JSONResponse:
        """Its keys are revoked and its prices end with it, in one transaction; the answer waits until this machine's
        routers know.
        """
        row = await find_endpoint(self._store, request.path_params["name"])
        done = (await self._command(Remove(org_id=ORG, name=row["name"]))).result
        changed(
            request,
            {"digest": row.get("digest"), **{name: done.get(name) for name in ("revoked_keys", "prices_ended")}},
        )
        revoked = done.get("revoked_key")
        everywhere = not revoked or await key_is_known(self._ledger, revoked, live=False, seconds=CONFIRM_SECONDS)
        answer = {
            "revoked_keys": done.get("revoked_keys", 0),
            "prices_ended": done.get("prices_ended", False),
            "everywhere": everywhere,
        }
        return JSONResponse({"object": "endpoint", "name": row["name"], "deleted": True, **answer})

    async def wake(self, request: Request) -> JSONResponse:
        """202: a replica starts as for a call, or is there already (`ready`); it goes back to rest after its idle
        timeout.
        """
        row = await find_endpoint(self._store, request.path_params["name"])
        done = (await self._command(Wake(org_id=ORG, name=row["name"]))).result
        answer = {field: done.get(field) for field in ("revision_id", "number", "ready")}
        return JSONResponse({"object": "endpoint", "name": row["name"], **answer}, status_code=202)

    async def events(self, request: Request) -> JSONResponse:
        """What happened to it that an operator should hear of, newest first: deploys that served or failed, wrong
        answers that were caught.
        """
        query = read_query(request, EventQuery)
        row = await find_endpoint(self._store, request.path_params["name"])
        events = await self._store.events(row["endpoint_id"], org_id=ORG, limit=query.limit)
        return JSONResponse({"object": "list", "data": events})

    async def status(self, request: Request) -> JSONResponse:
        """Every endpoint, revision, replica and node, as the activator sees them now."""
        return JSONResponse((await self._command(Status())).result)

    async def _now(self, name: str) -> Row | None:
        """None: there is none, or Postgres is away: the activator may go on without it."""
        try:
            return await self._store.endpoint(name)
        except Unavailable:
            return None

    async def _command(self, frame: Deploy | Rollback | Remove | Status | Wake) -> Done:
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                return await command(self._activator, frame)
        except (OSError, TimeoutError, FrameError) as error:
            raise Unavailable("the activator is away for the moment: try again", retry_after=2.0) from error
        except ActivatorAway as error:
            raise Unavailable(str(error), retry_after=2.0) from error
        except ActivatorError as error:
            raise BadRequest(str(error)) from error


async def find_endpoint(store: AdminStore, name: str) -> Row:
    """Raises NotFound, Unavailable."""
    row = await store.endpoint(name) if endpoint_names.is_name(name) else None
    if row is None:
        raise NotFound(
            f"there is no endpoint {quoted(name)!r}: `pilotlight ls`, or GET /api/v1/endpoints, lists them",
            param="name",
        )
    return row


def shown(row: Row) -> dict[str, Any]:
    return {"object": "endpoint", **row}
