"""`python -m router.admin`: the admin API on a Unix socket only its owner may use; the router relays /api to it.

A process of its own, so that a heavy listing never delays a token. It keeps no state: kill -9 costs the requests it was
answering, nothing more.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import uvicorn

from pilotlight import keys, logs, settings
from pilotlight.frames import split
from pilotlight.tasks import Tasks
from pilotlight.watchdog import Notifier
from router.admin.app import make_app
from router.admin.audit import Audit
from router.admin.snapshots import Snapshots
from router.admin.store import AdminStore
from router.ledger.postgres import Database

UNUSED_SECONDS = 2.0  # of a connection to Postgres: what operators ask comes all at once, or not at all


def listen(path: str) -> socket.socket:
    """Bind the socket, 0600 from the first moment, in place of one a dead process left."""
    Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    return listener


class Server(uvicorn.Server):
    """uvicorn's, which says that it turns, and takes in notes of acts meanwhile."""

    def __init__(self, config: uvicorn.Config, audit: Audit) -> None:
        super().__init__(config)
        self._audit = audit

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        async with Tasks() as tasks:
            tasks.spawn(self._audit.run(), name="audit")
            await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        Notifier.of_starter().keep()


def main() -> None:
    logs.configure("admin")
    given = settings.load()
    paths = given.paths
    paths.make()
    store = AdminStore(Database(given, application="admin", unused=UNUSED_SECONDS))
    audit = Audit(store, paths.audit)
    app = make_app(
        store=store,
        activator=paths.address("activator"),
        ledger=paths.address("ledger"),
        admin_key=keys.ensure_admin_key(paths),
        pepper=keys.ensure_pepper(paths),
        snapshots=Snapshots(paths.snapshots, given.snapshots.origin),
        audit=audit,
    )
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=5, server_header=False
    )
    Server(config, audit).run(sockets=[listen(split(paths.address("admin"))[1])])


if __name__ == "__main__":
    main()
