"""Leadership: one activator of many, by a Postgres session lock, each time under a new epoch. Step 6.

    waiting ──acquire: the lock in Postgres──→ leading, connected
       └──────acquire: Postgres away, the machine's own lock──→ leading, not connected
    leading, connected ──_until_lost: the session ended──→ leading, not connected
    leading, not connected ──_regain: the lock and the next epoch──→ leading, connected
                      └──────_regain: another has led meanwhile──→ LeadershipLost
    leading ──give_up──→ ended

The lock ends with its session. So a leader killed by -9 is followed at once, and those that wait poll nothing. What
must survive is Postgres being away. The last leader goes on, since nobody else can take its place then. When Postgres
is back it takes the lock and a new epoch again, or, if somebody led in between, ends. Where all activators run on one
machine, that machine's own lock is enough until then (`machine_lock.py` has the argument).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import asyncpg
import structlog

from activator.edges.machine_lock import MachineLock
from activator.errors import LeadershipLost
from activator.store.connection import FAILED
from activator.store.statements import statements
from pilotlight.database.connect import connect

log = structlog.get_logger()
SQL = statements("leadership")

LOCK = 0x70696C6F74  # "pilot"; advisory locks are numbers, one space a database
RETRY_SECONDS = 0.5
HERE_SECONDS = 0.05  # between two looks at this machine's lock, whose holder is about to end
AWAY_SECONDS = 1.0  # without Postgres, before this machine's own lock is enough
PROBE_SECONDS = 5.0
Session: TypeAlias = "asyncpg.Connection[Any]"


class Lease:
    """Leadership. `epoch` is that of the last time it was taken; 0 before the first. `connected`: Postgres says so
    too.
    """

    def __init__(self, dsn: str, alone: MachineLock | None = None) -> None:
        self._dsn, self._alone = dsn, alone
        self._connection: Session | None = None
        self._lost = asyncio.Event()
        self._raise_above = 0
        self.epoch = 0

    @property
    def connected(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    async def acquire(self, *, without: Callable[[], bool] = lambda: False) -> int:
        """Wait, as long as it takes, until this process leads. Returns the epoch. `without`: it knows all it must where
        Postgres is away.
        """
        loop, warned = asyncio.get_running_loop(), False
        began = loop.time()
        while True:
            try:
                connection = await self._connect()
                log.info("waiting to lead", action="lease_wait")
                await connection.execute(SQL["wait"], LOCK)
                # its holder led without Postgres, and is told to end
                while self._alone is not None and not self._alone.hold():
                    await asyncio.sleep(HERE_SECONDS)
                return await self._begin(connection, self._alone.highest if self._alone is not None else 0)
            except FAILED as error:
                if not warned:
                    log.warning("Postgres does not answer; trying on", action="lease_retry", error=str(error))
                warned = True
                if (
                    loop.time() - began >= AWAY_SECONDS
                    and self._alone is not None
                    and self._alone.may
                    and without()
                    and self._leads_alone(0)
                ):
                    log.warning(
                        "Postgres is away; leading by this machine's own lock", action="lease_alone", epoch=self.epoch
                    )
                    self._lost.set()
                    return self.epoch
                await asyncio.sleep(RETRY_SECONDS)

    async def keep(self, renewed: Callable[[int], Awaitable[None]]) -> None:
        """Lead on, for ever; `renewed` hears of each new epoch. Raises LeadershipLost."""
        away = False
        while True:
            await self._until_lost()
            above = self._raise_above
            try:
                if not self.connected:
                    if not away:
                        log.warning("the lease's connection is lost; leading on", action="lease_away", epoch=self.epoch)
                    away = True
                    await self._regain()
                elif above >= self.epoch:
                    assert self._connection is not None
                    await self._begin(self._connection, above)
                else:
                    continue
            except FAILED:
                if above >= self.epoch and self._leads_alone(above):  # an agent has obeyed a higher one
                    await renewed(self.epoch)
                await asyncio.sleep(RETRY_SECONDS)
                self._lost.set()
                continue
            away = False
            log.info("leading under a new epoch", action="lease_renewed", epoch=self.epoch)
            await renewed(self.epoch)

    def _leads_alone(self, above: int) -> bool:
        """Lead under a new epoch above this one without Postgres, where that may be."""
        if self._alone is None or not (epoch := self._alone.lead(max(above, self.epoch))):
            return False
        self.epoch = epoch
        return True

    async def _until_lost(self) -> None:
        """Until the session ends or a higher epoch is needed. A statement now and then, for a session may end without a
        word.
        """
        while not self._lost.is_set():
            try:
                await asyncio.wait_for(self._lost.wait(), PROBE_SECONDS)
            except TimeoutError:
                await self._probe()
        self._lost.clear()

    async def _probe(self) -> None:
        if self._connection is not None and not self._connection.is_closed():
            try:
                await self._connection.execute(SQL["probe"], timeout=PROBE_SECONDS)
            except FAILED:
                self._connection.terminate()
                self._lost.set()

    def raise_above(self, epoch: int) -> None:
        """Take an epoch above this one, as soon as Postgres lets us."""
        self._raise_above = max(self._raise_above, epoch)
        self._lost.set()

    async def give_up(self) -> None:
        """End the session, and leadership with it."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            connection.terminate()
        if self._alone is not None:
            self._alone.let_go()

    async def _regain(self) -> None:
        connection = await self._connect()
        if not await connection.fetchval(SQL["try"], LOCK):
            connection.terminate()
            raise LeadershipLost("another activator leads now")
        before = self.epoch  # of ours, be it Postgres' or this machine's
        epoch = await self._begin(connection, max(before, self._raise_above))
        if epoch != max(before, self._raise_above) + 1:
            raise LeadershipLost(f"another activator led under an epoch between {before} and {epoch}")

    async def _connect(self) -> Session:
        return await connect(self._dsn, application="activator lease")

    async def _begin(self, connection: Session, above: int) -> int:
        self.epoch = int(await connection.fetchval(SQL["take_epoch"], above))
        if connection is not self._connection:
            self._connection = connection
            connection.add_termination_listener(lambda _connection: self._lost.set())
        if self._alone is not None:
            self._alone.led(self.epoch)
        return self.epoch
