"""Settling: ready requests become rows of `usage`, a batch at a time, each exactly once.

Step 12. Failures to survive: Postgres away (the batch is tried again for ever, one line in the log), a new price in the
middle (the statement refuses, the prices are loaded anew), one row Postgres will never take (it is found by halving,
kept aside for a person, and holds up nobody), and a journal that never comes (the router's own figures stand).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import structlog

from router.ledger.join import Case, Join
from router.ledger.postgres import POISON, Outage, until_done
from router.ledger.prices import PriceList, Unpriced
from router.ledger.row import usage_row
from router.ledger.store import LedgerStore

BATCH_ROWS = 1000
LOOK_AGAIN_SECONDS = 0.5  # the named fallback to the journal's notifications
GATHER_SECONDS = 0.1  # one look-up for all notifications of this time
UNPRICED_SECONDS = 5.0

log = structlog.get_logger()


class Reject(Protocol):
    def __call__(self, lines: list[tuple[bytes, str]], *, source: str) -> None: ...


class Settler:
    """Takes from the join what is ready. `reject` is `Tail.reject`; `on_settled` is called after each batch: there is room again."""

    on_settled: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, *, join: Join, store: LedgerStore, reject: Reject) -> None:
        self._join, self._store, self._reject = join, store, reject
        self._prices: PriceList | None = None  # None: to be loaded
        self._ready, self._journal = asyncio.Event(), asyncio.Event()
        self._looking = False  # something waits already: the next look-up comes by itself
        self._outage = Outage("ledger.settle")
        self._unpriced = ""

    def wake(self) -> None:
        """The join has something ready, or something that waits for the journal."""
        if self._join.ready:
            self._ready.set()
        if self._join.is_waiting and not self._looking:
            self._journal.set()

    def journal_arrived(self) -> None:
        self._journal.set()

    def prices_changed(self) -> None:
        self._prices = None

    async def run(self) -> None:
        """Settle what is ready, for ever."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            while cases := self._join.take(BATCH_ROWS):
                try:
                    await self._settle(cases)
                except BaseException:
                    self._join.give_back(cases)  # we are being stopped; it is still on disk, and may be in Postgres
                    raise
                self._join.settled(cases)
                self.on_settled()

    async def run_journal(self) -> None:
        """Look up what waits for the engine's journal: on each notification, and every LOOK_AGAIN_SECONDS."""
        outage = Outage("ledger.journal")
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_SECONDS if self._join.is_waiting else None):
                    await self._journal.wait()
            self._journal.clear()
            await self._look_up(outage)
            self._looking = self._join.is_waiting
            await asyncio.sleep(GATHER_SECONDS)

    async def _look_up(self, outage: Outage) -> None:
        asked, asked_at = self._join.waiting, time.monotonic()
        if not asked:
            return
        was_away = False

        async def look() -> None:
            nonlocal was_away
            was_away = was_away or outage.lasting
            self._join.journal(await self._store.journal(asked))

        await until_done(outage, look)
        if was_away:
            self._join.postpone(now=time.monotonic())
        else:
            self._join.expire(asked=asked, at=asked_at)
        self.wake()

    async def _settle(self, cases: list[Case]) -> None:
        try:
            await until_done(self._outage, lambda: self._write(cases))
        except POISON as error:
            if len(cases) > 1:
                middle = len(cases) // 2
                await self._settle(cases[:middle])
                await self._settle(cases[middle:])
                return
            await self._keep_aside(cases[0], why=str(error))

    async def _keep_aside(self, case: Case, *, why: str) -> None:
        """As the spool lines they came in, for a person to correct and put back."""
        lines = [(record.model_dump_json().encode(), why) for record in (case.open, case.end, case.engine) if record is not None]
        await asyncio.to_thread(self._reject, lines, source="usage")
        log.error("Postgres refuses a row; it is kept in rejected.jsonl", action="ledger.reject", event_id=case.event_id, reason=why)

    async def _write(self, cases: list[Case]) -> None:
        while True:
            if self._prices is None:
                self._prices = await self._store.prices()
            prices = self._prices
            try:
                rows = [usage_row(case, prices) for case in cases]
            except Unpriced as error:
                await self._wait_for_price(error)
                continue
            if (await self._store.settle(rows, newest_price=prices.newest)).newest_price == prices.newest:
                self._unpriced = ""
                return
            self._prices = None

    async def _wait_for_price(self, error: Unpriced) -> None:
        if self._unpriced != str(error):
            self._unpriced = str(error)
            log.error("nothing can be settled", action="ledger.prices", reason=str(error))
        await asyncio.sleep(UNPRICED_SECONDS)
        self._prices = None
