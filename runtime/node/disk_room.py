"""Room on the node's disk: what goes to make it, and what was promised to whom. Step 9.

Room is made by what is used longest ago, and kept for who asked until it is taken. Of two who ask at once, each sees
what the other was promised. Nothing that is in use, on its way or pinned goes, and no snapshot goes that no other store
has. What must survive is a disk that is too small. The request is refused before anything is evicted that would not
have helped. The error says what was needed, what is there, and what to change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from runtime.node.disk import RESERVE_BYTES, Disk, Item, Kind, choose, room
from runtime.node.fetcher import Fetcher
from snapshots.errors import StoreFull
from snapshots.store.disk import free

log = structlog.get_logger()

Place = tuple[Kind, str]  # one item, by kind and digest


@dataclass(frozen=True)
class Promise:
    """Room that was made for one item and is not all taken yet."""

    size: int  # bytes
    before: int  # that the item took when room was made

    def left(self, now: int) -> int:
        """Bytes of it still to be taken, where the item takes `now`. Pure."""
        return min(self.size, max(0, self.size - (now - self.before)))


class DiskRoom:
    """`busy`: digests in use or on their way, which do not go. `max_bytes`: the budget; 0: the disk is the bound."""

    def __init__(self, disk: Disk, *, fetcher: Fetcher | None, max_bytes: int, busy: Callable[[], set[str]]) -> None:
        self._disk = disk
        self._fetcher = fetcher
        self._max_bytes = max_bytes
        self._busy = busy
        self._turn = asyncio.Lock()
        self._promises: dict[Place, Promise] = {}
        self._going: dict[str, asyncio.Event] = {}  # digests being evicted

    async def evicted(self, digest: str) -> None:
        """Returns when no eviction of this digest is under way."""
        while digest in self._going:
            await self._going[digest].wait()

    async def make_room(self, size: int, of: Place | None = None) -> None:
        """Evict until `size` bytes more may be taken, and keep them for the item `of`.

        Raises StoreFull; where nothing could help, before anything is evicted.
        """
        async with self._turn:
            if of is not None and of[0] == "baked" and of in self._promises:
                return  # of several that want the same copy one writes it
            before = await asyncio.to_thread(self._disk.size_of, *of) if of is not None else 0
            await self._evict_for(size, of)
            if of is not None:
                self._promises[of] = Promise(size, before)

    def release(self, of: Place) -> None:
        """What was promised is taken, or is not wanted any more."""
        self._promises.pop(of, None)

    async def _evict_for(self, size: int, of: Place | None) -> None:
        """1. The disk has room, whatever others still take of what they were promised. 2. It is counted exactly. 3.
        Some must go.
        """
        promised = self._promised(of)
        left = await asyncio.to_thread(free, self._disk.store)
        most = sum(promise.size for promise in promised.values())
        if not self._max_bytes and size <= left - RESERVE_BYTES - most:  # 1
            return
        items = await asyncio.to_thread(self._disk.items)
        sizes = {(item.kind, item.digest): item.size for item in items}
        still = sum(promise.left(sizes.get(place, 0)) for place, promise in promised.items())  # 2
        # The disk is asked after the items: what is taken in between then counts twice, and not never.
        left = await asyncio.to_thread(free, self._disk.store) - still
        taken = sum(sizes.values()) + still
        pinned = await asyncio.to_thread(self._disk.pinned)
        may_go = choose(items, {*self._busy(), *pinned})
        full = partial(
            self._full, size, pinned=sum(item.size for item in items if item.digest in pinned - self._busy())
        )
        if size > sum(item.size for item in may_go) + self._room(taken, left):
            raise StoreFull(full(taken, left))
        for item in may_go:  # 3
            if size <= self._room(taken, left):
                return
            if await self._may_go(item) and await self._evict(item):
                taken -= item.size
                left += item.size
        if size > self._room(taken, left):
            raise StoreFull(full(taken, left))

    def _room(self, taken: int, left: int) -> int:
        return room(max_bytes=self._max_bytes, taken=taken, free=left)

    def _promised(self, of: Place | None) -> dict[Place, Promise]:
        """What others were promised; a copy that was to be written by a replica that is gone will not be."""
        for place in [place for place in self._promises if place[0] == "baked" and place[1] not in self._busy()]:
            del self._promises[place]
        return {place: promise for place, promise in self._promises.items() if place != of}

    async def _may_go(self, item: Item) -> bool:
        """Asked once more, just before it goes: what was so when room was asked for may be no more."""
        if item.kind == "snapshot" and not await self._is_elsewhere(item.digest):
            return False
        pinned = await asyncio.to_thread(self._disk.pinned)
        return item.digest not in self._busy() | pinned

    async def _is_elsewhere(self, digest: str) -> bool:
        """Does the origin have all of it, so that this node is not the only holder?"""
        return self._fetcher is not None and await self._fetcher.holds(digest)

    async def _evict(self, item: Item) -> bool:
        gone = self._going[item.digest] = asyncio.Event()
        try:
            log.info("evicting", action="evict", kind=item.kind, digest=item.digest, bytes=item.size)
            return await asyncio.to_thread(self._disk.remove, item)
        finally:
            del self._going[item.digest]
            gone.set()

    def _full(self, size: int, taken: int, left: int, *, pinned: int) -> str:
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
