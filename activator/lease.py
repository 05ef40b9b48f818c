"""Who leads: one activator of many, by a Postgres session lock, each time under a new epoch. Step 6.

The lock ends with its session, so a leader killed by -9 is followed at once, and those that wait poll nothing. With
Postgres away the last leader goes on, since nobody else can take its place then; when Postgres is back it takes the lock
and a new epoch again, or, if somebody led in between, ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import asyncpg
import structlog

from activator.errors import LeadershipLost
from activator.store.connection import FAILED
from activator.store.statements import statements

log = structlog.get_logger()
SQL = statements("leadership")

LOCK = 0x70696C6F74  # "pilot"; advisory locks are numbers, one space a database
RETRY_SECONDS = 0.5
PROBE_SECONDS = 5.0
Connection: TypeAlias = "asyncpg.Connection[Any]"


class Lease:
    """Leadership. `epoch` is that of the last time it was taken; 0 before the first."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: Connection | None = None
        self._lost = asyncio.Event()
        self._raise_above = 0
        self.epoch = 0

    async def take(self) -> int:
        """Wait, as long as it takes, until this process leads. Returns the epoch."""
        while True:
            try:
                connection = await self._connect()
                log.info("waiting to lead", action="lease_wait")
                await connection.execute(SQL["wait"], LOCK)
                return await self._begin(connection, 0)
            except FAILED as error:
                log.warning("Postgres does not answer", action="lease_retry", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def keep(self, renewed: Callable[[int], Awaitable[None]]) -> None:
        """Lead on, for ever; `renewed` hears of each new epoch. Raises LeadershipLost."""
        while True:
            await self._trouble()
            above = self._raise_above
            try:
                if self._connection is None or self._connection.is_closed():
                    log.warning("the lease's connection is lost; leading on", action="lease_away", epoch=self.epoch)
                    await self._regain()
                elif above >= self.epoch:
                    await self._begin(self._connection, above)
                else:
                    continue
            except FAILED:
                await asyncio.sleep(RETRY_SECONDS)
                self._lost.set()
                continue
            log.info("leading under a new epoch", action="lease_renewed", epoch=self.epoch)
            await renewed(self.epoch)

    async def _trouble(self) -> None:
        """Until the session ends or a higher epoch is needed. A statement now and then, for a session may end without a word."""
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

    async def _regain(self) -> None:
        connection = await self._connect()
        if not await connection.fetchval(SQL["try"], LOCK):
            connection.terminate()
            raise LeadershipLost("another activator leads now")
        before = self.epoch
        epoch = await self._begin(connection, self._raise_above)
        if epoch != max(before, self._raise_above) + 1:
            raise LeadershipLost(f"another activator led under an epoch between {before} and {epoch}")

    async def _connect(self) -> Connection:
        settings = {"application_name": "pilotlight activator lease"}
        return await asyncpg.connect(self._dsn, server_settings=settings, timeout=10.0)

    async def _begin(self, connection: Connection, above: int) -> int:
        self.epoch = int(await connection.fetchval(SQL["take_epoch"], above))
        if connection is not self._connection:
            self._connection = connection
            connection.add_termination_listener(lambda _connection: self._lost.set())
        return self.epoch
