"""Serves everything on the public port that is not an inference call: models, probes, and the way to the admin process.

Step 1, the other branch. Every answer has OpenAI's shape, 404 and 405 included, and `//` counts as `/`. The failure to
survive is the admin process away: its paths are 503, while inference goes on (`admin_relay.py`).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router import errors
from router.admission.admin_reach import RELAYED, Guarded, Reach
from router.admission.auth import Tenant, authorization
from router.admission.cors import with_cors
from router.admission.proxies import with_callers
from router.admission.request import match_route, named_by_host, new_event_id
from router.admission.routes import ROUTES
from router.edge import api_document
from router.edge.admin_relay import AdminRelay
from router.errors import ModelNotFound, NotFound, NotReady, RouterError, WrongMethod, quoted
from router.hold.replicas import Endpoint
from router.shared import Router
from runtime import tasks
from runtime.tasks import RESPONSES

ANY = ["GET", "POST", "DELETE"]
SERVED = ", ".join(route.public for route in tasks.ROUTES) + " and /v1/models"


def asgi_app(router: Router, *, admin: str, reach: Reach = "public") -> ASGIApp:
    """The application; `admin` is the address of the admin process, `reach` who gets to it."""
    relay = Guarded(AdminRelay(admin, refused=router.metrics.refused), reach)
    models = Models(router)
    inference = [
        Route(f"{prefix}/v1/{path}", _post_only, methods=["POST"])
        for prefix in ("", "/e/{endpoint}")
        for path in ROUTES
    ]
    app = Starlette(
        routes=[
            Route("/healthz", _alive),
            Route("/readyz", _ready(router)),
            Route("/openapi.json", _document),
            *[Route(f"{prefix}/v1/models", models.all) for prefix in ("", "/e/{endpoint}")],
            *[Route(f"{prefix}/v1/models/{{model}}", models.one) for prefix in ("", "/e/{endpoint}")],
            Route("/e/{endpoint}/health", models.health),
            *[
                Route(f"{prefix}{RESPONSES.public}/{{rest:path}}", _not_kept, methods=ANY)
                for prefix in ("", "/e/{endpoint}")
            ],
            *[Route(prefix + rest, relay) for prefix in RELAYED for rest in ("", "/{rest:path}")],
            *inference,
        ],
        exception_handlers={
            RouterError: _counted(router, _error_answer),
            HTTPException: _counted(router, _untaught),
            Exception: _counted(router, _broken),
        },
    )
    app.router.redirect_slashes = False
    return with_callers(_one_way(with_cors(app, router.cors, refused=router.metrics.refused), router), router.proxies)


def _one_way(app: ASGIApp, router: Router) -> ASGIApp:
    """Where several URLs mean the same: `//` is `/`, and `/v1/…` on an endpoint's own host is `/e/ENDPOINT/v1/…`.

    And what every answer has: an id of its own, by which a caller may ask about it.
    """

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            if "//" in path:
                path = re.sub("/+", "/", path)
            if router.domain and (path.startswith("/v1/") or path == "/health"):
                host = next((value for name, value in scope["headers"] if name == b"host"), b"")
                name = named_by_host(host, router.domain)
                path = f"/e/{name}{path}" if name else path
            if path != scope["path"]:
                scope = {**scope, "path": path}
        await app(scope, receive, _identified(send))

    return called


def _identified(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            others = [field for field in message.get("headers", ()) if field[0] != b"x-request-id"]
            message = {**message, "headers": [*others, (b"x-request-id", new_event_id().encode())]}
        await send(message)

    return sending


Teller = Callable[[Request, Exception], Awaitable[Response]]


def _counted(router: Router, tell: Teller) -> Teller:
    async def counted(request: Request, error: Exception) -> Response:
        answer = await tell(request, error)
        router.metrics.refused(answer.status_code)
        return answer

    return counted


class Models:
    """`/v1/models`: what the key can use; an admin key sees its org's."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def all(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(endpoint) for endpoint in self._visible(request)]})

    async def one(self, request: Request) -> Response:
        name = request.path_params["model"]
        known = self._router.table.endpoints.get(name)
        if known is not None and known in self._visible(request):
            return JSONResponse(_model(known))
        raise ModelNotFound(
            f"The model '{quoted(name)}' does not exist. `GET /v1/models` lists what this key can use.", param="model"
        )

    async def health(self, request: Request) -> Response:
        """As vLLM's own: load generators ask it first. Nothing is woken: an endpoint at zero is well."""
        self._visible(request)
        return JSONResponse({"status": "ok"})

    def _visible(self, request: Request) -> list[Endpoint]:
        tenant = self._router.keys.tenant(authorization(dict(request.headers.raw)))
        if "endpoint" in request.path_params:
            return [self._router.endpoint(tenant, request.path_params["endpoint"])]
        if not self._router.table.complete:
            raise NotReady("This router has just started and does not know its endpoints yet. Try again in a moment.")
        return self._of(tenant)

    def _of(self, tenant: Tenant) -> list[Endpoint]:
        table = self._router.table
        if tenant.scope == "admin":
            return list(table.by_org.get(tenant.org_id, {}).values())
        endpoint = table.by_id.get(tenant.endpoint_id)
        return [endpoint] if endpoint and endpoint.row.org_id == tenant.org_id else []


def _model(endpoint: Endpoint) -> dict[str, Any]:
    row = endpoint.row
    return {"id": row.name, "object": "model", "created": row.created, "owned_by": row.org_id}


async def _alive(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _document(request: Request) -> Response:
    return Response(_written(), media_type="application/json")


@functools.cache
def _written() -> bytes:
    return json.dumps(api_document.document()).encode()


def _ready(router: Router) -> Callable[[Request], Awaitable[Response]]:
    """Ready once a whole table and a policy were seen: then every answer is a true one."""

    async def answer(request: Request) -> Response:
        if router.ready:
            return JSONResponse({"status": "ready"})
        waits = [
            what for what, known in (("keys", router.keys.known), ("endpoints", router.table.complete)) if not known
        ]
        status = "draining" if router.draining else "waiting for " + " and ".join(waits)
        return JSONResponse({"status": status}, status_code=503, headers={"retry-after": "1"})

    return answer


async def _post_only(request: Request) -> Response:
    raise NotFound("Use this route without a trailing part.")  # a POST never comes here: it took the hot path


async def _not_kept(request: Request) -> Response:
    raise NotFound(
        f"Answers are not kept here, so none can be read, cancelled or deleted later. Use what POST {RESPONSES.public} returns."
    )


async def _error_answer(request: Request, error: Exception) -> Response:
    assert isinstance(error, RouterError)
    called = match_route(request.scope["path"].encode())
    body = errors.payload(error, called[0].form) if called else errors.payload(error)
    return Response(body, status_code=error.status, headers={k.decode(): v.decode() for k, v in errors.headers(error)})


async def _untaught(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: no such route, or not with this method."""
    assert isinstance(error, HTTPException)
    where = quoted(f"{request.method} {request.url.path}")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "POST")
        answer = await _error_answer(request, WrongMethod(f"{where} is not served. Allowed here: {allowed}."))
        answer.headers["allow"] = allowed
        return answer
    return await _error_answer(request, NotFound(f"{where} is not served here. See {SERVED}."))


async def _broken(request: Request, error: Exception) -> Response:
    return await _error_answer(
        request, RouterError("The router failed at this request; it has been logged. Try again.")
    )
