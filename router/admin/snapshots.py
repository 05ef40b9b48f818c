"""Checks whether a snapshot that is to be deployed can be had at all, so that an unknown digest is refused before
anything moves.

The failure to survive is an origin that does not answer. Nothing is known then, and the deploy goes on. Its first start
says how it went, while the old revision serves.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from snapshots.errors import NotStored, SnapshotError
from snapshots.manifest import read_manifest
from snapshots.store.disk import path_of
from snapshots.store.origin import connect

log = structlog.get_logger()

ORIGIN_SECONDS = 5.0


class Snapshots:
    """The store of this machine, and the origin it pulls from ("": none)."""

    def __init__(self, folder: Path, origin: str) -> None:
        self._folder, self._origin = folder, origin

    async def refusal(self, digest: str) -> str:
        """Why no node can have it; "" where one can, or nobody can say."""
        try:
            await asyncio.to_thread(lambda: read_manifest(path_of(self._folder, digest), digest))
        except NotStored as error:
            return await self._refusal_of_origin(digest) if self._origin else str(error)
        except (SnapshotError, OSError) as error:
            return str(error)
        return ""

    async def _refusal_of_origin(self, digest: str) -> str:
        try:
            async with asyncio.timeout(ORIGIN_SECONDS), connect(self._origin) as origin:
                await origin.manifest(digest)
        except NotStored as error:
            return f"{error}; nor is it in {self._folder}: `pilotlight snapshot pack FOLDER` puts it there"
        except (SnapshotError, OSError) as error:
            log.warning(
                "an origin cannot say whether it has a snapshot",
                action="origin_unknown",
                digest=digest,
                error=str(error),
            )
        return ""
