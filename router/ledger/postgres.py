"""Postgres as the ledger and the admin API see it: there, or away for a while, and never a reason to lose a record.

Step 12. The failure to survive is Postgres stopped for minutes, restarted, moved or full, at any moment, the first one
included. `Database` makes its pool only when somebody asks. `Outage` says once that it went away and once that it is
back. It also says how long to pause before the next try: 0.1 s, doubling up to 5 s, for ever.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy

from pilotlight.database.connect import connect, unreachable
from pilotlight.database.errors import DatabaseError
from pilotlight.database.pool import connect_pool, dsn
from pilotlight.settings import Settings

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
STATEMENT_SECONDS = 30.0  # a statement that takes longer is an outage: all of ours are short and safe to repeat

POISON = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
)  # these values will never be accepted: trying again is no use
AWAY = (
    OSError,
    TimeoutError,
    DatabaseError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
# POISON is in AWAY, too: look for it first. All else that is in AWAY may pass: try again later. InternalClientError is
# what asyncpg raises where a connection is cut while a statement runs on it.

log = structlog.get_logger()
T = TypeVar("T")
Calls = dict[str, list[Callable[[str], None]]]  # by channel; with what was notified


def read_sql(folder: Path, name: str) -> str:
    """The statement in `folder/name.sql`; its comment there says what it is for."""
    return (folder / f"{name}.sql").read_text()


class Outage:
    """One activity's trouble with Postgres: told once when it begins, once when it ends."""

    def __init__(self, activity: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._activity, self._clock = activity, clock
        self._since: float | None = None
        self._pause = FIRST_PAUSE_SECONDS

    @property
    def lasting(self) -> bool:
        return self._since is not None

    def failed(self, error: BaseException) -> float:
        """Note a failure; returns the seconds to wait before the next try."""
        if self._since is None:
            self._since = self._clock()
            reason = f"{type(error).__name__}: {error}"
            log.warning(
                "Postgres is away; nothing is lost, trying again until it is back", action=self._activity, reason=reason
            )
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE_SECONDS)
        return pause

    def over(self) -> bool:
        """Note a success; true when it ended an outage."""
        if self._since is None:
            return False
        log.info("Postgres is back", action=self._activity, away_seconds=round(self._clock() - self._since, 3))
        self._since, self._pause = None, FIRST_PAUSE_SECONDS
        return True


class Database:
    """A pool that is made on first use, so that a process starts, and serves what it can, without Postgres.

    At rest it has no connection: after `unused` seconds without a statement each is closed. No call waits for the next,
    which takes some 10 ms to make.
    """

    def __init__(self, settings: Settings, *, application: str, unused: float, largest: int = 4) -> None:
        self._settings, self._application = settings, application
        self._unused, self._largest = unused, largest
        self._pool: asyncpg.Pool | None = None
        self._making = asyncio.Lock()

    async def connect(self, purpose: str, **limits: str) -> asyncpg.Connection:
        """A connection of one's own, for what lasts longer than a statement. `limits`: settings of its session. Raises
        one of AWAY.
        """
        where = dsn(self._settings)
        try:
            return await connect(where, application=f"{self._application} {purpose}", timeout=5, limits=limits)
        except ValueError as error:
            raise unreachable(where, error) from error

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[PoolConnectionProxy]:
        """A pooled connection; the whole block must end within STATEMENT_SECONDS. Raises one of AWAY, or POISON."""
        async with asyncio.timeout(STATEMENT_SECONDS):
            async with self._making:
                # smallest 0: else it reconnects by itself and logs a traceback each time it cannot
                if self._pool is None:
                    self._pool = await connect_pool(
                        dsn(self._settings),
                        application=self._application,
                        smallest=0,
                        largest=self._largest,
                        unused=self._unused,
                    )
            async with self._pool.acquire() as connection:
                yield connection

    async def close(self) -> None:
        if self._pool is not None:
            self._pool.terminate()


class Listener:
    """LISTENs on channels for ever, over one connection, and says when it is (again) connected.

    What was notified while it was away is lost: `on_connect` must read everything anew. A connection that went silent
    is found by the probe, the named fallback, every PROBE_SECONDS.
    """

    PROBE_SECONDS = 15.0

    def __init__(self, database: Database, *, on_notify: Calls, on_connect: list[Callable[[], None]]) -> None:
        self._database = database
        self._on_notify = on_notify
        self._on_connect = on_connect

    async def run(self) -> None:
        outage = Outage("ledger.listen")
        while True:
            try:
                await self._listen(outage)
            except AWAY as error:
                await asyncio.sleep(outage.failed(error))

    async def _listen(self, outage: Outage) -> None:
        connection = await self._database.connect("listen")
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        try:
            for channel in self._on_notify:
                await connection.add_listener(channel, self._notified)
            outage.over()
            for call in self._on_connect:
                call()
            while not ended.is_set():
                try:
                    async with asyncio.timeout(self.PROBE_SECONDS):
                        await ended.wait()
                except TimeoutError:
                    await connection.execute("SELECT 1", timeout=5)
            raise ConnectionResetError("the connection that listened has ended")
        finally:
            connection.terminate()

    def _notified(self, connection: object, pid: int, channel: str, payload: object) -> None:
        for call in self._on_notify[channel]:
            call(str(payload))


async def until_done(outage: Outage, work: Callable[[], Awaitable[T]]) -> T:
    """Do `work` again and again until Postgres takes it. Raises POISON at once: trying again would not help."""
    while True:
        try:
            result = await work()
        except POISON:
            raise
        except AWAY as error:
            await asyncio.sleep(outage.failed(error))
        else:
            outage.over()
            return result
