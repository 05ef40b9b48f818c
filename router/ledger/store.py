"""What the ledger asks of Postgres, one method a statement of `sql/`. Each raises postgres.AWAY or postgres.POISON.

Step 12. All of it may be repeated: nothing here changes a row that is there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from router.ledger.late import Correction, Late
from router.ledger.policy import SLICE, LiveKeys
from router.ledger.postgres import Database, read_sql
from router.ledger.prices import Price, PriceList
from router.ledger.row import UsageRow
from router.ledger.watermark import Unfinished
from router.ledger.wire import KeyRow
from runtime.wire import UsageEntry

_FOLDER = Path(__file__).parent / "sql"
_SETTLE_USAGE = read_sql(_FOLDER, "settle_usage")
_HOLD_PRICES = read_sql(_FOLDER, "hold_prices")
_FIND_JOURNAL = read_sql(_FOLDER, "find_journal")
_FIND_UNFINISHED = read_sql(_FOLDER, "find_unfinished")
_CORRECT_ALONE, _FIND_LATE, _CORRECT_USAGE = (
    read_sql(_FOLDER, name) for name in ("correct_alone", "find_late", "correct_usage")
)
_LIST_PRICES = read_sql(_FOLDER, "list_prices")
_LIST_LIVE_KEYS = read_sql(_FOLDER, "list_live_keys")
_FIND_LIVE_KEYS = read_sql(_FOLDER, "find_live_keys")
_MARK_LIVE_KEYS = read_sql(_FOLDER, "mark_live_keys")
_TELL_TIME = read_sql(_FOLDER, "tell_time")


class Settled(NamedTuple):
    newest_price: int  # another one than the rows were priced with: none of them was written
    written: int  # rows that were not there before
    ahead_seconds: float = 0.0  # Postgres' clock, of ours


class LedgerStore:
    def __init__(self, database: Database) -> None:
        self._database = database
        self.settled = self.corrected = 0  # rows written, and rows added by corrections, since this process began

    async def settle(self, rows: Sequence[UsageRow], *, newest_price: int) -> Settled:
        """Write the rows, all or none; those that are there already stay as they are."""
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute(_HOLD_PRICES)
            record = await connection.fetchrow(_SETTLE_USAGE, *zip(*rows, strict=True), newest_price)
            assert record is not None  # the statement always returns one row
        self.settled += record["written"]
        return Settled(record["newest"], record["written"], record["clock"] - time.time())

    async def journal(self, request_ids: Sequence[str]) -> list[UsageEntry]:
        async with self._database.connection() as connection:
            records = await connection.fetch(_FIND_JOURNAL, request_ids)
        return [UsageEntry(**record) for record in records]

    async def unfinished(self, replicas: Sequence[str], endpoints: Sequence[str]) -> list[Unfinished]:
        """Of these replicas, and those of these endpoints, the ones whose journals are not whole here."""
        async with self._database.connection() as connection:
            records = await connection.fetch(_FIND_UNFINISHED, replicas, endpoints)
        return [Unfinished(**record) for record in records]

    async def correct(
        self,
        decide: Callable[[Sequence[Late]], Sequence[Correction]],
        *,
        back: float,
        most: int,
        without: Sequence[str],
    ) -> list[Late]:
        """Write what `decide` makes of entries of the last `back` seconds that came after their rows, but for those of
        `without`.
        """
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute(_CORRECT_ALONE)
            found = [Late(**record) for record in await connection.fetch(_FIND_LATE, back, most, without)]
            if corrections := decide(found):
                await connection.execute(_CORRECT_USAGE, *zip(*corrections, strict=True))
        self.corrected += len(corrections)
        return found

    async def prices(self) -> PriceList:
        async with self._database.connection() as connection:
            records = await connection.fetch(_LIST_PRICES)
            ahead = float(await connection.fetchval(_TELL_TIME)) - time.time()
        prices = [
            Price(
                version=record["version"],
                org_id=record["org_id"],
                endpoint_id=record["endpoint_id"],
                valid_from=record["valid_from"],
                input=_units(record["input_per_million"]),
                cached=_units(record["cached_per_million"]),
                output=_units(record["output_per_million"]),
                ends=record["ends"],
            )
            for record in records
        ]
        return PriceList(prices, ahead_seconds=ahead)

    async def live_keys(self) -> LiveKeys:
        async with self._database.connection() as connection:
            records = await connection.fetch(_LIST_LIVE_KEYS)
            ahead = float(await connection.fetchval(_TELL_TIME)) - time.time()
        rows: list[KeyRow] = []
        for first in range(0, len(records), SLICE):
            rows += [KeyRow(**record) for record in records[first : first + SLICE]]
            await asyncio.sleep(0)
        return LiveKeys(tuple(rows), ahead)

    async def find_keys(self, ids: Sequence[str]) -> LiveKeys:
        """Those live keys that have these ids, or are of endpoints that have them."""
        async with self._database.connection() as connection:
            records = await connection.fetch(_FIND_LIVE_KEYS, list(ids))
            ahead = float(await connection.fetchval(_TELL_TIME)) - time.time()
        return LiveKeys(tuple(KeyRow(**record) for record in records), ahead)

    async def mark_keys(self) -> str:
        """What all live keys add up to: equal while none has changed, come or gone."""
        async with self._database.connection() as connection:
            return str(await connection.fetchval(_MARK_LIVE_KEYS))


def _units(dollars: Decimal) -> int:
    """numeric(20,10) as an integer of 1e-10: exact."""
    return int(dollars.scaleb(10))
