"""What the agent does to have a snapshot on this node: verify it, fetch it, make room for it. Step 9, phase `fetch`.

1. It is in the store: verified once, then a few stats (`snapshots/stage.py`).
2. It is at the origin: fetched once, however many ask. A replica may start as soon as all but weights is there; it
   reads these as they arrive, each chunk checked before it counts, from a folder that a link names: the link leads to
   the partial folder first and to the store later, without a moment in which it leads nowhere. `Staged.whole` is for
   the agent, which lets nothing serve before every byte is verified.
3. It is nowhere: the start fails.

A replica opens the same link first and later, wherever it leads: an engine's compile caches know a model by its path.
Room is made first, by what is used longest ago, and kept for who asked until it is taken: of two who ask at once, each
sees what the other was promised. It must survive an origin that is away, slow or lying, a full disk and kill -9: each
fails the start with its reason, what was good stays, and the next ask goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from runtime.control import LoadOutcome
from runtime.node.disk import RESERVE_BYTES, Disk, Item, Kind, choose, room
from runtime.node.fetcher import Fetcher
from snapshots.errors import SnapshotError, StoreFull
from snapshots.manifest import Manifest, folder_name, read_manifest
from snapshots.stage import adopt, stage
from snapshots.store.disk import free, path_of
from snapshots.transfer import Steps

CALM_SECONDS = 15.0  # that a snapshot, verified, waits for a first answer before it is made durable

log = structlog.get_logger()


@dataclass(frozen=True)
class Staged:
    folder: Path  # what a replica opens
    whole: asyncio.Future[None]  # every byte is verified; or the reason why not
    arriving: Path | None = None  # the partial folder, where bytes are still on their way
    bakes: bool = True  # there is a baked copy, or room for one, or none is wanted
    fetched: bool = False  # it was not here before
    served: asyncio.Event = field(default_factory=asyncio.Event)  # set by who asked, once it is served or gone


@dataclass
class _Flight:
    usable: asyncio.Future[tuple[Path, Manifest]]  # the partial folder, or the store's
    whole: asyncio.Future[None]
    served: asyncio.Event = field(default_factory=asyncio.Event)  # who waited for it is served, or gone
    task: asyncio.Task[None] | None = field(default=None)


@dataclass(frozen=True)
class _Promise:
    """Room that was made for one item and is not all taken yet."""

    size: int  # bytes
    before: int  # that the item took when room was made

    def left(self, now: int) -> int:
        """Bytes of it still to be taken, where the item takes `now`. Pure."""
        return min(self.size, max(0, self.size - (now - self.before)))


class Staging:
    def __init__(
        self,
        *,
        store: Path,
        node_dir: Path,
        baked: Path,
        origin: str,
        max_bytes: int,
        in_use: Callable[[], Collection[str]] = frozenset,
        code: bool = False,
    ) -> None:
        """`in_use`: digests of replicas, from the moment a start is ordered until they are gone. `code`: snapshots may
        hold the model's own.
        """
        self._store, self._node_dir, self._max_bytes, self.in_use = store, node_dir, max_bytes, in_use
        self._disk = Disk(store=store, node_dir=node_dir, baked=baked)
        self._code = code
        self._fetcher = Fetcher(origin, code=code) if origin else None
        self._flights: dict[str, _Flight] = {}
        self._room = asyncio.Lock()
        self._promises: dict[tuple[Kind, str], _Promise] = {}
        self._unmappable: set[str] = set()
        self._going: dict[str, asyncio.Event] = {}  # digests being evicted

    def start(self) -> None:
        """Raises OSError."""
        self._disk.sweep()
        if self._fetcher:
            self._fetcher.start()

    def close(self) -> None:
        if self._fetcher:
            self._fetcher.close()

    async def bring(self, digest: str, copy: str = "") -> Staged:
        """Have it here, or on its way. Raises SnapshotError, OSError.

        `copy` says which baked copy is wanted beside it (all that may decide it: engine version, dtype); "": none. Room
        that was made for it is kept until `loaded`, or until nobody uses the digest.
        """
        name = folder_name(digest)
        while digest in self._going:
            await self._going[digest].wait()
        flight = self._flights.get(digest)
        if flight is None and (self._fetcher is None or (self._store / name).is_dir()):  # 1, 3
            folder = await asyncio.to_thread(stage, self._store, digest, self._node_dir, code=self._code)
            await asyncio.to_thread(self._used, digest)
            self._lead(digest, folder)
            whole = asyncio.get_running_loop().create_future()
            whole.set_result(None)
            bakes = await self._can_bake(digest, copy, lambda: read_manifest(folder, digest))
            return Staged(self._link(digest), whole, bakes=bakes)
        flight = flight or self._take_off(digest)  # 2
        fetched = not flight.whole.done()
        partial, manifest = await asyncio.shield(flight.usable)
        bakes = await self._can_bake(digest, copy, lambda: manifest)
        return Staged(
            self._link(digest), flight.whole, None if flight.whole.done() else partial, bakes, fetched, flight.served
        )

    def _used(self, digest: str) -> None:
        """A disk that cannot remember it may let this snapshot go too early; it is here now all the same."""
        try:
            self._disk.use(digest)
        except OSError as error:
            log.warning(
                "when a snapshot was last used is not kept", action="use_unkept", digest=digest, reason=str(error)
            )

    def loaded(self, digest: str, copy: str, outcome: LoadOutcome) -> None:
        """A replica has its weights: what was to be baked is, or will not be."""
        try:
            if outcome in (LoadOutcome.BAKED, LoadOutcome.MAPPED) and not self._disk.has_copy(digest, copy):
                self._disk.know_copy(digest, copy)
        except OSError as error:  # the next start makes room for it once more, and finds it there
            log.warning(
                "that there is a baked copy is not kept", action="copy_unmarked", digest=digest, reason=str(error)
            )
        self._promises.pop(("baked", digest), None)

    def unmappable(self, digest: str) -> None:
        """Its engine takes it as it is: no room need be made for a baked copy."""
        self._unmappable.add(digest)

    def fetching(self) -> list[str]:
        """Digests that are on their way here, or are being made durable."""
        return list(self._flights)

    def _take_off(self, digest: str) -> _Flight:
        loop = asyncio.get_running_loop()
        flight = self._flights[digest] = _Flight(loop.create_future(), loop.create_future())
        flight.task = asyncio.ensure_future(self._fly(digest, flight))
        return flight

    async def _fly(self, digest: str, flight: _Flight) -> None:
        assert self._fetcher is not None
        loop = asyncio.get_running_loop()

        def usable(partial: Path) -> None:
            self._lead(digest, partial / "files")
            loop.call_soon_threadsafe(flight.usable.set_result, (partial, read_manifest(partial, digest)))

        async def verified() -> None:
            """Syncing a large snapshot takes the disk and a core for seconds: who waits for its first token goes
            first.
            """
            loop.call_soon_threadsafe(flight.whole.set_result, None)
            with suppress(TimeoutError):
                await asyncio.wait_for(
                    asyncio.wrap_future(asyncio.run_coroutine_threadsafe(flight.served.wait(), loop)), CALM_SECONDS
                )

        def published(folder: Path) -> None:
            self._lead(digest, folder)

        @asynccontextmanager
        async def kept(size: int) -> AsyncIterator[None]:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.make_room(size, ("partial", digest)), loop))
            try:
                yield
            finally:
                loop.call_soon_threadsafe(self._promises.pop, ("partial", digest), None)

        try:
            await asyncio.to_thread(self._used, digest)
            steps = Steps(usable, verified, published)
            manifest = await self._fetcher.pull(digest, self._store, steps, kept)
            folder = path_of(self._store, digest)
            if flight.whole.done():
                await asyncio.to_thread(adopt, folder, self._node_dir, code=self._code)
            else:  # another process has pulled it while we waited for its lock
                await asyncio.to_thread(stage, self._store, digest, self._node_dir, code=self._code)
                self._lead(digest, folder)
                flight.usable.set_result((folder, manifest))
                flight.whole.set_result(None)
            log.info("snapshot staged", action="staged", digest=digest)
        except Exception as error:
            if not isinstance(error, SnapshotError | OSError):
                log.exception("fetching failed unexpectedly", action="fetch_failed", digest=digest)
            log.warning("snapshot not staged", action="fetch_failed", digest=digest, reason=str(error))
            for future in (flight.usable, flight.whole):
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # who waits is told; that nobody does is no mistake
        finally:
            del self._flights[digest]

    def _link(self, digest: str) -> Path:
        return self._node_dir / folder_name(digest)

    def _lead(self, digest: str, target: Path) -> None:
        """Let the link lead to `target`, in one step."""
        link = self._link(digest)
        if link.is_symlink() and link.readlink() == target:
            return
        fresh = link.with_name(f".{link.name}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(link)

    async def _can_bake(self, digest: str, copy: str, read: Callable[[], Manifest]) -> bool:
        """Is there a baked copy, or room for one? Without, the plain weights are used."""
        if not copy or digest in self._unmappable or self._disk.has_copy(digest, copy):
            return True
        try:
            await self.make_room((await asyncio.to_thread(read)).tensor_bytes, ("baked", digest))
        except StoreFull as error:
            log.warning("no room for a baked copy", action="no_room_to_bake", digest=digest, reason=str(error))
            return False
        return True

    async def make_room(self, size: int, of: tuple[Kind, str] | None = None) -> None:
        """Evict until `size` bytes more may be taken, and keep them for the item `of`.

        Raises StoreFull; where nothing could help, before anything is evicted.
        """
        async with self._room:
            if of is not None and of[0] == "baked" and of in self._promises:
                return  # of several that want the same copy one writes it
            before = await asyncio.to_thread(self._disk.size_of, *of) if of is not None else 0
            await self._evict_for(size, of)
            if of is not None:
                self._promises[of] = _Promise(size, before)

    async def _evict_for(self, size: int, of: tuple[Kind, str] | None) -> None:
        """1. The disk has room, whatever others still take of what they were promised. 2. It is counted exactly. 3.
        Some must go.
        """
        promised = self._promised(of)
        left = await asyncio.to_thread(free, self._store)
        if not self._max_bytes and size <= left - RESERVE_BYTES - sum(
            promise.size for promise in promised.values()
        ):  # 1
            return
        items = await asyncio.to_thread(self._disk.items)
        sizes = {(item.kind, item.digest): item.size for item in items}
        still = sum(promise.left(sizes.get(place, 0)) for place, promise in promised.items())  # 2
        # The disk is asked after the items: what is taken in between then counts twice, and not never.
        left, taken = await asyncio.to_thread(free, self._store) - still, sum(sizes.values()) + still
        pinned = await asyncio.to_thread(self._disk.pinned)
        may_go = choose(items, {*self._busy(), *pinned})
        lost = sum(item.size for item in items if item.digest in pinned - self._busy())
        if size > sum(item.size for item in may_go) + room(max_bytes=self._max_bytes, taken=taken, free=left):
            raise StoreFull(self._full(size, taken, left, lost))
        for item in may_go:  # 3
            if size <= room(max_bytes=self._max_bytes, taken=taken, free=left):
                return
            if item.kind == "snapshot" and not await self._is_elsewhere(item.digest):
                continue
            stays = self._busy() | await asyncio.to_thread(
                self._disk.pinned
            )  # what was so when we began may be no more
            if item.digest not in stays and await self._evict(item):
                taken, left = taken - item.size, left + item.size
        if size > room(max_bytes=self._max_bytes, taken=taken, free=left):
            raise StoreFull(self._full(size, taken, left, lost))

    def _promised(self, of: tuple[Kind, str] | None) -> dict[tuple[Kind, str], _Promise]:
        """What others were promised; a copy that was to be written by a replica that is gone will not be."""
        for place in [place for place in self._promises if place[0] == "baked" and place[1] not in self._busy()]:
            del self._promises[place]
        return {place: promise for place, promise in self._promises.items() if place != of}

    def _busy(self) -> set[str]:
        return {*self.in_use(), *self.fetching()}

    async def _is_elsewhere(self, digest: str) -> bool:
        """Does the origin have it whole, so that this node is not the only holder?"""
        return self._fetcher is not None and await self._fetcher.holds(digest)

    async def _evict(self, item: Item) -> bool:
        gone = self._going[item.digest] = asyncio.Event()
        try:
            log.info("evicting", action="evict", kind=item.kind, digest=item.digest, bytes=item.size)
            if item.kind == "snapshot":
                self._unmappable.discard(item.digest)  # it is found out anew, should it come back
            return await asyncio.to_thread(self._disk.remove, item)
        finally:
            del self._going[item.digest]
            gone.set()

    def _full(self, size: int, taken: int, left: int, pinned: int) -> str:
        unpin = (
            f"{pinned / 1e9:.2f} GB are pinned: `pilotlight snapshot unpin DIGEST` lets them go; or " if pinned else ""
        )
        if self._max_bytes and self._max_bytes - taken < left - RESERVE_BYTES:
            return (
                f"{size / 1e9:.2f} GB do not fit the node's disk budget of {self._max_bytes / 1e9:.2f} GB, of which {taken / 1e9:.2f} GB "
                f"are in use, pinned or nowhere else: {unpin}raise snapshots.max_bytes, or push snapshots to the origin and stop using them"
            )
        return (
            f"{size / 1e9:.2f} GB do not fit the node's disk, which has {left / 1e9:.2f} GB free and nothing that may go: "
            f"{unpin}remove snapshots (`pilotlight snapshot ls`) or use another disk"
        )
