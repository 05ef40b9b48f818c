"""The admin API: every path under /api/v1, JSON in and out, errors in OpenAI's shape, behind the admin key."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Mount

from router.admin.access import RequireAdminKey, on_crash, on_http_exception, on_router_error
from router.admin.acts import recorded
from router.admin.audit import Audit
from router.admin.cold_starts import ColdStarts
from router.admin.endpoints import Endpoints
from router.admin.keys import Keys
from router.admin.prices import Prices
from router.admin.snapshots import Snapshots
from router.admin.store import AdminStore
from router.admin.usage import Usage
from router.errors import RouterError


def make_app(
    *, store: AdminStore, activator: str, ledger: str, admin_key: str, pepper: bytes, snapshots: Snapshots, audit: Audit
) -> Starlette:
    """`activator` and `ledger` are their frame addresses."""
    routes = (
        Endpoints(store, activator=activator, ledger=ledger, snapshots=snapshots).routes()
        + Keys(store, ledger=ledger, pepper=pepper).routes()
    )
    routes += Prices(store).routes() + Usage(store).routes() + ColdStarts(store).routes() + audit.routes()
    routes = recorded(routes, folder=audit.folder, admin_key=admin_key, settle=audit.soon)
    return Starlette(
        routes=[Mount("/api/v1", routes=routes)],
        middleware=[Middleware(RequireAdminKey, key=admin_key)],
        exception_handlers={RouterError: on_router_error, HTTPException: on_http_exception, Exception: on_crash},
    )
