"""Snapshots on their way to this node, each fetched once however many ask. Step 9, phase `fetch`.

    begin ──► usable: all but weights is here; the link leads to the partial folder, and starts may begin
                │
                ▼
              verified: every byte is good; replicas may serve, and what waited for them is made durable later
                │
                ▼
              published: in the store, where the link leads from now on; the fetch is over

    an error at any step ──► `usable` and `verified` fail with it, as far as they were not reached

The fetcher's loop calls the steps, on a thread of its own; the agent's loop has the futures. It must survive an origin
that is away, slow or lying, a full disk and kill -9. What was good stays, and the next fetch goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog

from runtime.node.disk import Disk
from runtime.node.disk_room import DiskRoom, Place
from runtime.node.fetcher import Fetcher
from snapshots.errors import SnapshotError
from snapshots.manifest import Manifest, read_manifest
from snapshots.stage import adopt, stage
from snapshots.store.disk import path_of
from snapshots.transfer import Steps

CALM_SECONDS = 15.0  # that a snapshot, verified, waits for a first answer before it is made durable

log = structlog.get_logger()


@dataclass
class Fetch:
    """One snapshot on its way. Its futures belong to the agent's loop."""

    digest: str
    loop: asyncio.AbstractEventLoop
    usable: asyncio.Future[tuple[Path, Manifest]]  # the partial folder, or the store's
    verified: asyncio.Future[None]
    served: asyncio.Event = field(default_factory=asyncio.Event)  # who waited for it is served, or gone
    task: asyncio.Task[None] | None = None

    def failed(self, error: Exception) -> None:
        for future in (self.usable, self.verified):
            if not future.done():
                future.set_exception(error)
                future.exception()  # who waits hears it; that nobody waits is no mistake


class Fetches:
    """`under_way`: those that are not over, by digest; shared with those who must know what is on its way."""

    def __init__(self, disk: Disk, room: DiskRoom, under_way: dict[str, Fetch], *, code: bool) -> None:
        self._disk = disk
        self._room = room
        self._under_way = under_way
        self._code = code

    def begin(self, digest: str, fetcher: Fetcher) -> Fetch:
        loop = asyncio.get_running_loop()
        fetch = Fetch(digest, loop, loop.create_future(), loop.create_future())
        self._under_way[digest] = fetch
        fetch.task = asyncio.ensure_future(self._run(fetch, fetcher))
        return fetch

    async def _run(self, fetch: Fetch, fetcher: Fetcher) -> None:
        digest = fetch.digest
        try:
            await asyncio.to_thread(self._disk.use, digest)
            steps = Steps(partial(self._usable, fetch), partial(self._verified, fetch), partial(self._published, fetch))
            manifest = await fetcher.pull(digest, self._disk.store, steps, partial(self._room_for, fetch))
            await self._stored(fetch, manifest)
            log.info("snapshot staged", action="staged", digest=digest)
        except Exception as error:
            if not isinstance(error, SnapshotError | OSError):
                log.exception("fetching failed unexpectedly", action="fetch_failed", digest=digest)
            log.warning("snapshot not staged", action="fetch_failed", digest=digest, reason=str(error))
            fetch.failed(error)
        finally:
            del self._under_way[digest]

    async def _stored(self, fetch: Fetch, manifest: Manifest) -> None:
        """It is in the store: by our fetch, or by another process while we waited for its lock."""
        folder = path_of(self._disk.store, fetch.digest)
        if fetch.verified.done():
            await asyncio.to_thread(adopt, folder, self._disk.node_dir, code=self._code)
            return
        await asyncio.to_thread(stage, self._disk.store, fetch.digest, self._disk.node_dir, code=self._code)
        self._disk.lead(fetch.digest, folder)
        fetch.usable.set_result((folder, manifest))
        fetch.verified.set_result(None)

    # On the fetcher's loop

    def _usable(self, fetch: Fetch, folder: Path) -> None:
        self._disk.lead(fetch.digest, folder / "files")
        fetch.loop.call_soon_threadsafe(fetch.usable.set_result, (folder, read_manifest(folder, fetch.digest)))

    async def _verified(self, fetch: Fetch) -> None:
        """Syncing a large snapshot takes the disk and a core for seconds: who waits for its first token goes first."""
        fetch.loop.call_soon_threadsafe(fetch.verified.set_result, None)
        served = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(fetch.served.wait(), fetch.loop))
        with suppress(TimeoutError):
            await asyncio.wait_for(served, CALM_SECONDS)

    def _published(self, fetch: Fetch, folder: Path) -> None:
        self._disk.lead(fetch.digest, folder)

    @asynccontextmanager
    async def _room_for(self, fetch: Fetch, size: int) -> AsyncIterator[None]:
        """Room for the partial folder, promised for as long as it grows."""
        place: Place = ("partial", fetch.digest)
        asked = asyncio.run_coroutine_threadsafe(self._room.make_room(size, place), fetch.loop)
        await asyncio.wrap_future(asked)
        try:
            yield
        finally:
            fetch.loop.call_soon_threadsafe(self._room.release, place)
