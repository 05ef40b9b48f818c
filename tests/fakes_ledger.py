"""Fakes of what a spool's lines go through: a disk that is slow, full or broken, and a Postgres that keeps rows."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Sequence

import asyncpg

from router.ledger.late import Correction, Late
from router.ledger.prices import Price, PriceList
from router.ledger.row import UsageRow
from router.ledger.store import LedgerStore, Settled
from router.ledger.watermark import Unfinished
from runtime.wire import UsageEntry


class FakeStore(LedgerStore):
    """Postgres as the settler sees it; `trouble` is raised, one a statement, before anything else happens."""

    def __init__(self) -> None:
        self.rows: dict[str, UsageRow] = {}
        self.batches: list[int] = []
        self.price_rows = [
            Price(version=1, org_id="default", endpoint_id="", valid_from=0.0, input=1, cached=1, output=1)
        ]
        self.entries: dict[str, UsageEntry] = {}
        self.silent: list[Unfinished] = []
        self.trouble: list[Exception] = []
        self.poison: set[str] = set()
        self.changed = asyncio.Condition()

    async def _stumble(self) -> None:
        await asyncio.sleep(0)
        if self.trouble:
            raise self.trouble.pop(0)

    async def settle(self, rows: Sequence[UsageRow], *, newest_price: int) -> Settled:
        await self._stumble()
        if self.poison & {row.event_id for row in rows}:
            raise asyncpg.DataError("invalid input")
        newest = max(price.version for price in self.price_rows)
        if newest == newest_price:
            self.batches.append(len(rows))
            for row in rows:
                self.rows.setdefault(row.event_id, row)
            async with self.changed:
                self.changed.notify_all()
        return Settled(newest, len(rows))

    async def journal(self, request_ids: Sequence[str]) -> list[UsageEntry]:
        await self._stumble()
        return [self.entries[name] for name in request_ids if name in self.entries]

    async def unfinished(self, replicas: Sequence[str], endpoints: Sequence[str]) -> list[Unfinished]:
        await self._stumble()
        named = {replica.replica_id: replica for replica in self.silent}
        return [
            *(named.get(name, Unfinished(name)) for name in replicas),
            *(r for r in self.silent if r.endpoint_id in endpoints),
        ]

    async def prices(self) -> PriceList:
        await self._stumble()
        return PriceList(self.price_rows)

    async def has(self, count: int) -> None:
        async with self.changed, asyncio.timeout(5):
            await self.changed.wait_for(lambda: len(self.rows) >= count)


class Disk:
    """A disk with so much room, which can be told not to sync, or to wait."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room, self.broken = room, False
        self.syncs = 0
        self.may_sync = threading.Event()
        self.may_sync.set()
        self.asked = threading.Event()  # to sync, for the first time

    def write(self, descriptor: int, data: bytes) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = os.write(descriptor, data[: self.room])
        self.room -= written
        return written

    def sync(self, descriptor: int) -> None:
        self.asked.set()
        self.may_sync.wait(5)
        self.syncs += 1
        if self.broken:
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(descriptor)


class LateStore(LedgerStore):
    """What came late, page by page; `back` is how far each pass looked back."""

    def __init__(self, price: Price, late: list[Late]) -> None:
        self.price = price
        self.late, self.made, self.back = late, list[Correction](), list[float]()
        self.slow = 0

    async def prices(self) -> PriceList:
        return PriceList([self.price])

    async def correct(
        self,
        decide: Callable[[Sequence[Late]], Sequence[Correction]],
        *,
        back: float,
        most: int,
        without: Sequence[str],
    ) -> list[Late]:
        self.back.append(back)
        if self.slow:
            self.slow -= 1
            raise TimeoutError
        found = [late for late in self.late if late.event_id not in without][:2]
        self.made += decide(found)
        return found
