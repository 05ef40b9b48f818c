"""Checks who may use the admin API, and gives its errors their one shape.

This is step 2's counterpart for the admin API. Every request carries the installation's admin key as a bearer token. It
is compared in constant time, before anything else is looked at. A wrong key is named in the log (`wrong_keys.py`).
"""

from __future__ import annotations

import hmac
import math
import time

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from router.admin.wrong_keys import WrongKeys
from router.errors import NotFound, RouterError, Unauthorized, WrongMethod, payload, quoted

HERE = "this machine"

log = structlog.get_logger()


class RequireAdminKey:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, *, key: str) -> None:
        self._app, self._expected = app, key.encode()
        self._wrong = WrongKeys()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            scheme, _, key = given.partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(key.strip(), self._expected):
                refusal = Unauthorized(
                    "this needs the admin key: send `Authorization: Bearer KEY` with the key in STATE/secrets/admin.key"
                )
                if key:
                    self._tell(Request(scope))
                await answer(refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _tell(self, request: Request) -> None:
        noted = self._wrong.came(request.headers.get("x-forwarded-for", ""), time.monotonic())
        if noted is not None:
            who, count = noted
            log.warning("a wrong admin key", action="admin.wrong_key", origin=who or HERE, count=count)


def answer(error: RouterError) -> Response:
    headers = {}
    if error.retry_after:
        headers["retry-after"] = str(math.ceil(error.retry_after))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    # half a character, too
    return Response(payload(error), status_code=error.status, headers=headers, media_type="application/json")


async def on_router_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RouterError)
    return answer(error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own: no such path, no such method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        response = answer(WrongMethod(f"{quoted(request.url.path)} does not take {request.method}"))
        response.headers.update(error.headers or {})
        return response
    if error.status_code == 404:
        return answer(NotFound(f"there is no {quoted(request.url.path)} in the admin API"))
    return Response(payload(RouterError(error.detail)), status_code=error.status_code, media_type="application/json")


async def on_crash(request: Request, error: Exception) -> Response:
    """Ours: Starlette logs the traceback, the caller learns no more than that."""
    error = RouterError("an error of ours; it is in the log of the admin process")
    return Response(payload(error), status_code=500, media_type="application/json")
