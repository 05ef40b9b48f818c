"""The embedded Postgres under `pilotlight up`: when it dies it is started again, while everything else goes on.

Warm calls need no Postgres and the ledger's spool keeps their records, so its death ends nothing. The failures to survive:
kill -9 of it (its log is replayed), one death after another, and a disk or a memory that is full for the moment. What
does not start `MOST_FAILURES` times in a row needs a person, and the last reason is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from pilotlight.cli.exits import explain_os_error, one_line
from pilotlight.database import embedded
from pilotlight.database.embedded import EmbeddedPostgres
from pilotlight.database.errors import DatabaseError
from pilotlight.settings import Paths

SOUND_SECONDS = 60.0  # who lived so long had started well: its death is the first in a row
MOST_FAILURES = 10  # about 35 seconds of pauses
FIRST_PAUSE = 0.1  # seconds; doubles
LONGEST_PAUSE = 10.0


class PostgresLost(Exception):
    """It does not stay up; the text has the last reason."""


class Postgres:
    """The server of one state folder, from `start` to `stop`."""

    def __init__(
        self, paths: Paths, say: Callable[[str], None], *, start: Callable[[Paths], Awaitable[EmbeddedPostgres]] = embedded.start
    ) -> None:
        self._paths, self._say, self._start = paths, say, start
        self._server: EmbeddedPostgres | None = None

    async def start(self) -> str:
        """Returns its address once it answers; that stays the same for ever. Raises EmbeddedError, OSError."""
        self._server = await self._start(self._paths)
        return self._server.dsn

    async def keep(self) -> NoReturn:
        """Start it again whenever it dies. Raises PostgresLost."""
        loop, failures, reason = asyncio.get_running_loop(), 0, ""
        while True:
            assert self._server is not None
            began = loop.time()
            await self._server.ended()  # at once, where the last start failed
            failures = 1 if loop.time() - began > SOUND_SECONDS else failures + 1
            if failures > MOST_FAILURES:
                raise PostgresLost(f"Postgres does not stay up, it was started {MOST_FAILURES} times in a row: {reason}")
            if failures == 1:
                self._say("Postgres ended; starting it again. Warm calls go on, and their records wait on disk")
            try:
                await self._server.stop()
                await asyncio.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (failures - 1)))
                self._server = await self._start(self._paths)
            except (DatabaseError, OSError) as error:
                reason = explain_os_error(error) if isinstance(error, OSError) else one_line(str(error))
                self._say(f"Postgres does not start: {reason}")
            else:
                reason = f"it ended each time, see {self._paths.logs / 'postgres.log'}"
                self._say("Postgres is back")

    async def stop(self) -> None:
        if self._server:
            await self._server.stop()
