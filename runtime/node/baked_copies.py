"""Whether a replica may write, or map, a baked copy of its snapshot on this node. Step 9.

A copy is an engine-ready file beside the snapshot, as large as its weights. Before a start, room is made for the one it
would write, unless it is known to be there or the snapshot cannot have one. Without room the plain weights are used.
What must survive is a disk that does not keep the mark of a copy: the next start makes room once more, and finds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from runtime.control import LoadOutcome
from runtime.node.disk import Disk
from runtime.node.disk_room import DiskRoom
from snapshots.errors import StoreFull
from snapshots.manifest import Manifest

log = structlog.get_logger()


class BakedCopies:
    """`copy`: all that decides which of a snapshot's copies it is; "": none is wanted."""

    def __init__(self, disk: Disk, room: DiskRoom) -> None:
        self._disk = disk
        self._room = room

    async def may_bake(self, digest: str, copy: str, read: Callable[[], Manifest]) -> bool:
        """Is there a copy, or room for one, or is none wanted? `read` gives the snapshot's manifest, and blocks."""
        if not copy or not self._disk.can_have_copies(digest) or self._disk.has_copy(digest, copy):
            return True
        try:
            await self._room.make_room((await asyncio.to_thread(read)).tensor_bytes, ("baked", digest))
        except StoreFull as error:
            log.warning("no room for a baked copy", action="no_room_to_bake", digest=digest, reason=str(error))
            return False
        return True

    def loaded(self, digest: str, copy: str, outcome: LoadOutcome) -> None:
        """A replica has its weights: what was to be baked is, or will not be."""
        if outcome is LoadOutcome.PLAIN_SNAPSHOT:
            self._disk.know_without_copies(digest)
        try:
            if outcome in (LoadOutcome.BAKED, LoadOutcome.MAPPED) and not self._disk.has_copy(digest, copy):
                self._disk.know_copy(digest, copy)
        except OSError as error:
            log.warning(
                "that there is a baked copy is not kept", action="copy_unmarked", digest=digest, reason=str(error)
            )
        self._room.release(("baked", digest))
