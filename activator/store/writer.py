"""The queue between the reconciler and Postgres: in order, and never waited for. Steps 6 and 12.

What must survive is Postgres being away: the queue keeps what it was given and goes on trying. A replica's row is kept
in its newest form only. Cold starts, events and rungs in quarantine are kept up to a bound, and so is usage. Beyond it
usage stays with the agent, which keeps it anyway. A row that Postgres refuses is logged and dropped. The next report of
that replica, or its end, writes it again.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from activator.policy.quarantine import QuarantinedRung
from activator.store import bad_rungs, cold_starts, events, journal, replicas
from activator.store.cold_starts import ColdStart
from activator.store.connection import FAILED, REFUSED, Connection, Pool
from activator.store.events import EventRecord
from activator.store.replicas import ReplicaRecord
from runtime.wire import UsageEntry

log = structlog.get_logger()

MOST_USAGE = 100_000  # entries waiting; about 30 MB
MOST_ROWS = 100_000  # replicas and cold starts waiting
RETRY_SECONDS = 0.5
STATEMENT_SECONDS = 30.0

MOST_AT_ONCE = 5000  # usage entries of one statement: after an outage all that waits goes in few of them


@dataclass(frozen=True, slots=True)
class Usage:
    """Entries, replicas whose journals end with them, and who is to hear that it is stored."""

    entries: tuple[UsageEntry, ...]
    complete: tuple[str, ...]
    stored: tuple[Callable[[], None], ...]


Item = ReplicaRecord | ColdStart | EventRecord | QuarantinedRung | Usage
Key = str | int | tuple[str, ...]


class Writer:
    """The queue, and the task that empties it (`run`)."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: OrderedDict[Key, Item] = OrderedDict()
        self._entries = 0
        self._numbers = 0
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._when_empty: list[Callable[[], None]] = []

    def replica(self, record: ReplicaRecord) -> None:
        """Write this row, in place of what waits of the same replica."""
        self._put_row(record.replica_id, record)

    def cold_start(self, record: ColdStart) -> None:
        """Write this row, once."""
        self._put_row(("cold start", record.cold_start_id), record)

    def event(self, record: EventRecord) -> None:
        """Write this row, once."""
        self._numbers += 1
        self._put_row(("event", str(self._numbers)), record)

    def bad_rung(self, mark: QuarantinedRung) -> None:
        """Write this row, in place of what waits of the same rung."""
        self._put_row(("bad rung", mark.revision_id, mark.node_id, mark.step), mark)

    def usage(self, entries: Sequence[UsageEntry], stored: Callable[[], None], *, complete: Sequence[str] = ()) -> bool:
        """Write these, behind all given before, then call `stored`. False when too many wait already."""
        if self._entries + len(entries) > MOST_USAGE:
            return False
        self._entries += len(entries)
        self._numbers += 1
        self._put(self._numbers, Usage(tuple(entries), tuple(complete), (stored,)))
        return True

    @property
    def waiting(self) -> int:
        """Rows that are not written yet."""
        return len(self._waiting)

    def when_empty(self, call: Callable[[], None]) -> None:
        """Call once nothing waits any more."""
        self._when_empty.append(call)

    async def flush(self) -> None:
        """Returns when nothing waits."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._more.wait()
            key, item = self._waiting.popitem(last=False)
            if isinstance(item, Usage):
                item = self._gathered(item)
            if await self._written(key, item):
                if isinstance(item, Usage):
                    self._entries -= len(item.entries)
                    for stored in item.stored:
                        stored()
            elif key not in self._waiting:
                self._waiting[key] = item
                self._waiting.move_to_end(key, last=False)
            if not self._waiting:
                self._emptied()

    def _gathered(self, usage: Usage) -> Usage:
        """This, and what waits right behind it, as one."""
        parts, entries = [usage], len(usage.entries)
        while (
            self._waiting
            and entries < MOST_AT_ONCE
            and isinstance(following := next(iter(self._waiting.values())), Usage)
        ):
            self._waiting.popitem(last=False)
            parts.append(following)
            entries += len(following.entries)
        return Usage(
            tuple(entry for part in parts for entry in part.entries),
            tuple(name for part in parts for name in part.complete),
            tuple(stored for part in parts for stored in part.stored),
        )

    def _put_row(self, key: Key, record: ReplicaRecord | ColdStart | EventRecord | QuarantinedRung) -> None:
        if len(self._waiting) >= MOST_ROWS and key not in self._waiting:
            log.error("too many rows wait for Postgres; one is lost", action="row_lost", row=key)
            return
        self._put(key, record)

    def _put(self, key: Key, item: Item) -> None:
        self._waiting[key] = item
        self._more.set()
        self._idle.clear()

    def _emptied(self) -> None:
        self._more.clear()
        self._idle.set()
        calls, self._when_empty = self._when_empty, []
        for call in calls:
            call()

    async def _written(self, key: Key, item: Item) -> bool:
        """False when Postgres is away, after a pause."""
        try:
            async with self._pool.acquire(timeout=STATEMENT_SECONDS) as connection, asyncio.timeout(STATEMENT_SECONDS):
                await self._write(connection, item)
        except FAILED as error:
            if isinstance(error, REFUSED) and not isinstance(item, Usage):
                log.error("Postgres refused a row", action="row_refused", row=key, error=str(error))
                return True
            log.warning(
                "Postgres is away; rows wait", action="postgres_away", waiting=len(self._waiting) + 1, error=str(error)
            )
            await asyncio.sleep(RETRY_SECONDS)  # usage is never dropped, whatever Postgres has against it now
            return False
        return True

    async def _write(self, connection: Connection, item: Item) -> None:
        if isinstance(item, ReplicaRecord):
            await replicas.put(connection, item, time.monotonic())
        elif isinstance(item, ColdStart):
            await cold_starts.add(connection, item, time.monotonic())
        elif isinstance(item, EventRecord):
            await events.add(connection, item, time.monotonic())
        elif isinstance(item, QuarantinedRung):
            await bad_rungs.put(connection, item, time.monotonic())
        elif item.entries or item.complete:
            await journal.add(connection, item.entries, item.complete)
