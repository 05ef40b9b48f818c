"""Adds what the engine's journal says after a request was settled without it: one row more, with the difference, never
a change.

Step 12. A row settled by the router's own count, by a last durable count, or by nothing may be wrong. The replica's
line may come after all, if its node was away for longer than rows wait. Then the difference is a row of its own that
names the one it corrects. It is priced by the version that one was priced with, so that sums over `usage` are right.
Three failures to survive. Passes are repeated: a correction's id follows from what it corrects and by what. Several
ledgers run at once: one at a time holds a lock. Postgres is away: the next pass looks back to the last that succeeded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog

from router.ledger.late import Correction, Late, correction
from router.ledger.postgres import Outage, until_done
from router.ledger.prices import Price
from router.ledger.store import LedgerStore

MARGIN_SECONDS = (
    45.0  # an entry is seen so long after its moment, at most: the statement that stores it may take its time
)
FIRST_SECONDS = (
    86400.0  # the first pass looks so far back: longer than a ledger is away while rows of before it may be corrected
)
MOST = 1000  # of one pass

log = structlog.get_logger()


class Corrections:
    """Every `every` seconds."""

    def __init__(self, store: LedgerStore, *, every: float) -> None:
        self._store, self._every = store, every
        self._since: float | None = None  # monotonic seconds of the last pass that succeeded
        self._first = FIRST_SECONDS

    async def run(self) -> None:
        """For ever, `every` seconds apart."""
        outage = Outage("ledger.correct")
        while True:
            await until_done(outage, self.catch_up)
            await asyncio.sleep(self._every)

    async def catch_up(self) -> int:
        """Correct what came since the last time. Returns how many late entries that were. Raises one of postgres.AWAY,
        or POISON.
        """
        begun = time.monotonic()
        back = self._first if self._since is None else begun - self._since + MARGIN_SECONDS
        prices = await self._store.prices()
        done: set[str] = set()
        try:
            while found := await self._store.correct(
                lambda late: self._of(late, prices.versions), back=back, most=MOST, without=sorted(done)
            ):
                done.update(late.event_id for late in found)
        except TimeoutError:
            # too much for one statement, or Postgres hangs: a shorter look is one
            self._first = max(self._first / 4, MARGIN_SECONDS)
            raise
        self._since = begun
        return len(done)

    def _of(self, found: Sequence[Late], versions: dict[int, Price]) -> list[Correction]:
        corrections = [made for late in found if (made := correction(late, versions[late.price_version]))]
        for made in corrections:
            log.warning(
                "a journal came after its row: corrected",
                action="ledger.correct",
                event_id=made.corrects,
                by=made.count_source,
            )
        return corrections
