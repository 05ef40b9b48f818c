"""Settles: ready requests become rows of `usage`, a batch at a time, each exactly once. Step 12.

    next_batch ──→ priced ──Postgres takes it──→ settled
       ↑             │ ├──a newer price────→ prices loaded anew, priced again
       │             │ ├──POISON───────────→ halved, down to the one row: kept in rejected.jsonl, for a person
       │             │ └──Postgres is away─→ the same again, for ever
       │             └─no price──→ unpriced.jsonl, until there is one
       └─ give_back, where we are stopped in between

Four failures to survive. Postgres is away: one line in the log. There is a new price in the middle: the statement
refuses. Postgres will never take one row: it holds up nobody. A request has no price: it is kept aside until there is
one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import structlog

from router.ledger.join import Join, PendingUsage, best
from router.ledger.postgres import POISON, Outage, until_done
from router.ledger.prices import PriceList, Unpriced
from router.ledger.row import UsageRow, usage_row
from router.ledger.shelf import Shelf
from router.ledger.store import LedgerStore

BATCH_ROWS = 1000
UNPRICED_SECONDS = 60.0  # between two looks, beside every change of prices, whether what has no price has one now

log = structlog.get_logger()


class Reject(Protocol):
    def __call__(self, lines: list[tuple[bytes, str]], *, source: str) -> None: ...


class Settler:
    """Takes from the join what is ready. `reject` is `Tail.reject`; `on_settled` is called after each batch: there is
    room again.
    """

    on_settled: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, *, join: Join, store: LedgerStore, reject: Reject, shelf: Shelf) -> None:
        self._join = join
        self._store = store
        self._reject = reject
        self._shelf = shelf
        self._prices: PriceList | None = None  # None: to be loaded
        self._ready = asyncio.Event()
        self._outage = Outage("ledger.settle")
        self._repriced, self._shelving = asyncio.Event(), asyncio.Lock()

    def wake(self) -> None:
        """The join may have something ready."""
        if self._join.ready:
            self._ready.set()

    def prices_changed(self) -> None:
        self._prices = None
        self._repriced.set()

    async def run(self) -> None:
        """Settle what is ready, for ever."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            while cases := self._join.next_batch(BATCH_ROWS):
                without: list[PendingUsage] = []
                try:
                    await self._settle(cases, without)
                    await self._shelve(without)
                except BaseException:
                    self._join.give_back(cases)  # we are being stopped; it is still on disk, and may be in Postgres
                    raise
                self._join.settled(cases)
                self.on_settled()

    async def run_unpriced(self) -> None:
        """Settle what had no price, once it has one."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(UNPRICED_SECONDS):
                    await self._repriced.wait()
            self._repriced.clear()
            if not self._shelf.is_empty:
                await self._settle_the_unpriced()

    async def _settle_the_unpriced(self) -> None:
        async with self._shelving:
            cases, odd = await asyncio.to_thread(self._shelf.read)
            without: list[PendingUsage] = []
            for at in range(0, len(cases), BATCH_ROWS):
                await self._settle(cases[at : at + BATCH_ROWS], without, anew=True)
            if len(without) < len(cases):
                await asyncio.to_thread(self._shelf.keep, without, odd)
                log.info(
                    "requests that had no price are settled",
                    action="ledger.unpriced",
                    settled=len(cases) - len(without),
                )

    async def _settle(self, cases: list[PendingUsage], without: list[PendingUsage], *, anew: bool = False) -> None:
        """Write their rows; those that have no price are added to `without`. `anew`: they lay for long, and are looked
        up again.
        """
        write = self._write_anew if anew else self._write
        try:
            without += await until_done(self._outage, lambda: write(cases))
        except POISON as error:
            if len(cases) > 1:
                middle = len(cases) // 2
                await self._settle(cases[:middle], without, anew=anew)
                await self._settle(cases[middle:], without, anew=anew)
                return
            await self._keep_aside(cases[0], why=str(error))

    async def _keep_aside(self, case: PendingUsage, *, why: str) -> None:
        """As the spool lines they came in, for a person to correct and put back."""
        lines = [
            (record.model_dump_json().encode(), why)
            for record in (case.open, case.end, case.engine)
            if record is not None
        ]
        await asyncio.to_thread(self._reject, lines, source="usage")
        log.error(
            "Postgres refuses a row; it is kept in rejected.jsonl",
            action="ledger.reject",
            event_id=case.event_id,
            reason=why,
        )

    async def _shelve(self, cases: list[PendingUsage]) -> None:
        if not cases:
            return
        async with self._shelving:
            await asyncio.to_thread(self._shelf.put, cases)
        log.error(
            "requests have no price; they are kept in unpriced.jsonl and settled once there is one",
            action="ledger.unpriced",
            requests=len(cases),
            event_id=cases[0].event_id,
            remedy="insert a default into `prices` (endpoint_id null) that is valid from -infinity",
        )

    async def _write_anew(self, cases: list[PendingUsage]) -> list[PendingUsage]:
        """What the engine's journal has said of them meanwhile counts: a correction looks for lines that come after
        their rows only.
        """
        known = {case.event_id: [case.engine] if case.engine else [] for case in cases}
        for entry in await self._store.journal(list(known)):
            known[entry.request_id].append(entry)
        for case in cases:
            case.engine = best(case.end, known[case.event_id])
        return await self._write(cases)

    async def _write(self, cases: list[PendingUsage]) -> list[PendingUsage]:
        """Returns those that have no price."""
        while True:
            if self._prices is None:
                self._prices = await self._store.prices()
            prices, rows, without = self._prices, list[UsageRow](), list[PendingUsage]()
            for case in cases:
                try:
                    rows.append(usage_row(case, prices))
                except Unpriced:
                    without.append(case)
            if not rows:
                return without
            settled = await self._store.settle(rows, newest_price=prices.newest)
            prices.ahead_seconds = settled.ahead_seconds
            if settled.newest_price == prices.newest:
                return without
            self._prices = None
