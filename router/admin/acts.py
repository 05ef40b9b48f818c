"""Notes every change by the admin API, and who made it: one wrapper around each route that changes something.

A route that changes something has to stand in `ACTS`, or the admin process does not start. So a new one cannot be
forgotten. A handler says by `changed` what it knows of the change (was and is). Of the others the note has what was
asked. The failure to survive is a disk or a Postgres that takes no note: the act goes on, and the log has it.
`pilotlight/audit.py` says why.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pilotlight.audit import Begun, Outcome, bounded, noted
from pilotlight.keys import SHOWN_LAST, SHOWN_PREFIX
from router.admin.bodies import read_bytes
from router.errors import RouterError

log = structlog.get_logger()

READS = frozenset({"GET", "HEAD", "OPTIONS"})
ACTS = {  # (method, path) → the act, and which part of the path names what it was done to
    ("PUT", "/endpoints/{name}"): ("endpoint.set", "name"),
    ("DELETE", "/endpoints/{name}"): ("endpoint.rm", "name"),
    ("POST", "/endpoints/{name}/rollback"): ("endpoint.rollback", "name"),
    ("POST", "/endpoints/{name}/wake"): ("endpoint.wake", "name"),
    ("POST", "/endpoints/{name}/keys"): ("key.create", "name"),
    ("POST", "/keys/{key_id}/rotate"): ("key.rotate", "key_id"),
    ("DELETE", "/keys/{key_id}"): ("key.revoke", "key_id"),
    ("PUT", "/endpoints/{name}/prices"): ("prices.set", "name"),
}
BY = "x-pilotlight-by"
HERE = "this machine"
NO_NOTE = "an act has no note on this disk"

Handler = Callable[[Request], Awaitable[Response]]


def recorded(routes: list[Route], *, folder: Path, admin_key: str, settle: Callable[[], None]) -> list[Route]:
    """The routes, those that change something with a note of each act in `folder`; `settle` is called after each.
    Raises KeyError for one without an act.
    """
    who = f"admin key {admin_key[:SHOWN_PREFIX]}…{admin_key[-SHOWN_LAST:]}"
    return [_recorded(route, folder, who, settle) if (route.methods or set()) - READS else route for route in routes]


def changed(request: Request, values: Mapping[str, Any]) -> None:
    """What an act changed, for its note."""
    request.state.changed = values


def differing(before: Mapping[str, Any] | None, given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """field → [as it was, as it is to be], of those given that differ; what it has within itself, by its parts.
    Pure.
    """
    was, found = before or {}, dict[str, list[Any]]()
    for name, value in given.items():
        old = was.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping | None):
            found |= {f"{name}.{part}": pair for part, pair in differing(old, value).items()}
        elif _as_json(old) != _as_json(value):
            found[name] = [old, value]
    return found


def _as_json(value: Any) -> str:
    return json.dumps(value, default=str)


def _recorded(route: Route, folder: Path, who: str, settle: Callable[[], None]) -> Route:
    handler: Handler = route.endpoint
    (method,) = (route.methods or set()) - READS
    act, part = ACTS[method, route.path]

    async def acting(request: Request) -> Response:
        asked = _asked(await read_bytes(request))
        what = noted(
            act=_named(act, asked),
            object=request.path_params[part],
            who=who,
            said_by=request.headers.get(BY, ""),
            origin=request.headers.get("x-forwarded-for", "") or HERE,
            at=time.time(),
            asked={name: value for name, value in asked.items() if name != "by"},
        )
        begun = Begun(folder, what)
        outcome: Outcome = "failed"
        reason = "an error of ours"
        try:
            response = await handler(request)
            outcome, reason = "done", ""
            return response
        except RouterError as error:
            outcome, reason = "refused" if error.status < 500 else "failed", error.message
            raise
        finally:
            _log_act(begun, outcome, reason, getattr(request.state, "changed", {}))
            settle()

    return Route(route.path, acting, methods=[method])


def _log_act(begun: Begun, outcome: Outcome, reason: str, values: Mapping[str, Any]) -> None:
    note = begun.end(outcome, reason=reason, changed=values)
    if begun.error:
        log.error(
            NO_NOTE, action="audit", error=begun.error, **{name: value for name, value in vars(note).items() if value}
        )


def _asked(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return {}  # the handler refuses it
    return bounded(value) if isinstance(value, dict) else {}


def _named(act: str, asked: Mapping[str, Any]) -> str:
    """PUT of an endpoint is what an operator calls deploy, pause, resume or set. Pure."""
    if act != "endpoint.set":
        return act
    if isinstance(asked.get("paused"), bool):
        return "endpoint.pause" if asked["paused"] else "endpoint.resume"
    return "endpoint.deploy" if asked.get("digest") else act
