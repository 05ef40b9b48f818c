"""What the agent does to have a snapshot on this node: verify it, fetch it, make room for it. Step 9, phase `fetch`.

1. It is in the store: verified once, then a few stats (`snapshots/stage.py`).
2. It is at the origin: fetched once, however many ask (`downloads.py`). A replica may start as soon as all but weights
   is there; it reads these as they arrive, each chunk checked before it counts.
3. It is nowhere: the start fails.

A replica opens a link, the same one first and later: an engine's compile caches know a model by its path. The link
points at the partial folder, then atomically at the store. Room is made first (`disk_room.py`); whether a baked copy
may be written is decided too (`baked_copies.py`). It must survive an origin that is away, slow or lying, a full disk
and kill -9. Each fails the start with its reason. What was good stays, and the next start goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from pilotlight.settings import Settings
from runtime.control import LoadOutcome
from runtime.node.baked_copies import BakedCopies
from runtime.node.disk import Disk
from runtime.node.disk_room import DiskRoom
from runtime.node.downloads import Fetch, Fetches
from runtime.node.fetcher import Fetcher
from snapshots.manifest import folder_name, read_manifest
from snapshots.stage import stage


@dataclass(frozen=True)
class Staged:
    """A snapshot that is on this node, or so far that a replica may begin."""

    folder: Path  # what a replica opens
    verified: asyncio.Future[None]  # every byte is; or the reason why not
    arriving: Path | None = None  # the partial folder, where bytes are still on their way
    bakes: bool = True  # there is a baked copy, or room for one, or none is wanted
    fetched: bool = False  # it was not here before
    served: asyncio.Event = field(default_factory=asyncio.Event)  # set by who asked, once it is served or gone


class Staging:
    """`in_use`: digests of replicas, from the moment a start is ordered until they are gone. `code`: snapshots may hold
    the model's own.
    """

    def __init__(
        self,
        *,
        store: Path,
        node_dir: Path,
        baked: Path,
        origin: str,
        max_bytes: int,
        in_use: Callable[[], Collection[str]],
        code: bool = False,
    ) -> None:
        """Raises OSError."""
        self._store = store
        self._node_dir = node_dir
        self._code = code
        self._disk = Disk(store=store, node_dir=node_dir, baked=baked)
        self._disk.sweep()
        self._fetcher = Fetcher(origin, code=code) if origin else None
        self._under_way: dict[str, Fetch] = {}
        self.room = DiskRoom(
            self._disk,
            fetcher=self._fetcher,
            max_bytes=max_bytes,
            busy=lambda: {*in_use(), *self._under_way},
        )
        self._copies = BakedCopies(self._disk, self.room)
        self._fetches = Fetches(self._disk, self.room, self._under_way, code=code)

    @classmethod
    def of(cls, settings: Settings, *, in_use: Callable[[], Collection[str]]) -> Staging:
        """As the settings say. Raises OSError."""
        return cls(
            store=settings.paths.snapshots,
            node_dir=settings.paths.staged,
            baked=settings.paths.baked,
            origin=settings.snapshots.origin,
            max_bytes=settings.snapshots.max_bytes,
            in_use=in_use,
            code=settings.snapshots.model_code,
        )

    def close(self) -> None:
        if self._fetcher:
            self._fetcher.close()

    async def bring(self, digest: str, copy: str = "") -> Staged:
        """Have it here, or on its way. Raises SnapshotError, OSError.

        `copy` says which baked copy is wanted beside it (all that may decide it: engine version, dtype); "": none. Room
        that was made for it is kept until `loaded`, or until nobody uses the digest.
        """
        name = folder_name(digest)
        await self.room.evicted(digest)
        fetch = self._under_way.get(digest)
        if fetch is None and (self._fetcher is None or (self._store / name).is_dir()):  # 1, 3
            return await self._from_the_store(digest, copy)
        if fetch is None:
            assert self._fetcher is not None
            fetch = self._fetches.begin(digest, self._fetcher)  # 2
        fetched = not fetch.verified.done()
        partial, manifest = await asyncio.shield(fetch.usable)
        bakes = await self._copies.may_bake(digest, copy, lambda: manifest)
        return Staged(
            folder=self._disk.link(digest),
            verified=fetch.verified,
            arriving=None if fetch.verified.done() else partial,
            bakes=bakes,
            fetched=fetched,
            served=fetch.served,
        )

    def loaded(self, digest: str, copy: str, outcome: LoadOutcome) -> None:
        """A replica has its weights: what was to be baked is, or will not be."""
        self._copies.loaded(digest, copy, outcome)

    def fetching(self) -> list[str]:
        """Digests that are on their way here, or are being made durable."""
        return list(self._under_way)

    async def _from_the_store(self, digest: str, copy: str) -> Staged:
        folder = await asyncio.to_thread(stage, self._store, digest, self._node_dir, code=self._code)
        await asyncio.to_thread(self._disk.use, digest)
        self._disk.lead(digest, folder)
        verified = asyncio.get_running_loop().create_future()
        verified.set_result(None)
        bakes = await self._copies.may_bake(digest, copy, lambda: read_manifest(folder, digest))
        return Staged(folder=self._disk.link(digest), verified=verified, bakes=bakes)
