"""Snapshots on their way to this node, each fetched once however many ask. Step 9, phase `fetch`.

    begin ──► usable: all but weights is here; the link leads to the partial folder, and starts may begin
                │
                ▼
              verified: every byte is good; replicas may serve, and what waited for them is made durable later
                │
                ▼
              published: in the store, where the link leads from now on; the flight is over

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
class Flight:
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
    """`flights`: those under way, by digest; shared with those who must know what is on its way."""

    def __init__(self, disk: Disk, room: DiskRoom, flights: dict[str, Flight], *, code: bool) -> None:
        self._disk = disk
        self._room = room
        self._flights = flights
        self._code = code

    def begin(self, digest: str, fetcher: Fetcher) -> Flight:
        loop = asyncio.get_running_loop()
        flight = Flight(digest, loop, loop.create_future(), loop.create_future())
        self._flights[digest] = flight
        flight.task = asyncio.ensure_future(self._fly(flight, fetcher))
        return flight

    async def _fly(self, flight: Flight, fetcher: Fetcher) -> None:
        digest = flight.digest
        try:
            await asyncio.to_thread(self._disk.use, digest)
            steps = Steps(
                partial(self._usable, flight), partial(self._verified, flight), partial(self._published, flight)
            )
            manifest = await fetcher.pull(digest, self._disk.store, steps, partial(self._room_for, flight))
            await self._landed(flight, manifest)
            log.info("snapshot staged", action="staged", digest=digest)
        except Exception as error:
            if not isinstance(error, SnapshotError | OSError):
                log.exception("fetching failed unexpectedly", action="fetch_failed", digest=digest)
            log.warning("snapshot not staged", action="fetch_failed", digest=digest, reason=str(error))
            flight.failed(error)
        finally:
            del self._flights[digest]

    async def _landed(self, flight: Flight, manifest: Manifest) -> None:
        """It is in the store: by our fetch, or by another process while we waited for its lock."""
        folder = path_of(self._disk.store, flight.digest)
        if flight.verified.done():
            await asyncio.to_thread(adopt, folder, self._disk.node_dir, code=self._code)
            return
        await asyncio.to_thread(stage, self._disk.store, flight.digest, self._disk.node_dir, code=self._code)
        self._disk.lead(flight.digest, folder)
        flight.usable.set_result((folder, manifest))
        flight.verified.set_result(None)

    # On the fetcher's loop

    def _usable(self, flight: Flight, folder: Path) -> None:
        self._disk.lead(flight.digest, folder / "files")
        flight.loop.call_soon_threadsafe(flight.usable.set_result, (folder, read_manifest(folder, flight.digest)))

    async def _verified(self, flight: Flight) -> None:
        """Syncing a large snapshot takes the disk and a core for seconds: who waits for its first token goes first."""
        flight.loop.call_soon_threadsafe(flight.verified.set_result, None)
        served = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(flight.served.wait(), flight.loop))
        with suppress(TimeoutError):
            await asyncio.wait_for(served, CALM_SECONDS)

    def _published(self, flight: Flight, folder: Path) -> None:
        self._disk.lead(flight.digest, folder)

    @asynccontextmanager
    async def _room_for(self, flight: Flight, size: int) -> AsyncIterator[None]:
        """Room for the partial folder, promised for as long as it grows."""
        place: Place = ("partial", flight.digest)
        asked = asyncio.run_coroutine_threadsafe(self._room.make_room(size, place), flight.loop)
        await asyncio.wrap_future(asked)
        try:
            yield
        finally:
            flight.loop.call_soon_threadsafe(self._room.release, place)
