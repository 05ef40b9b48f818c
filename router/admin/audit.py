"""What operators did, over the admin API; and the way of their notes from this disk into Postgres.

Notes are taken in after each act, before a listing, and every few seconds, the named fallback for commands that write
one themselves. The failures to survive: Postgres away (notes wait on the disk), and a note that Postgres will never
take (it is put aside, and said).
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import NoReturn

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from pilotlight.audit import waiting
from router.admin.bodies import AuditQuery, read_query
from router.admin.endpoints import ORG
from router.admin.store import AdminStore
from router.errors import Unavailable
from router.ledger.postgres import POISON

log = structlog.get_logger()

EVERY_SECONDS = 10.0


class Audit:
    """`folder`: where the notes lie, and new ones are made."""

    def __init__(self, store: AdminStore, folder: Path) -> None:
        self._store, self.folder = store, folder
        self._one, self._some = asyncio.Lock(), asyncio.Event()

    def routes(self) -> list[Route]:
        return [Route("/audit", self.list, methods=["GET"])]

    async def list(self, request: Request) -> JSONResponse:
        query = read_query(request, AuditQuery)
        await self.collect()
        rows = await self._store.audit(org_id=ORG, since=query.since, until=query.until, limit=query.limit + 1)
        return JSONResponse({"object": "list", "data": rows[: query.limit], "has_more": len(rows) > query.limit})

    async def collect(self) -> None:
        """Notes that are ready, into Postgres; those that it cannot have now wait."""
        async with self._one:
            try:
                for path, note in waiting(self.folder):
                    if note is None:
                        self._aside(path, "it is no note of ours")
                        continue
                    try:
                        await self._store.create_audit(note, org_id=ORG)
                        path.unlink(missing_ok=True)
                    except POISON as error:
                        self._aside(path, f"{type(error).__name__}: {error}")
            except Unavailable:
                return  # the pool says so itself; the next look takes them
            except OSError as error:
                log.warning(
                    "notes of acts cannot be read for now", action="audit", error=f"{type(error).__name__}: {error}"
                )

    def soon(self) -> None:
        """There is a note: nobody waits until Postgres has it."""
        self._some.set()

    async def run(self) -> NoReturn:
        while True:
            await self.collect()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY_SECONDS):
                    await self._some.wait()
            self._some.clear()

    def _aside(self, path: Path, reason: str) -> None:
        path.rename(path.with_suffix(".refused"))
        log.error(
            "a note of an act was put aside", action="audit", file=str(path.with_suffix(".refused")), error=reason
        )
